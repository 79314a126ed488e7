"""job-stream (runpod.md 1.6; rules 1, 2, 9): whatever comes is taken with 200, and kept once or noted once."""

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from accounts import sql
from accounts.keys import given_key
from jobs import stream
from jobs.ids import JobId, parse_attempt_id
from jobs.loss import lose
from jobs.models import Attempt, Chunk, Event
from jobs.states import State, end, lock
from tests.cast import Client, kinds, new_place, row
from tests.fleet.conftest import OUTPUT_MAX_BYTES
from tests.fleet.test_database_away import _well_again, away, blink
from tests.fleet.test_done import UNREADABLE, handed
from tests.fleet.test_races import in_line
from tests.fleet.wire import Answer, WireWorker, aside, chunks, public, status, until

__all__ = ["_well_again", "away", "blink"]
WAKE_S = 0.2


def kept(job: JobId) -> list[bytes]:
    return [bytes(chunk.body) for chunk in Chunk.objects.filter(job_id=job.uuid)]


def notes(job: JobId) -> list[str]:
    return list(Event.objects.filter(job_id=job.uuid, kind__in=("noted", "ignored")).values_list("text", flat=True))


def taken(answer: Answer) -> bool:
    return (answer.status, answer.json) == (200, {})


ODD = rb'"\ud800 \u0000"'


@pytest.mark.parametrize(
    "chunk", [b'{"tok": 0}', b'"t0"', b"null", b"[1, 2]", b"1.10", "é漢".encode().join([b'"'] * 2), ODD]
)
def test_a_chunk_of_any_type_is_kept_to_the_byte(worker: WireWorker, acme: Client, chunk: bytes) -> None:
    job, attempt = handed(worker, acme)
    assert taken(worker.post_chunk(attempt, b'{ "output" : ' + chunk + b" }"))
    assert kept(job) == [chunk]


def test_chunks_are_kept_in_the_order_of_coming_and_the_first_confirms_the_attempt(
    worker: WireWorker, acme: Client
) -> None:
    job, attempt = handed(worker, acme)
    assert Attempt.objects.get(job_id=job.uuid).confirmed_at is None
    for n in range(20):
        worker.chunk(attempt, n)
    assert kept(job) == [b"%d" % n for n in range(20)]
    assert Attempt.objects.get(job_id=job.uuid).confirmed_at is not None
    assert kinds(job) == ["created", "handed"]


def test_a_worker_of_our_dialect_may_stream_too(quick: str, own: Client) -> None:
    job, worker = own.submit(), WireWorker(quick, own.place)
    assert taken(worker.chunk(worker.take_one(), {"step": 1}))
    assert chunks(quick, own, job) == [{"step": 1}]


