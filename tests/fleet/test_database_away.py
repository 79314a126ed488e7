"""Rules 9, 18, 19: while the database is away polls are told to pause, results wait for it; nothing needs a restart."""

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection

from accounts import sql
from tests.cast import Client, Place, kinds, new_client
from tests.fleet.conftest import SDK_WAITS_S
from tests.fleet.wire import WireWorker, aside, call, public, run, status, until

Away = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture
def away(database: str) -> Away:
    """Ends all sessions of this process's database but this test's own, and lets nobody in until it is left."""
    name = str(connection.settings_dict["NAME"])

    @contextlib.contextmanager
    def gone() -> Iterator[None]:
        sql.first("SELECT 1")
        with psycopg.connect(database, dbname="postgres", autocommit=True) as session:
            session.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            try:
                own = connection.connection.info.backend_pid
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
                session.execute(ended, [name, own])
                yield
            finally:
                session.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    return gone


@pytest.fixture
def blink(away: Away) -> Callable[[], None]:
    """All sessions are ended, once."""

    def now() -> None:
        with away():
            pass

    return now


@pytest.fixture(autouse=True)
def _well_again(quick: str) -> Iterator[None]:
    yield
    until(lambda: call("GET", f"{quick}/healthz").status == 200)


def test_while_it_is_away_polls_are_told_to_pause(worker: WireWorker, acme: Client, away: Away) -> None:
    job = acme.submit()
    with away():
        answers = [aside(poll) for poll in (worker.take, worker.stop)] + [aside(worker.take_batch, 2)]
        for answer in [future.result() for future in answers]:
            assert (answer.status, answer.json["code"]) == (429, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.seconds < SDK_WAITS_S
    assert until(lambda: worker.take()).json["id"] == public(job)


def test_while_it_is_away_pings_and_clients_are_answered_503(worker: WireWorker, acme: Client, away: Away) -> None:
    with away():
        health = call("GET", f"{worker.url}/v2/{acme.place.name}/health", headers=acme.headers)
        assert [worker.ping().status, health.status] == [503, 503]
        assert int(health.headers["Retry-After"]) > 0


def test_a_result_waits_until_the_database_is_back(worker: WireWorker, acme: Client, away: Away) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    with away():
        begun = time.monotonic()
        answer = aside(worker.done, attempt, output="late but whole")
        until(lambda: worker.ping().status == 503 and time.monotonic() > begun + 1)
        assert not answer.done()
    assert (answer.result(10).status, answer.result().json) == (200, {})
    assert status(worker.url, acme, job)["output"] == "late but whole"
    assert kinds(job) == ["created", "handed", "completed"]


def test_progress_waits_too_and_harms_nothing(worker: WireWorker, acme: Client, away: Away) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    with away():
        answer = aside(worker.done, attempt, status="IN_PROGRESS", output="50%")
        until(lambda: worker.ping().status == 503)
    assert answer.result(10).status == 200
    assert status(worker.url, acme, job)["output"] == "50%"


def test_polls_that_wait_outlive_a_restart_of_the_database(
    quick: str, place: Place, acme: Client, blink: Callable[[], None]
) -> None:
    polls = [WireWorker(quick, place, f"w{n}").polls() for n in range(3)]
    blink()
    submitted = time.monotonic()
    job = acme.submit()
    answers = [poll.result() for poll in polls]
    given = [answer for answer in answers if answer.status == 200]
    if not given:  # the holds ended just before the process listened again
        given = [WireWorker(quick, place, "next").take()]
    assert [answer.json["id"] for answer in given] == [public(job)]
    assert given[0].at - submitted < SDK_WAITS_S
    assert {answer.status for answer in answers} <= {200, 204, 429}


def test_a_cancel_reaches_a_stop_poll_across_a_restart_of_the_database(
    worker: WireWorker, acme: Client, blink: Callable[[], None]
) -> None:
    job = acme.submit()
    worker.take_one()
    poll = worker.polls("stop")
    blink()
    acme.cancel(job)
    answer = poll.result()
    assert answer.status == 200 or until(lambda: worker.stop().status == 200)


def test_after_all_sessions_were_ended_each_request_fails_once_at_most(
    worker: WireWorker, acme: Client, blink: Callable[[], None]
) -> None:
    """Every thread of the web process held a session that is dead now."""
    assert {answer.result().status for answer in [aside(worker.ping) for _ in range(20)]} == {200}
    blink()
    first = [aside(worker.ping) for _ in range(20)]
    assert {answer.result().status for answer in first} <= {200, 503}
    assert [worker.ping().status for _ in range(20)] == [200] * 20
    assert run(worker.url, acme, {})


def test_no_job_is_lost_or_doubled_while_sessions_are_ended_at_random(
    quick: str, place: Place, blink: Callable[[], None]
) -> None:
    client = new_client(place)
    jobs = [client.submit({"n": n}) for n in range(12)]
    worker, statuses = WireWorker(quick, place), []
    for n, _ in enumerate(jobs * 2):
        if n % 4 == 1:
            blink()
        answer = worker.take()
        statuses.append(answer.status)
        if answer.status == 200:
            assert worker.done(answer.json["id"], output=n).status == 200
        if statuses.count(200) == len(jobs):
            break
    assert {tuple(kinds(job)) for job in jobs} == {("created", "handed", "completed")}
