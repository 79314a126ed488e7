"""ping (runpod.md 1.7; rule 2): it confirms and keeps what it names, and what it leaves out is lost."""

from collections.abc import Iterator

import pytest

from accounts import sql
from accounts.models import uuid7
from jobs import history
from jobs.ids import JobId
from jobs.models import Attempt, Worker
from jobs.sweep import lose_silent, time_out_overdue
from tests.cast import Client, kinds, new_client, new_place, row
from tests.fleet.wire import WireWorker, call, public


def attempt(job: JobId, number: int = 1) -> Attempt:
    return Attempt.objects.get(job_id=job.uuid, number=number)


def age(job: JobId, seconds: int) -> None:
    """Move all times of a job's attempt and of its worker into the past."""
    back = f"- interval '{seconds} s'"
    sql.run(
        f"UPDATE jobs_job SET started_at = started_at {back}, deadline_at = deadline_at {back} WHERE id = %s",
        [job.uuid],
    )
    sql.run(
        f"UPDATE jobs_attempt SET handed_at = handed_at {back}, started_at = started_at {back},"
        f" ended_at = ended_at {back}, confirmed_at = confirmed_at {back} WHERE job_id = %s",
        [job.uuid],
    )
    sql.run(
        f"UPDATE jobs_worker SET take_at = take_at {back}, stop_at = stop_at {back}"
        " WHERE id IN (SELECT worker_id FROM jobs_attempt WHERE job_id = %s)",
        [job.uuid],
    )


@pytest.fixture
def up_for_long() -> Iterator[None]:
    """A web process has taken polls and pings for an hour."""
    process = uuid7()
    history.beat(process)
    sql.run("UPDATE jobs_webprocess SET up_since = up_since - interval '1 h' WHERE id = %s", [process])
    yield
    sql.run("DELETE FROM jobs_webprocess WHERE id = %s", [process])


def settle(job: JobId) -> None:
    """The hand-over was 3 s ago: pings are no longer older than it."""
    sql.run("UPDATE jobs_attempt SET handed_at = handed_at - interval '3 s' WHERE job_id = %s", [job.uuid])


def test_a_ping_confirms_what_it_names(worker: WireWorker, acme: Client) -> None:
    jobs = [acme.submit({"n": n}) for n in range(3)]
    named = [job["id"] for job in worker.take_batch(3).json]
    answer = worker.ping(*named[:2], runpod_version="1.12.0")
    assert (answer.status, answer.json) == (200, {})
    assert [attempt(job).confirmed_at is not None for job in jobs] == [True, True, False]


def test_an_idle_ping_shows_the_worker_and_its_version(worker: WireWorker) -> None:
    assert worker.ping(runpod_version="1.12.0").status == 200
    assert Worker.objects.get(endpoint=worker.place.endpoint).version == "1.12.0"


def test_two_pings_without_a_job_lose_it_to_the_next_worker(
    worker: WireWorker, other: WireWorker, acme: Client
) -> None:
    job = acme.submit()
    worker.take_one()
    settle(job)
    poll = other.polls()
    worker.ping()
    assert kinds(job) == ["created", "handed"]
    worker.ping()
    assert poll.result().json["id"] == f"{public(job)}-a2"
    assert kinds(job) == ["created", "handed", "lost", "handed"]


def test_a_ping_that_names_it_again_takes_a_miss_back(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    name = worker.take_one()
    settle(job)
    for named in ([], [name], [], [name]):
        worker.ping(*named)
    assert kinds(job) == ["created", "handed"]


def test_pings_that_name_no_attempt_of_the_worker_change_nothing(
    worker: WireWorker, other: WireWorker, acme: Client
) -> None:
    job = acme.submit()
    worker.take_one()
    odd = ["x", "", "%00", f"{public(job)}-a2", "00000000-0000-4000-8000-000000000000-e1", "-e1"]
    assert other.ping(public(job), *odd).status == 200
    assert attempt(job).confirmed_at is None


def test_a_ping_at_another_endpoint_confirms_nothing(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    worker.take_one()
    assert WireWorker(worker.url, new_place(), worker.name).ping(public(job)).status == 200
    assert attempt(job).confirmed_at is None


def test_a_ping_of_a_thousand_ids_is_read(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    name = worker.take_one()
    strangers = [f"{n:08x}-0000-4000-8000-000000000000-e1" for n in range(1000)]
    assert worker.ping(*strangers, name).status == 200
    assert attempt(job).confirmed_at is not None


def test_a_death_notice_loses_all_at_once_and_shows_in_health(
    worker: WireWorker, other: WireWorker, acme: Client, quick: str
) -> None:
    jobs = [acme.submit({"n": n}) for n in range(2)]
    worker.take_batch(2)
    answer = worker.ping(status="unhealthy", check="_memory_check", reason="1 GB < 4 GB", runpod_version="1.12.0")
    assert (answer.status, answer.json) == (200, {})
    assert [job["id"] for job in other.take_batch(2).json] == [f"{public(job)}-a2" for job in jobs]
    health = call("GET", f"{quick}/v2/{acme.place.name}/health", headers=acme.headers).json
    assert health["workers"]["unhealthy"] == 1
    assert Worker.objects.get(endpoint=worker.place.endpoint, name="w1").unhealthy == "_memory_check 1 GB < 4 GB"


def test_odd_words_in_a_ping_are_taken(worker: WireWorker) -> None:
    assert worker.ping(runpod_version="1\0" * 50).status == 200
    assert worker.ping(status="unhealthy", check="é\0", reason="\0" * 2000).status == 200
    assert worker.ping(status="healthy").status == 200


def test_a_worker_that_was_unhealthy_is_well_when_it_polls_again(worker: WireWorker, acme: Client) -> None:
    worker.ping(status="unhealthy", check="c", reason="r")
    job = acme.submit()
    worker.take_one()
    assert Worker.objects.get(endpoint=worker.place.endpoint).unhealthy == ""
    assert row(job).state == "IN_PROGRESS"


def test_a_cancelled_job_that_is_still_named_is_to_be_stopped(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    name = worker.take_one()
    acme.cancel(job)
    sql.run("UPDATE jobs_attempt SET stop_wanted = false, ended_at = ended_at - interval '3 s'")
    poll = worker.polls("stop")
    worker.ping(name)
    assert poll.result().json == {"jobsToStop": [name]}


def test_a_cancelled_job_that_is_no_longer_named_frees_its_slot(worker: WireWorker, other: WireWorker) -> None:
    client = new_client(worker.place, max_running=1)
    first, second = client.submit(), client.submit()
    worker.take_one()
    client.cancel(first)
    settle(first)
    poll = other.polls()
    worker.ping()
    worker.ping()
    assert poll.result().json["id"] == public(second)


def test_an_orphaned_ping_process_keeps_a_slot_no_longer_than_the_time_out(
    worker: WireWorker, other: WireWorker, up_for_long: None
) -> None:
    """kill -9 of a handler that blocks, which was never seen polling in a job: its pings are all that is left of it."""
    client = new_client(worker.place, max_running=1)
    first, second = client.submit(), client.submit()
    name = worker.take_one()
    age(first, 3600)
    assert time_out_overdue() >= 1
    age(first, 3600)
    worker.ping(name)
    lose_silent()
    assert other.take_one() == public(second)
