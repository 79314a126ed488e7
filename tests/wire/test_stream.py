"""GET /stream and /status-sync (runpod.md 2; rules 7, 13): each chunk once and in order, held until there is news."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import psycopg
import pytest

from accounts import sql
from jobs import history, live, loss, stream
from jobs.queue import Claimed
from jobs.stream import PIECE_BYTES
from jobs.sweep import time_out_overdue
from tests.cast import new_client, new_place
from tests.wire.api import Api, add_chunks, aside, check_refusal, finish, job_of, until

WAKE_S = 0.2
NO_JOB = "01234567-89ab-7def-8123-456789abcdef-e1"


@pytest.fixture
def job(acme: Api) -> str:
    return acme.run()


@pytest.fixture
def held(acme: Api, job: str) -> Claimed:
    """acme's job, which a worker has."""
    return acme.take()


@pytest.fixture(scope="module", autouse=True)
def patient(http: httpx.Client) -> "Future[tuple[httpx.Response, float]]":
    """A read of a stream in which nothing happens, begun before all tests: the answer, and how long it took."""
    api = Api.of(http, new_client(new_place()))
    job, begun = api.run(), time.monotonic()
    return aside(lambda: (api.get(f"stream/{job}"), time.monotonic() - begun))


def last_lock(job: str) -> int:
    """Changes when a reader looks for chunks: he locks the job."""
    return int(sql.one("SELECT xmax::text::bigint FROM jobs_job WHERE id = %s", [job_of(job).uuid])[0])


def reads(api: Api, job: str) -> "Future[tuple[str, list[Any]]]":
    """A read that has found nothing and waits now."""
    before = last_lock(job)
    reading = aside(api.stream, job)
    until(lambda: last_lock(job) != before)
    return reading


def test_chunks_come_once_and_in_order(acme: Api, job: str, held: Claimed) -> None:
    add_chunks(acme, held, {"tok": 0}, "t1", None)
    assert acme.stream(job) == ("IN_PROGRESS", [{"tok": 0}, "t1", None])
    add_chunks(acme, held, "t3")
    assert acme.stream(job) == ("IN_PROGRESS", ["t3"])


def test_a_final_answer_has_all_that_is_left_and_what_status_has(acme: Api, job: str, held: Claimed) -> None:
    """JS stops at the first final status; Python only at one without chunks."""
    add_chunks(acme, held, 1, 2)
    assert acme.stream(job) == ("IN_PROGRESS", [1, 2])
    add_chunks(acme, held, 3)
    finish(acme, held, [1, 2, 3])
    first, second = (acme.get(f"stream/{job}").json() for _ in range(2))
    assert first == acme.status(job) | {"stream": [{"output": 3}]}
    assert (second["status"], second["output"], second["stream"]) == ("COMPLETED", [1, 2, 3], [])


