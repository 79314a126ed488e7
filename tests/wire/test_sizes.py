"""Rule 26: how large a body may be, and that a refusal reaches a client that sends all before it reads."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.wire.api import Api, check_refusal, job_row, nothing_stored

MIB = 1024**2
LIMITS = {"run": 10 * MIB, "runsync": 20 * MIB}
CHUNK = b"a" * MIB
CLOSE = "Connection: close"  # then a process that answers before it has read all resets the connection


def body_of(size: int) -> bytes:
    """A good request of exactly so many bytes."""
    return b'{"input": "' + b"a" * (size - 13) + b'"}'


def send_all_then_read(api: Api, path: str, body: bytes, *more: str, announced: int | None = None) -> httpx.Response:
    """One request on a connection of its own, written whole before anything is read."""
    url = api.http.base_url
    lines = [f"POST /v2/{api.endpoint}/{path} HTTP/1.1", f"Host: {url.host}", f"Authorization: {api.authorization}"]
    if not any(line.startswith("Transfer-Encoding") for line in more):
        lines.append(f"Content-Length: {announced or len(body)}")
    with socket.create_connection((url.host, url.port), timeout=30) as client:
        client.sendall("\r\n".join([*lines, *more, "", ""]).encode())
        client.sendall(body)
        client.shutdown(socket.SHUT_WR) if announced else None
        return read_answer(client)


def read_answer(client: socket.socket) -> httpx.Response:
    with client.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = [line.decode().rstrip().split(": ", 1) for line in iter(stream.readline, b"\r\n")]
        length = int(httpx.Headers(headers)["Content-Length"])
        return httpx.Response(status, headers=headers, content=stream.read(length))


@pytest.mark.parametrize("path", LIMITS)
def test_one_byte_too_many_is_a_clean_413(acme: Api, path: str) -> None:
    with nothing_stored():
        answered = send_all_then_read(acme, path, body_of(LIMITS[path] + 1), CLOSE)
    assert f"{LIMITS[path]}" in check_refusal(answered, 413, "too_large")["error"]


def test_the_connection_goes_on_after_a_413(acme: Api) -> None:
    """The body was read whole, so the next request on the connection is not taken for its rest."""
    with httpx.Client(base_url=acme.http.base_url, limits=httpx.Limits(max_connections=1)) as http:
        assert Api.of(http, acme.client).post("run", body_of(LIMITS["run"] + 1)).status_code == 413
        assert Api.of(http, acme.client).post("run", {"input": 1}).status_code == 200


def test_a_far_too_large_body_is_a_clean_413(acme: Api) -> None:
    with nothing_stored():
        check_refusal(send_all_then_read(acme, "run", b"a" * (40 * MIB), CLOSE), 413, "too_large")


def test_a_body_of_unknown_length_is_counted_as_it_comes(acme: Api) -> None:
    chunk = f"{MIB:x}\r\n".encode() + CHUNK + b"\r\n"
    body = chunk * 10 + b"1\r\na\r\n" + b"0\r\n\r\n"
    with nothing_stored():
        check_refusal(send_all_then_read(acme, "run", body, "Transfer-Encoding: chunked"), 413, "too_large")


def test_a_request_of_just_the_limit_is_taken(acme: Api) -> None:
    body = body_of(LIMITS["run"])
    job = acme.post("run", body).json()["id"]
    assert bytes(job_row(job).payload.input) == body[10:-1]


def test_runsync_takes_more_than_run(acme: Api) -> None:
    answered = acme.post("runsync", body_of(LIMITS["run"] + 1), wait=1000)
    assert (answered.status_code, answered.json()["status"]) == (200, "IN_QUEUE")


def test_a_large_input_comes_to_the_worker_as_it_was(acme: Api, globex: Api) -> None:
    job = acme.post("run", body_of(3 * MIB)).json()["id"]
    assert json.loads(acme.take().input) == "a" * (3 * MIB - 13)
    assert globex.get(f"status/{job}").status_code == 404


@pytest.mark.parametrize("key", ["", "hth_0123456789ab_" + "a" * 43], ids=["no key", "unknown key"])
def test_a_wrong_key_with_a_large_body_is_a_clean_401(acme: Api, key: str) -> None:
    with nothing_stored():
        check_refusal(send_all_then_read(acme.by(key), "run", body_of(8 * MIB)), 401, "unauthorized")


def test_a_body_that_ends_early_stores_nothing(acme: Api) -> None:
    with nothing_stored(), pytest.raises((ConnectionError, IndexError)):  # there is nothing to read
        send_all_then_read(acme, "run", b'{"input": 1}', announced=100)


def test_a_client_that_goes_away_while_it_sends_stores_nothing(acme: Api) -> None:
    def half() -> Iterator[bytes]:
        yield b'{"input": 1'
        raise ConnectionAbortedError

    with nothing_stored():
        headers = {"Authorization": acme.authorization}
        with pytest.raises(ConnectionAbortedError):
            acme.http.post(f"/v2/{acme.endpoint}/run", content=half(), headers=headers)
        assert acme.get("health").status_code == 200, "the process is well"


def test_a_result_of_25_mb_is_taken(acme: Api) -> None:
    """The SDK has no limit of its own."""
    job = acme.run()
    acme.take()
    acme.job_done(job, b'{"output": "' + b"x" * 25_000_000 + b'"}')
    assert len(acme.status(job)["output"]) == 25_000_000
