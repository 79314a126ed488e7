"""The stock `runpod` SDK worker against Hearth: results, progress, stops, deadlines; an async and a sync handler.

One process for each kind of handler; pings come every second, and the sweeper's lease is short.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from accounts import sql
from jobs.ids import JobId
from jobs.models import Attempt, Event
from tests.cast import Client, Place, kinds, new_client, new_place, row
from tests.fleet.stock import StockWorker
from tests.fleet.wire import call, status, until

LEASE_S = 5
Early = dict[str, tuple[Client, JobId]]
pytestmark = [pytest.mark.xdist_group("stock worker"), pytest.mark.usefixtures("sweeper")]


@pytest.fixture(scope="module")
def place(database: str) -> Place:
    return new_place()


@pytest.fixture(scope="module")
def stock(quick: str, place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockWorker]:
    """With an async handler and two slots."""
    worker = StockWorker(quick, place, "stock", tmp_path_factory.mktemp("stock"), concurrency=2)
    yield worker.wait_until_it_polls()
    worker.end()


@pytest.fixture(scope="module")
def blocking(quick: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockWorker]:
    """With a sync handler, on an endpoint of its own."""
    worker = StockWorker(quick, new_place(), "blocking", tmp_path_factory.mktemp("blocking"), kind="sync")
    yield worker.wait_until_it_polls()
    worker.end()


@pytest.fixture(scope="module")
def early(stock: StockWorker, blocking: StockWorker) -> Early:
    """Jobs that take long, submitted when the first of their tests begins."""
    client, patient = new_client(stock.place), new_client(blocking.place)
    return {
        "overdue": (client, client.submit({"seconds": 60}, policy={"executionTimeout": 5000})),
        "unsent": (client, client.submit({"do": "bytes", "only": 1})),
        "never sent": (client, client.submit({"do": "bytes"})),
        "blocking": (patient, patient.submit({"value": "slow", "seconds": LEASE_S + 2})),
    }


def end(client: Client, job: JobId, url: str) -> dict[str, Any]:
    """The job's status once it has ended."""
    until(lambda: row(job).state not in ("IN_QUEUE", "IN_PROGRESS"), 30)
    found: dict[str, Any] = status(url, client, job)
    return found


def test_what_the_handler_returns_is_the_output(quick: str, acme: Client, stock: StockWorker) -> None:
    values = [{"a": [1, None, "é漢"]}, "text", [1, {"error": "inner"}], 7, False, None]
    jobs = [acme.submit({"value": value}) for value in values] + [acme.submit({"do": "nan"})]
    found = [end(acme, job, quick) for job in jobs]
    assert [answer["output"] for answer in found] == [*values, None]
    assert {(answer["status"], answer["workerId"]) for answer in found} == {("COMPLETED", "stock")}


def test_an_empty_result_is_success_without_output(quick: str, acme: Client, stock: StockWorker) -> None:
    found = end(acme, acme.submit({"value": {}}), quick)
    assert (found["status"], "output" in found, "error" in found) == ("COMPLETED", False, False)


def test_an_error_that_is_returned_fails_the_job(quick: str, acme: Client, stock: StockWorker) -> None:
    plain, rich = acme.submit({"value": {"error": {"k": "v"}}}), acme.submit({"value": {"error": "bad", "x": 1}})
    assert end(acme, plain, quick)["error"] == {"k": "v"}
    found = end(acme, rich, quick)
    assert (found["status"], found["error"], found["output"]) == ("FAILED", "bad", {"x": 1})


def test_an_exception_fails_the_job_with_what_the_sdk_says_of_it(quick: str, acme: Client, stock: StockWorker) -> None:
    found = end(acme, acme.submit({"do": "raise", "value": "boom é"}), quick)
    assert found["status"] == "FAILED"
    said = json.loads(found["error"])
    assert (said["error_type"], said["error_message"]) == ("<class 'ValueError'>", "boom é")
    assert said["worker_id"] == "stock"


def test_runsync_answers_with_the_result(quick: str, acme: Client, stock: StockWorker) -> None:
    body = json.dumps({"input": {"value": "now"}}).encode()
    answer = call("POST", f"{quick}/v2/{acme.place.name}/runsync", body, acme.headers)
    assert (answer.json["status"], answer.json["output"]) == ("COMPLETED", "now")