def test_chunks_end_nothing_and_the_job_ends_with_what_job_done_says(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.chunk(attempt, {"error": "a chunk like any other"})
    assert status(worker.url, acme, job)["status"] == "IN_PROGRESS"
    worker.done(attempt, output=[])
    assert status(worker.url, acme, job)["output"] == []
    assert chunks(worker.url, acme, job) == [{"error": "a chunk like any other"}]


def test_nan_becomes_null_with_one_note_for_all(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    for _ in range(3):
        worker.post_chunk(attempt, b'{"output": [NaN, -Infinity]}')
    assert kept(job) == [b"[null, null]"] * 3
    assert notes(job) == ["NaN or Infinity in the stream was made null"]


@pytest.mark.parametrize("body", [*UNREADABLE.values(), b"{}"], ids=[*UNREADABLE, "no output"])
def test_what_cannot_be_read_is_noted_once_and_the_stream_goes_on(
    worker: WireWorker, acme: Client, body: bytes
) -> None:
    job, attempt = handed(worker, acme)
    answers = [
        worker.chunk(attempt, 1),
        *(worker.post_chunk(attempt, body) for _ in range(3)),
        worker.chunk(attempt, 2),
    ]
    assert all(map(taken, answers))
    assert kept(job) == [b"1", b"2"]
    (text,) = notes(job)
    assert text.startswith("a chunk of the stream was lost: it ")


def test_chunks_that_cannot_be_read_for_many_reasons_are_noted_once_too(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    for n in range(5):
        assert taken(worker.post_chunk(attempt, b" " * n + b"?"))
    assert len(notes(job)) == 1


def test_a_chunk_that_is_too_large_is_noted_and_the_stream_goes_on(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    assert taken(worker.chunk(attempt, "x" * OUTPUT_MAX_BYTES))
    assert taken(worker.chunk(attempt, 1))
    assert (kept(job), len(notes(job))) == ([b"1"], 1)
    assert f"larger than {OUTPUT_MAX_BYTES} bytes" in notes(job)[0]


def test_a_stream_is_kept_up_to_a_bound_and_says_once_that_it_is_full(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    third = "x" * (OUTPUT_MAX_BYTES // 3)
    assert all(taken(worker.chunk(attempt, third)) for _ in range(5))
    assert sum(map(len, kept(job))) <= OUTPUT_MAX_BYTES
    assert (len(kept(job)), len(notes(job))) == (2, 1)
    assert f"has reached {OUTPUT_MAX_BYTES} bytes" in notes(job)[0]


def test_reading_does_not_make_room_beyond_the_bound(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    for _ in range(2):
        worker.chunk(attempt, "x" * (OUTPUT_MAX_BYTES // 2 - 2))
        assert len(chunks(worker.url, acme, job)) == 1
    worker.chunk(attempt, "")
    assert len(kept(job)) == 2


def test_a_chunk_of_another_worker_changes_nothing(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    assert all(taken(other.chunk(attempt, n)) for n in range(5))
    assert (kept(job), notes(job)) == ([], ["job-stream of a worker which does not hold this attempt"])
    assert Attempt.objects.get(job_id=job.uuid).confirmed_at is None


def test_late_chunks_change_nothing_and_are_noted_once(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job, first = handed(worker, acme)
    worker.chunk(first, "half")
    lose(job.uuid, 1, "test")
    assert all(taken(worker.chunk(first, n)) for n in range(5))
    second = other.take_one()
    assert all(taken(worker.chunk(attempt, "late")) for attempt in (first, second, first))
    other.chunk(second, "whole")
    other.done(second, output=[])
    assert taken(other.chunk(second, "after the end"))
    assert kept(job) == [b'"whole"'], "the lost attempt's went with it"
    assert kinds(job) == ["created", "handed", "lost", "ignored", "handed", "ignored", "completed", "ignored"]


@pytest.mark.parametrize("attempt", ["x", "00000000-0000-4000-8000-000000000000-e1", "%00", "-a2"])
def test_a_chunk_of_an_unknown_id_is_taken_quietly(worker: WireWorker, attempt: str) -> None:
    assert taken(worker.chunk(attempt, 1))


def test_a_chunk_at_another_endpoint_or_of_an_attempt_to_come_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    elsewhere = WireWorker(worker.url, new_place())
    assert taken(elsewhere.chunk(attempt, 1))
    assert taken(worker.chunk(f"{attempt}-a2", 1))
    assert (kept(job), kinds(job)) == ([], ["created", "handed"])


def test_a_chunk_after_a_cancel_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.chunk(attempt, "before")
    acme.cancel(job)
    assert taken(worker.chunk(attempt, "after"))
    found = status(worker.url, acme, job, "stream")
    assert (found["status"], found["stream"]) == ("CANCELLED", [{"output": "before"}])


def test_adding_a_chunk_twice_is_as_good_as_once(worker: WireWorker, acme: Client) -> None:
    job, text = handed(worker, acme)
    attempt = parse_attempt_id(text)
    assert attempt
    endpoint, number = stream.begin(given_key(worker.authorization), worker.place.name)
    for _ in range(2):
        stream.add(endpoint, worker.name, attempt, number, stream.Chunk(body=b"1"))
    assert kept(job) == [b"1"]


def test_a_chunk_waits_until_the_database_is_back_and_comes_once(worker: WireWorker, acme: Client, away: Any) -> None:
    job, attempt = handed(worker, acme)
    worker.chunk(attempt, "before")
    with away():
        answer = aside(worker.chunk, attempt, "meanwhile")
        until(lambda: worker.ping().status == 503)
        assert not answer.done()
    assert taken(answer.result(20))
    worker.chunk(attempt, "after")
    assert chunks(worker.url, acme, job) == ["before", "meanwhile", "after"]


def test_a_chunk_whose_statement_was_cut_off_is_written_again_and_once(
    worker: WireWorker, acme: Client, database: str, blink: Callable[[], None]
) -> None:
    job, attempt = handed(worker, acme)
    holder = psycopg.connect(database)
    holder.execute("SELECT 1 FROM jobs_attempt WHERE job_id = %s FOR UPDATE", [job.uuid])
    answer = aside(worker.chunk, attempt, 1)
    in_line(1)
    blink()  # ends the holder's session too
    assert taken(answer.result(20))
    assert kept(job) == [b"1"]


def test_a_chunk_is_answered_fast(worker: WireWorker, acme: Client) -> None:
    """A generator waits for each answer."""
    _, attempt = handed(worker, acme)
    answers = sorted(worker.chunk(attempt, n).seconds for n in range(50))
    assert answers[25] < 0.1


def test_a_chunk_wakes_its_reader(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    late = []
    for n in range(5):
        before = last_lock(job)
        reading = aside(status, worker.url, acme, job, "stream")
        until(lambda before=before: last_lock(job) != before)
        worker.chunk(attempt, n)
        said = time.monotonic()
        assert reading.result(10)["stream"] == [{"output": n}]
        late.append(time.monotonic() - said)
    assert sorted(late)[2] < WAKE_S, late


def last_lock(job: JobId) -> int:
    """Changes when a reader looks for chunks: he locks the job."""
    return int(sql.one("SELECT xmax::text::bigint FROM jobs_job WHERE id = %s", [job.uuid])[0])


def test_a_stream_that_has_ended_says_so_to_who_waits(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    reading = aside(status, worker.url, acme, job, "stream")
    worker.done(attempt, output=["all"])
    assert reading.result(10) | {"delayTime": 0, "executionTime": 0} == {
        **{"id": public(job), "status": "COMPLETED", "output": ["all"], "stream": []},
        **{"delayTime": 0, "executionTime": 0, "workerId": "w1"},
    }


def test_a_retry_clears_the_stream(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.chunk(attempt, "old")
    worker.done(attempt, error="boom")
    acme.retry(job)
    assert kept(job) == []
    second = worker.take_one()
    worker.chunk(second, "new")
    assert chunks(worker.url, acme, job) == ["new"]


def test_the_chunks_of_the_last_attempt_stay_when_the_job_fails(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.chunk(attempt, 1)
    lock(job.uuid)
    assert end(job.uuid, State.TIMED_OUT, "test")
    assert chunks(worker.url, acme, job) == [1]
    assert row(job).state == "TIMED_OUT"