@pytest.mark.parametrize("size", [PIECE_BYTES // 2, PIECE_BYTES * 2])
def test_a_large_stream_comes_in_pieces_and_is_final_with_the_last(
    acme: Api, job: str, held: Claimed, size: int
) -> None:
    add_chunks(acme, held, *(f"{n}" * size for n in range(6)))
    finish(acme, held, [])
    seen: list[str] = []
    while True:
        status, chunks = acme.stream(job)
        assert chunks
        seen += [chunk[0] for chunk in chunks]
        assert sum(map(len, chunks[:-1])) <= PIECE_BYTES
        assert status == ("COMPLETED" if len(seen) == 6 else "IN_PROGRESS")
        if status == "COMPLETED":
            break
    assert seen == list("012345")


def test_as_many_chunks_as_there_are_come_in_pieces(
    acme: Api, job: str, held: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PIECE_CHUNKS", 2)
    add_chunks(acme, held, *range(5))
    finish(acme, held, [])
    pieces = [stream.read(acme.client.key, acme.endpoint, job_of(job)) for _ in range(3)]
    said = [orjson.loads(piece.json) for piece in pieces]
    assert [[chunk["output"] for chunk in answer["stream"]] for answer in said] == [[0, 1], [2, 3], [4]]
    assert [answer["status"] for answer in said] == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]


def test_without_an_answer_nothing_is_taken_out_of_the_stream(
    acme: Api, job: str, held: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_chunks(acme, held, 1)
    finish(acme, held, [])
    monkeypatch.setattr(history.Snapshot, "fields", lambda _: None)  # as when the tenant's bucket cannot be unsealed
    with pytest.raises(TypeError):
        stream.read(acme.client.key, acme.endpoint, job_of(job))
    assert acme.stream(job) == ("COMPLETED", [1])


def test_a_read_waits_for_a_chunk_and_then_for_the_end(acme: Api, job: str, held: Claimed) -> None:
    late = []
    for n in range(3):
        reading = reads(acme, job)
        add_chunks(acme, held, n)
        said = time.monotonic()
        assert reading.result(20) == ("IN_PROGRESS", [n])
        late.append(time.monotonic() - said)
    reading = reads(acme, job)
    finish(acme, held)
    assert reading.result(20) == ("COMPLETED", [])
    assert sorted(late)[1] < WAKE_S


def test_a_chunk_that_was_not_announced_costs_a_recheck(
    acme: Api, job: str, held: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = reads(acme, job)
    monkeypatch.setattr(live, "_send", lambda keys: None)
    add_chunks(acme, held, 1)
    said = time.monotonic()
    assert reading.result(20) == ("IN_PROGRESS", [1])
    assert time.monotonic() - said < 7


def test_a_recheck_knows_the_streams_with_something_to_read(acme: Api, job: str, held: Claimed) -> None:
    keys = [live.stream_key(job_of(job).uuid), live.job_key(job_of(job).uuid)]
    assert history.have_news(keys) == []
    add_chunks(acme, held, 1)
    assert history.have_news(keys) == [(keys[0], "")]
    acme.stream(job)
    assert history.have_news(keys) == []


def test_of_two_readers_each_has_what_the_other_has_not_and_in_order(acme: Api, job: str, held: Claimed) -> None:
    def drain() -> list[Any]:
        seen: list[Any] = []
        while True:
            status, chunks = acme.stream(job)
            seen += chunks
            if status == "COMPLETED":
                return seen

    readers = [aside(drain) for _ in range(2)]
    for n in range(100):
        add_chunks(acme, held, n)
    finish(acme, held, [])
    seen = [reader.result(30) for reader in readers]
    assert all(part == sorted(part) for part in seen)
    assert sorted(seen[0] + seen[1]) == list(range(100))


WAITING_FOR = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


@contextmanager
def locked(database: str, job: str) -> Iterator[int]:
    """The job, by a session of its own: its pid."""
    with psycopg.connect(database) as session:
        session.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR NO KEY UPDATE", [job_of(job).uuid])
        yield session.info.backend_pid


def open_at_web(web: int, client: int) -> bool:
    """Whether web still has its end of the connection between these ports: it closes it once it knows of a hang-up."""
    ends = [line.split()[1:3] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any([int(end.rpartition(":")[2], 16) for end in pair] == [web, client] for pair in ends)


def one_chunk(job: str) -> tuple[Any, ...]:
    """The version of the job's one chunk, and whether it is sent."""
    return sql.one("SELECT xmin::text, sent_at IS NOT NULL FROM jobs_chunk WHERE job_id = %s", [job_of(job).uuid])


def test_what_a_reader_who_hung_up_did_not_get_stays_in_the_stream(
    acme: Api, job: str, held: Claimed, database: str
) -> None:
    """He hangs up while he waits for the lock on the job, so that the chunk is his when he is found to be gone."""
    add_chunks(acme, held, 1)
    chunk = one_chunk(job)
    parts = urlsplit(str(acme.http.base_url))
    web = parts.hostname or "", parts.port or 80
    head = f"GET /v2/{acme.endpoint}/stream/{job} HTTP/1.1\r\nHost: h\r\nAuthorization: {acme.authorization}\r\n\r\n"
    with locked(database, job) as holder:
        with socket.create_connection(web) as client:
            port = client.getsockname()[1]
            client.sendall(head.encode())
            until(lambda: sql.one(WAITING_FOR, [holder])[0], 60)
        until(lambda: not open_at_web(web[1], port), 60)
    until(lambda: one_chunk(job)[0] != chunk[0] and not one_chunk(job)[1], 60)
    assert acme.stream(job) == ("IN_PROGRESS", [1])


def test_a_lost_attempts_chunks_go_and_the_next_ones_come_whole(acme: Api, job: str, held: Claimed) -> None:
    """What was read of it cannot be taken back: RunPod's protocol has no word for that."""
    add_chunks(acme, held, "a", "b")
    assert acme.stream(job) == ("IN_PROGRESS", ["a", "b"])
    add_chunks(acme, held, "c")
    assert loss.lose(held.job, held.number, "test")
    again = acme.take()
    add_chunks(acme, again, "a", "b", "c", "d")
    finish(acme, again, [])
    assert acme.stream(job) == ("COMPLETED", ["a", "b", "c", "d"])


@pytest.mark.parametrize("end", ["cancel", "fail", "time out"])
def test_any_end_is_final_and_has_what_is_left(acme: Api, job: str, held: Claimed, end: str) -> None:
    add_chunks(acme, held, 1)
    if end == "cancel":
        acme.post(f"cancel/{job}")
    elif end == "fail":
        finish(acme, held, error="boom")
    else:
        sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '25 h' WHERE id = %s", [held.job])
        time_out_overdue()
    found = acme.get(f"stream/{job}").json()
    assert found == acme.status(job) | {"stream": [{"output": 1}]}
    assert found["status"] in ("CANCELLED", "FAILED", "TIMED_OUT")


def test_a_stream_of_a_job_without_one_is_empty(acme: Api, job: str, held: Claimed) -> None:
    finish(acme, held, {"n": 1})
    assert acme.get(f"stream/{job}").json() == acme.status(job) | {"stream": []}


def test_nobody_reads_anothers_stream_and_nothing_is_taken_from_it(
    acme: Api, globex: Api, job: str, held: Claimed
) -> None:
    add_chunks(acme, held, 1)
    for what in ("stream", "status-sync"):
        check_refusal(globex.get(f"{what}/{job}"), 404, "not_found")
        check_refusal(acme.by(acme.client.new_key(scopes=["run"])).get(f"{what}/{job}"), 403, "forbidden")
    assert acme.stream(job) == ("IN_PROGRESS", [1])


def test_status_sync_answers_at_the_end(acme: Api, job: str, held: Claimed) -> None:
    waiting = aside(acme.get, f"status-sync/{job}", wait=30_000)
    finish(acme, held, {"n": 1})
    ended = time.monotonic()
    assert waiting.result(20).json() == acme.status(job)
    assert time.monotonic() - ended < 15
    assert acme.get(f"status-sync/{job}").json() == acme.status(job), "and at once when it has ended"


def test_status_sync_answers_unfinished_after_the_wait(acme: Api, job: str, held: Claimed) -> None:
    begun = time.monotonic()
    assert acme.get(f"status-sync/{job}", wait=1000).json()["status"] == "IN_PROGRESS"
    assert 1 <= time.monotonic() - begun < 30


@pytest.mark.parametrize("wait", ["0", "999", "300001", "x", "-1", "1e4", "", "٣000"])
def test_status_sync_refuses_the_waits_that_runsync_refuses(acme: Api, job: str, wait: str) -> None:
    refused = check_refusal(acme.get(f"status-sync/{job}", wait=wait), 400, "invalid_wait")
    assert refused == acme.post("runsync", {"input": 1}, wait=wait).json()


def test_status_sync_refuses_who_may_not_ask_before_what_is_wrong_with_it(acme: Api, globex: Api, job: str) -> None:
    check_refusal(globex.get(f"status-sync/{job}", wait="x"), 404, "not_found")
    check_refusal(acme.get(f"status-sync/{NO_JOB}", wait="x"), 404, "not_found")
    check_refusal(acme.by("nonsense").get(f"status-sync/{job}", wait="x"), 401, "unauthorized")


def test_a_chunk_does_not_wake_who_waits_for_the_end(acme: Api, job: str, held: Claimed) -> None:
    assert live.stream_key(held.job) != live.job_key(held.job)
    waiting = aside(acme.get, f"status-sync/{job}", wait=30_000)
    add_chunks(acme, held, *range(20))
    assert acme.stream(job)[1] == list(range(20))
    assert not waiting.done()
    finish(acme, held)
    assert waiting.result(20).json()["status"] == "COMPLETED"


def test_a_read_is_held_for_less_than_the_python_sdk_waits(patient: "Future[tuple[httpx.Response, float]]") -> None:
    answered, seconds = patient.result(20)
    assert (answered.json()["status"], answered.json()["stream"]) == ("IN_QUEUE", [])
    assert 7.5 < seconds < 9.5