def test_progress_is_seen_in_the_status_and_the_furthest_is_kept(quick: str, acme: Client, stock: StockWorker) -> None:
    job = acme.submit({"do": "progress", "value": ["load", "sample", "save"], "seconds": 1})
    seen = until(lambda: status(quick, acme, job).get("output"))
    assert set(seen) == {"fraction", "step"}
    until(lambda: status(quick, acme, job)["output"] == {"fraction": 0.3, "step": "save"})
    found = end(acme, job, quick)
    assert found["output"] == ["load", "sample", "save"]


def test_an_execution_time_out_stops_the_handler_and_ends_timed_out(
    quick: str, stock: StockWorker, early: Early
) -> None:
    client, job = early["overdue"]
    found = end(client, job, quick)
    assert (found["status"], "executionTimeout of 5000 ms" in found["error"]) == ("TIMED_OUT", True)
    assert 5000 <= found["executionTime"] < 10_000
    until(lambda: stock.has("stopped", job), 3)
    until(lambda: Attempt.objects.get(job_id=job.uuid).released_at)


def test_a_result_that_the_sdk_cannot_send_loses_the_attempt_to_the_next(quick: str, early: Early) -> None:
    """The handler returns bytes: the SDK reports nothing at all."""
    client, job = early["unsent"]
    assert end(client, job, quick)["output"] == {"attempt": 2}
    assert kinds(job) == ["created", "handed", "lost", "handed", "completed"]
    why = Event.objects.get(job_id=job.uuid, kind="lost").text
    assert why in ("two pings of its worker did not name it", "its worker asked for work and had none in progress")


def test_a_job_that_is_never_reported_fails_after_three_attempts(quick: str, early: Early) -> None:
    found = end(*early["never sent"], quick)
    assert found["status"] == "FAILED"
    assert "Lost by its worker 3 times" in found["error"]


def test_a_handler_that_blocks_keeps_its_job_by_pings_alone(quick: str, early: Early) -> None:
    """It polls nothing for longer than the lease."""
    client, job = early["blocking"]
    assert end(client, job, quick)["output"] == "slow"
    assert kinds(job) == ["created", "handed", "completed"]


def test_two_jobs_run_at_once_in_two_slots_and_the_third_waits(quick: str, acme: Client, stock: StockWorker) -> None:
    """An early job may take a slot for the second that it lasts."""
    jobs = [acme.submit({"value": n, "seconds": 3}) for n in range(3)]
    assert [end(acme, job, quick)["output"] for job in jobs] == [0, 1, 2]
    ran = [Attempt.objects.get(job_id=job.uuid) for job in jobs]
    began = [attempt.handed_at for attempt in ran]
    ended = [attempt.ended_at for attempt in ran if attempt.ended_at]
    assert began[1] < ended[0], "side by side"
    assert began[2] >= min(ended[:2]), "only when a slot was free"


def test_a_cancel_stops_the_handler_and_frees_the_slot(quick: str, place: Place, stock: StockWorker) -> None:
    client = new_client(place, max_running=1)
    first, second = client.submit({"seconds": 60}), client.submit({"value": "next"})
    until(lambda: stock.has("began", first))
    assert client.cancel(first) == "CANCELLED"
    until(lambda: stock.has("stopped", first), 3)
    assert end(client, second, quick)["output"] == "next"
    assert kinds(first) == ["created", "handed", "cancelled"]


def test_the_worker_is_counted_in_health(quick: str, acme: Client, stock: StockWorker) -> None:
    health = call("GET", f"{quick}/v2/{acme.place.name}/health", headers=acme.headers).json
    assert health["workers"]["idle"] + health["workers"]["running"] == 1
    assert stock.row().version == "1.12.0"


def test_a_job_that_nobody_took_ends_by_its_ttl(quick: str) -> None:
    client = new_client(new_place())
    job = client.submit({}, policy={"ttl": 10_000})
    sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '10 s' WHERE id = %s", [job.uuid])
    until(lambda: row(job).state == "TIMED_OUT", 5)
    assert "within its ttl of 10000 ms" in status(quick, client, job)["error"]
    assert kinds(job) == ["created", "timed_out"]


def test_a_handler_that_blocks_cannot_be_stopped_and_keeps_its_slot(quick: str, blocking: StockWorker) -> None:
    client = new_client(blocking.place)
    job, after = client.submit({"value": "too late", "seconds": 2}), client.submit({"value": "after"})
    until(lambda: blocking.has("began", job))
    assert client.cancel(job) == "CANCELLED"
    assert Attempt.objects.get(job_id=job.uuid).released_at is None
    assert end(client, after, quick)["output"] == "after"
    assert (row(job).state, row(job).payload.output) == ("CANCELLED", None)
    until(lambda: Attempt.objects.get(job_id=job.uuid).released_at)
