"""Rules 1 and 9: of what is said of one attempt at the same moment, one counts, whichever comes first."""

import contextlib
from collections.abc import Iterator

import psycopg

from accounts import sql
from jobs.ids import JobId
from jobs.models import Attempt
from tests.cast import Client, Place, kinds, new_client, row
from tests.fleet.hooks import Running, file
from tests.fleet.wire import WireWorker, aside, call, public, until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@contextlib.contextmanager
def held_up(database: str, job: JobId) -> Iterator[None]:
    """Whoever changes this job waits, in the order of coming, until it is left."""
    with psycopg.connect(database) as session:
        session.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR NO KEY UPDATE", [job.uuid])
        yield


def in_line(n: int) -> None:
    until(lambda: sql.one(WAITING)[0] == n)


def outcome(job: JobId) -> str:
    return Attempt.objects.get(job_id=job.uuid, number=1).outcome


def test_the_first_of_two_results_counts(worker: WireWorker, acme: Client, database: str) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    with held_up(database, job):
        first = aside(worker.done, attempt, output="first")
        in_line(1)
        second = aside(worker.done, attempt, error="second")
        in_line(2)
    assert [first.result().status, second.result().status] == [200, 200]
    assert (row(job).state, kinds(job)) == ("COMPLETED", ["created", "handed", "completed", "ignored"])


def test_the_first_of_two_results_with_files_counts(quick: str, own_place: Place, database: str) -> None:
    client = new_client(own_place)
    running = Running(client, client.submit(), WireWorker(quick, own_place))
    mine = running.stored(file())[0]
    output = {"files": [mine["key"]], "assets": [mine]}
    with held_up(database, running.job):
        asked = [aside(running.worker.done, running.attempt, output=output) for _ in range(2)]
        in_line(2)
    assert [answer.result().status for answer in asked] == [200, 200]
    assert kinds(running.job) == ["created", "handed", "completed", "ignored"]


def test_an_attempt_that_was_completed_is_not_lost_afterwards(worker: WireWorker, acme: Client, database: str) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    with held_up(database, job):
        result = aside(worker.done, attempt, output=1)
        in_line(1)
        death = aside(worker.ping, status="unhealthy", check="c", reason="r")
        in_line(2)
    assert [result.result().status, death.result().status] == [200, 200]
    assert (row(job).state, outcome(job), kinds(job)) == ("COMPLETED", "completed", ["created", "handed", "completed"])


def test_an_attempt_is_lost_once_by_whoever_notices_first(worker: WireWorker, acme: Client, database: str) -> None:
    job = acme.submit()
    worker.take_one()
    with held_up(database, job):
        asked = [aside(worker.ping, status="unhealthy", check="c", reason="r") for _ in range(3)]
        in_line(3)
    assert {answer.result().status for answer in asked} == {200}
    assert (row(job).losses, kinds(job)) == (1, ["created", "handed", "lost"])


def test_a_result_after_the_loss_changes_nothing(worker: WireWorker, acme: Client, database: str) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    with held_up(database, job):
        death = aside(worker.ping, status="unhealthy", check="c", reason="r")
        in_line(1)
        result = aside(worker.done, attempt, output=1)
        in_line(2)
    assert [result.result().status, death.result().status] == [200, 200]
    assert (row(job).state, outcome(job), kinds(job)[2:]) == ("IN_QUEUE", "lost", ["lost", "ignored"])


def test_a_result_and_then_a_cancel_end_the_job_once(
    worker: WireWorker, acme: Client, database: str, quick: str
) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    url = f"{quick}/v2/{acme.place.name}/cancel/{public(job)}"
    with held_up(database, job):
        result = aside(worker.done, attempt, output=1)
        in_line(1)
        cancel = aside(call, "POST", url, b"{}", acme.headers)
        in_line(2)
    assert (result.result().status, cancel.result().json) == (200, {"id": public(job), "status": "COMPLETED"})
    assert kinds(job) == ["created", "handed", "completed"]


def test_a_start_after_the_end_is_refused(quick: str, own_place: Place, database: str) -> None:
    client = new_client(own_place)
    running = Running(client, client.submit(), WireWorker(quick, own_place))
    with held_up(database, running.job):
        end = aside(running.worker.done, running.attempt, output={})
        in_line(1)
        start = aside(running.ask, "started")
        in_line(2)
    assert (end.result().status, start.result().status) == (200, 409)
    assert kinds(running.job) == ["created", "handed", "completed"]
