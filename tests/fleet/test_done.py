"""job-done (runpod.md 1.5; rules 1, 9): whatever comes is taken with 200, once; what cannot be read fails the job."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobs.ids import JobId
from jobs.loss import lose
from tests.cast import Client, kinds, new_client, new_place, row
from tests.fleet.conftest import OUTPUT_MAX_BYTES
from tests.fleet.wire import WireWorker, aside, call, public, status, until


def handed(worker: WireWorker, client: Client) -> tuple[JobId, str]:
    job = client.submit()
    return job, worker.take_one()


def ends(worker: WireWorker, client: Client, body: bytes, **headers: str) -> Any:
    """The status of a job whose worker sent this as its job-done."""
    job, attempt = handed(worker, client)
    answer = worker.post(attempt, body, **headers)
    assert (answer.status, answer.json) == (200, {})
    return status(worker.url, client, job)


OUTPUTS = [b'{"a": 1}', b'"plain \xc3\xbc"', b'[1, {"error": "inner"}]', b"12345678901234567890123", b"1.10", b"false"]


@pytest.mark.parametrize("output", [*OUTPUTS, b"null", b'""', b"{}", rb'"\ud800 \u0000"'])
def test_an_output_of_any_type_completes_the_job_and_is_kept_to_the_byte(
    worker: WireWorker, acme: Client, output: bytes
) -> None:
    job, attempt = handed(worker, acme)
    assert worker.post(attempt, b'{"output": ' + output + b"}").status == 200
    found = row(job)
    assert (found.state, bytes(found.payload.output or b"")) == ("COMPLETED", output)
    assert found.payload.error is None


@pytest.mark.parametrize("body", [b"{}", b'{"stopPod": true}', b'{"error": null}', b'{"error": ""}', b'{"error": {}}'])
def test_no_output_and_no_error_is_success(worker: WireWorker, acme: Client, body: bytes) -> None:
    """`{}`: the handler returned {}; an error that is no error to Python is none to the SDK."""
    ended = ends(worker, acme, body)
    assert ended["status"] == "COMPLETED"
    assert ended.get("error") is None


@pytest.mark.parametrize(
    "error", ["bad thing", {"k": "v"}, ["a", 1], 7, True, {"n": 10**30}, "nul \0", "\ud800"], ids=repr
)
def test_an_error_of_any_type_fails_the_job(worker: WireWorker, acme: Client, error: Any) -> None:
    job, attempt = handed(worker, acme)
    assert worker.post(attempt, json.dumps({"error": error}).encode()).status == 200
    found = row(job)
    assert found.state == "FAILED"
    assert json.loads(bytes(found.payload.error or b"")) == error


def test_an_error_beside_an_output_fails_the_job_and_keeps_both(worker: WireWorker, acme: Client) -> None:
    ended = ends(worker, acme, b'{"output": {"x": 1}, "error": "bad", "stopPod": true}')
    assert (ended["status"], ended["output"], ended["error"]) == ("FAILED", {"x": 1}, "bad")


def test_an_output_with_a_status_of_its_own_is_a_result(worker: WireWorker, acme: Client) -> None:
    ended = ends(worker, acme, b'{"output": {"status": "IN_PROGRESS", "n": 1}}')
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"status": "IN_PROGRESS", "n": 1})


def test_the_urls_id_counts_whatever_the_header_says(worker: WireWorker, acme: Client) -> None:
    """X-Request-ID is of the SDK's shared session: with two jobs at once it may name the other one."""
    other, attempt = handed(worker, acme)
    job, mine = handed(worker, acme)
    worker.post(mine, b'{"output": "mine"}', **{"X-Request-ID": attempt})
    assert (row(job).state, row(other).state) == ("COMPLETED", "IN_PROGRESS")


