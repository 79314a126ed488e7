import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from hearth.local.health import Probe
from hearth.local.home import Home
from hearth.local.process import Part, stop
from hearth.local.supervisor import LONGEST_PAUSE_S, Kept, reachable
from tests.local.running import eventually


def kept(script: str, home_path: Path) -> Kept:
    part = Part(name="shell", argv=["/bin/sh", "-c", script], env={})
    return Kept(part, Home(home_path))


def test_a_part_that_keeps_ending_is_started_after_pauses_that_double(home_path: Path) -> None:
    part = kept("echo why; exit 3", home_path)
    said: list[str] = []

    def look() -> bool:
        said.extend(filter(None, [part.look()]))
        return part.deaths >= 4

    assert eventually(look)
    ends = [line for line in said if "ended, code 3" in line]
    assert [line.partition("again in ")[2][:5] for line in ends] == ["0.2 s", "0.4 s", "0.8 s", "1.6 s"]
    assert ends[0].endswith("shell.log:\nwhy")
    assert "\n" not in ends[1], "the same reason is told once"


def test_the_pause_has_a_bound_and_is_short_again_for_a_part_that_had_settled(
    home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = kept("exit 1", home_path)
    part._pause_s, part.deaths = LONGEST_PAUSE_S, 9
    assert eventually(lambda: f"again in {LONGEST_PAUSE_S:.1f} s" in part.look())
    settled = kept("exit 1", home_path)
    settled._pause_s, settled.deaths = LONGEST_PAUSE_S, 9
    settled.child.started = time.time() - 31
    assert eventually(lambda: "again in 0.2 s" in settled.look())


def test_its_log_is_shown_in_whole_lines(home_path: Path) -> None:
    part = kept("echo one; printf tw; sleep 0.3; echo o; sleep 1000", home_path)
    shown: list[str] = []

    def look() -> bool:
        shown.extend(part.new_lines())
        return len(shown) == 2

    assert eventually(look)
    assert shown == ["one", "two"]
    stop([part.child])


@pytest.mark.parametrize(
    ("host", "in_a_url"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")]
)
def test_a_url_names_an_address_that_can_be_reached(host: str, in_a_url: str) -> None:
    assert reachable(host) == in_a_url


def test_a_probe_never_waits_and_hears_the_answer_when_it_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = Probe("127.0.0.1", server.getsockname()[1])
        begun = time.monotonic()
        assert probe.look() == {}, "the connection waits: nobody has taken it"
        assert time.monotonic() - begun < 2

        def answer() -> None:
            taken, _ = server.accept()
            taken.recv(1000)
            taken.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"db": "ok"}')
            taken.close()

        threading.Thread(target=answer).start()
        assert eventually(lambda: probe.look() == {"db": "ok"})


def test_a_probe_of_nothing_is_an_empty_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert Probe("127.0.0.1", port).look() == {}


def test_a_part_that_is_waiting_to_start_again_can_be_stopped(home_path: Path) -> None:
    part = kept("exit 1", home_path)
    assert eventually(lambda: bool(part.look()))
    stop([part.child])
    assert part.child.ended() == 1
    assert signal.Signals(part.part.stop) == signal.SIGTERM
