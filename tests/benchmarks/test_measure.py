"""Figures, their ratios and their aims; and a load that counts only right answers."""

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from benchmarks.load import Plan, put_load, request, whole
from benchmarks.measure import Figure, Row, interleaved, quantile, ratios, table


def test_a_figure_is_the_median_of_its_rounds() -> None:
    figure = Figure(name="n", unit="ms", rounds=[5.0, 1.0, 2.0], at_most=2)
    assert (figure.value, figure.met) == (2.0, True)
    assert figure.json()["spread"] == [1.0, 5.0]


@pytest.mark.parametrize(("aim", "met"), [({"at_least": 3}, False), ({"at_least": 2}, True), ({"at_most": 1}, False)])
def test_an_aim_is_met_or_not(aim: dict[str, float], met: bool) -> None:
    assert Figure(name="n", unit="×", rounds=[2.0], **aim).met is met


def test_without_an_aim_nothing_is_met() -> None:
    assert Figure(name="n", unit="s", rounds=[1.0]).met is None


def test_rounds_take_turns() -> None:
    order: list[str] = []
    variants: dict[str, Callable[[], None]] = {name: lambda name=name: order.append(name) for name in "ab"}
    assert interleaved(2, variants) == {"a": [None, None], "b": [None, None]}
    assert order == ["a", "b", "a", "b"]


def test_a_ratio_is_of_one_round() -> None:
    assert ratios([2.0, 9.0], [4.0, 3.0]) == [0.5, 3.0]


def test_a_quantile_is_one_of_the_values() -> None:
    assert quantile(list(range(300)), 0.99) == 297
    assert quantile([7.0], 0.99) == 7.0


def test_the_table_says_what_missed_its_aim_and_what_was_left_out() -> None:
    missed = Row(figures=[Figure(name="slow", unit="ms", rounds=[30.0], at_most=25)])
    said = table({"one": missed, "two": Row(left_out="it needs a GPU")})
    assert "NOT MET" in said
    assert "left out: it needs a GPU" in said


@pytest.mark.parametrize(
    ("answer", "is_whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", False),
        (b"HTTP/1.1 200 OK\r\nconte", False),
    ],
)
def test_an_answer_may_come_in_pieces(answer: bytes, is_whole: bool) -> None:
    assert whole(answer) is is_whole


class Answering(http.server.BaseHTTPRequestHandler):
    """200 to a GET, 503 to a POST."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.answer(503)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_load_counts_answers_and_their_times(port: int) -> None:
    load = put_load(Plan(port=port, requests=[request("GET", "/", "key")], seconds=0.2, warm_s=0.05))
    assert load.answers_a_second > 0
    assert load.answers_in_all >= 16
    assert 0 < load.p50_ms <= load.p99_ms


def test_a_load_breaks_off_at_an_answer_that_is_no_200(port: int) -> None:
    with pytest.raises(RuntimeError, match="503"):
        put_load(Plan(port=port, requests=[request("POST", "/", "key")], seconds=0.2, warm_s=0.05))