def test_nan_and_infinity_become_null_with_a_note(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.post(attempt, b'{"output": {"n": NaN, "list": [Infinity, -Infinity, 1]}}')
    ended = status(worker.url, acme, job)
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"n": None, "list": [None, None, 1]})
    assert "noted" in kinds(job)


UNREADABLE = {
    "cut": b'{"output": {"x"',
    "empty": b"",
    "text": b"Internal Error",
    "list": b'[{"output": 1}]',
    "two": b'{"output": 1}{"output": 2}',
    "utf-8": b'{"output": "\xff\xfe"}',
    "deep": b'{"output": ' + b"[" * 200_000,
    "digits": b'{"output": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_fails_the_job_and_says_why(worker: WireWorker, acme: Client, body: bytes) -> None:
    ended = ends(worker, acme, body)
    assert ended["status"] == "FAILED"
    assert "The worker's result was lost: it is not JSON" in ended["error"]


def test_an_output_that_is_too_large_fails_the_job_and_is_answered_200(worker: WireWorker, acme: Client) -> None:
    for size in (OUTPUT_MAX_BYTES + 1, 30 * OUTPUT_MAX_BYTES):
        ended = ends(worker, acme, b'{"output": "' + b"x" * size + b'"}')
        assert ended["status"] == "FAILED"
        assert f"larger than {OUTPUT_MAX_BYTES} bytes" in ended["error"]


def test_the_largest_output_that_is_taken(worker: WireWorker, acme: Client) -> None:
    frame = b'{"output": ""}'
    body = frame[:-2] + b"x" * (OUTPUT_MAX_BYTES - len(frame)) + frame[-2:]
    ended = ends(worker, acme, body)
    assert (ended["status"], len(ended["output"])) == ("COMPLETED", OUTPUT_MAX_BYTES - len(frame))


def test_a_form_it_is_by_its_content_type_only(worker: WireWorker, acme: Client) -> None:
    ended = ends(worker, acme, '{"output": "a=1&b=%41+ü;c"}'.encode())
    assert ended["output"] == "a=1&b=%41+ü;c"


def test_a_body_sent_in_chunks_is_taken(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.post(attempt, iter([b'{"out', b'put": 1', b"}"]))  # type: ignore[arg-type]
    assert status(worker.url, acme, job)["output"] == 1


def test_a_result_that_breaks_off_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    parts = urlsplit(worker.path(f"job-done/{worker.name}/{attempt}"))
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: h\r\nAuthorization: {worker.authorization}\r\nContent-Length: 99\r\n\r\n"
    )
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as sock:
        sock.sendall(head.encode() + b'{"output": 1}')
    assert worker.done(attempt, output="whole").status == 200
    assert (status(worker.url, acme, job)["output"], kinds(job)[-1]) == ("whole", "completed")


def test_a_doubled_result_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    answers = [worker.done(attempt, output=1), worker.done(attempt, output=2), worker.done(attempt, error="late")]
    assert [(answer.status, answer.json) for answer in answers] == [(200, {})] * 3
    assert status(worker.url, acme, job)["output"] == 1
    assert kinds(job) == ["created", "handed", "completed", "ignored", "ignored"]


def test_of_ten_results_at_once_one_counts(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    answers = [aside(worker.done, attempt, output=n) for n in range(10)]
    assert {answer.result().status for answer in answers} == {200}
    assert (kinds(job).count("completed"), row(job).state) == (1, "COMPLETED")


def test_a_result_under_another_workers_id_changes_nothing(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    assert other.done(attempt, output=1).json == {}
    assert (row(job).state, kinds(job)[-1]) == ("IN_PROGRESS", "ignored")


def test_a_late_result_of_a_lost_attempt_changes_nothing(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job, first = handed(worker, acme)
    lose(job.uuid, 1, "test")
    second = other.take_one()
    assert worker.done(first, output="late").status == 200
    assert worker.done(second, output="not its own").status == 200
    assert row(job).state == "IN_PROGRESS"
    assert other.done(second, output="right").status == 200
    assert status(worker.url, acme, job)["output"] == "right"


def test_a_result_of_an_attempt_to_come_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    assert worker.done(f"{attempt}-a2", output=1).json == {}
    assert row(job).state == "IN_PROGRESS"


@pytest.mark.parametrize("attempt", ["x", "0a-e1", "00000000-0000-4000-8000-000000000000-e1", "a%2Fb", "%00", "-a2"])
def test_a_result_for_an_unknown_id_is_taken_quietly(worker: WireWorker, attempt: str) -> None:
    answer = worker.done(attempt, output=1)
    assert (answer.status, answer.json) in [(200, {}), (404, answer.json)]


def test_a_result_at_another_endpoint_changes_nothing(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    elsewhere = WireWorker(worker.url, new_place())
    assert elsewhere.done(attempt, output=1).json == {}
    assert row(job).state == "IN_PROGRESS"


def test_a_result_after_a_cancel_frees_the_slot_only(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    acme.cancel(job)
    assert worker.done(attempt, output="swallowed the cancel").status == 200
    assert status(worker.url, acme, job) == status(worker.url, acme, job) | {"status": "CANCELLED"}
    assert "output" not in status(worker.url, acme, job)


def test_progress_is_shown_until_the_end_and_not_after(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    for progress in ("25%", {"pct": 75}):
        assert worker.done(attempt, status="IN_PROGRESS", output=progress).json == {}
        assert status(worker.url, acme, job)["output"] == progress
    assert status(worker.url, acme, job)["status"] == "IN_PROGRESS"
    worker.done(attempt, output="result")
    assert worker.done(attempt, status="IN_PROGRESS", output="late").json == {}
    ended = status(worker.url, acme, job)
    assert (ended["status"], ended["output"]) == ("COMPLETED", "result")


def test_the_furthest_progress_is_kept(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    for fraction in (0.5, 0.9, 0.2):
        worker.done(attempt, status="IN_PROGRESS", output={"fraction": fraction})
    assert status(worker.url, acme, job)["output"] == {"fraction": 0.9}


@pytest.mark.parametrize("body", [b'{"status": "IN_PROGRESS"}', b'{"status": "IN_PROGRESS", "output": NaN}'])
def test_odd_progress_is_taken_and_ends_nothing(worker: WireWorker, acme: Client, body: bytes) -> None:
    job, attempt = handed(worker, acme)
    assert worker.post(attempt, body).status == 200
    assert row(job).state == "IN_PROGRESS"


def test_progress_of_a_worker_that_does_not_hold_the_job_is_not_shown(
    worker: WireWorker, other: WireWorker, acme: Client
) -> None:
    job, attempt = handed(worker, acme)
    other.done(attempt, status="IN_PROGRESS", output="mine")
    assert "output" not in status(worker.url, acme, job)


def test_an_error_never_reaches_another_tenant(worker: WireWorker, acme: Client, globex: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.done(attempt, error="acme's own")
    url = f"{worker.url}/v2/{acme.place.name}/status/{public(job)}"
    assert call("GET", url, headers=globex.headers).status == 404


def test_the_result_frees_the_slot_at_once(worker: WireWorker, other: WireWorker) -> None:
    client = new_client(worker.place, max_running=1)
    first, second = client.submit(), client.submit()
    attempt = worker.take_one()
    poll = other.polls()
    worker.done(attempt, output=1)
    assert poll.result().json["id"] == public(second)
    assert until(lambda: row(first).state == "COMPLETED")


def test_the_delay_and_execution_times_are_of_the_hand_over(worker: WireWorker, acme: Client) -> None:
    job, attempt = handed(worker, acme)
    worker.done(attempt, output=1)
    ended = status(worker.url, acme, job)
    assert 0 <= ended["delayTime"] < 5000
    assert 0 <= ended["executionTime"] < 5000
    assert ended["workerId"] == worker.name
