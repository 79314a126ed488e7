"""Rules 13, 14, 18, 19: who waits is woken, also when NOTIFY, the database's connections or the process go away."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from django.db import connections

from jobs import live
from jobs.history import Snapshot
from jobs.ids import JobId
from jobs.queue import Claimed
from jobs.states import State
from jobs.wire import runpod
from tests.wire.api import Api, aside, check_refusal, finish, job_row, until

WAKE_S = 0.2
NOTHING = dict.fromkeys(("delay_ms", "execution_ms", "output", "error", "progress", "bucket_id"))
SNAPSHOT = Snapshot(uuid=UUID(int=0), id="", state=State.IN_QUEUE, dialect="raw", attempt=1, worker="", **NOTHING)
LISTEN = "application_name = 'hearth listen'"


@pytest.fixture
def operator(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of another database, which outlives all of this one's."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(psycopg.conninfo.make_conninfo(database, dbname="postgres"), autocommit=True) as session:
        session.execute("SELECT set_config('tests.database', %s, false)", [name])
        yield session


def terminate(operator: psycopg.Connection[Any], which: str = "true") -> int:
    """Ends the backends of this process's database; how many."""
    found = operator.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = current_setting('tests.database') AND {which}"
    ).fetchall()
    if which == "true":
        connections.close_all()  # this process's own are gone too
    return len(found)


def listening(operator: psycopg.Connection[Any]) -> set[int]:
    rows = operator.execute(
        "SELECT pid FROM pg_stat_activity"
        f" WHERE datname = current_setting('tests.database') AND {LISTEN} AND query LIKE 'LISTEN%%'"
    )
    return {row[0] for row in rows.fetchall()}


def timed(call: Any, *args: Any, **more: Any) -> tuple[httpx.Response, float]:
    answered = call(*args, **more)
    return answered, time.monotonic()


def runsync(api: Api, wait: int = 30_000) -> "Future[tuple[httpx.Response, float]]":
    return aside(timed, api.post, "runsync", {"input": 1}, wait=wait)


def by_the_wire(api: Api, claimed: Claimed) -> None:
    api.job_done(f"sync-{claimed.job}-e1", b'{"output": 1}')


def seconds_to_wake(api: Api, end: Callable[[Api, Claimed], None]) -> float:
    waiting = runsync(api)
    end(api, api.take())
    ended = time.monotonic()
    answered, woken = waiting.result(20)
    assert answered.json()["status"] == "COMPLETED"
    return woken - ended


@pytest.mark.parametrize("end", [by_the_wire, finish], ids=["by the same process", "by another process"])
def test_a_waiter_wakes_fast(acme: Api, end: Callable[[Api, Claimed], None]) -> None:
    assert statistics.median(seconds_to_wake(acme, end) for _ in range(5)) < WAKE_S


def test_a_waiter_wakes_only_for_its_own_job(acme: Api, globex: Api) -> None:
    waiting, other = runsync(acme), runsync(globex)
    first, second = acme.take(), acme.take()
    finish(acme, first)
    done = until(lambda: [future for future in (waiting, other) if future.done()])
    assert len(done) == 1
    finish(acme, second)
    answers = [future.result(20)[0].json() for future in (waiting, other)]
    assert {answered["id"] for answered in answers} == {f"sync-{job.job}-e1" for job in (first, second)}
    assert globex.get(f"status/{answers[0]['id']}").status_code == 404


def test_many_waiters_are_all_woken(acme: Api) -> None:
    waiting = [runsync(acme) for _ in range(20)]
    for _ in waiting:
        finish(acme, acme.take())
    answers = [future.result(20)[0].json() for future in waiting]
    assert [answered["status"] for answered in answers] == ["COMPLETED"] * 20


def test_news_between_the_read_and_the_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads before he registers would wait for the recheck, which is not there in this test."""
    reads = [replace(SNAPSHOT, state=state) for state in (State.IN_PROGRESS, State.COMPLETED)]

    async def nothing(*_: Any) -> list[Any]:
        return []

    async def main() -> Snapshot:
        hub, job = live.Hub(nothing, nothing), JobId(uuid4(), True)

        async def read_and_end(*_: Any) -> Snapshot:
            hub.wake(live.job_key(job.uuid))
            return reads.pop(0)

        monkeypatch.setattr(live.Hub, "current", hub)
        monkeypatch.setattr(runpod, "verb", read_and_end)
        return await runpod._ended(job, asyncio.get_running_loop().time() + 60)

    begun = time.monotonic()
    assert asyncio.run(main()).state == State.COMPLETED
    assert time.monotonic() - begun < 30


def test_a_lost_notification_costs_a_recheck_and_no_more(acme: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = runsync(acme)
    claimed = acme.take()
    with monkeypatch.context() as patched:
        patched.setattr(live, "_send", lambda keys: None)
        finish(acme, claimed)
    ended = time.monotonic()
    answered, woken = waiting.result(20)
    assert answered.json()["status"] == "COMPLETED"
    assert woken - ended < 4


def test_a_waiter_wakes_though_the_listening_connection_was_lost(acme: Api, operator: Any) -> None:
    until(lambda: listening(operator))
    waiting = runsync(acme)
    claimed = acme.take()
    before = listening(operator)
    assert terminate(operator, LISTEN) == len(before)  # more than one where another folder's web still runs
    finish(acme, claimed)
    ended = time.monotonic()
    answered, woken = waiting.result(20)
    assert answered.json()["status"] == "COMPLETED"
    assert woken - ended < 4
    until(lambda: len(listening(operator) - before) >= len(before))  # it listens again, on another connection
    assert statistics.median(seconds_to_wake(acme, finish) for _ in range(3)) < WAKE_S


def each_once_or_again(calls: list[Any]) -> list[int]:
    """The calls at once, each in a thread; what was answered 503 is asked a second time. The first answers' codes."""
    answers = [future.result(20) for future in [aside(call) for call in calls]]
    for answered, call in zip(answers, calls, strict=True):
        if answered.status_code == 503:
            check_refusal(answered, 503, "unavailable")
            assert int(answered.headers["Retry-After"]) >= 1
            assert call().status_code == 200
    return [answered.status_code for answered in answers]


def test_after_all_connections_were_lost_requests_succeed_or_get_one_503(acme: Api, operator: Any) -> None:
    calls = [lambda: acme.get("health"), lambda: acme.post("run", {"input": 1})] * 10
    assert set(each_once_or_again(calls)) == {200}, "every thread has its connection now"
    assert terminate(operator) > 5
    assert set(each_once_or_again(calls)) <= {200, 503}
    assert set(each_once_or_again(calls)) == {200}, "and none later"


def test_connections_lost_under_load_cost_one_503_each(acme: Api, operator: Any) -> None:
    """Statements are cut off in the middle here; what was not answered 200 may or may not have been stored."""
    calls = [lambda: acme.post("run", {"input": "a" * 200_000})] * 40
    answers = [aside(call) for call in calls]
    until(lambda: any(future.done() for future in answers))
    terminate(operator)
    assert {future.result(20).status_code for future in answers} <= {200, 503}
    ids = [future.result().json()["id"] for future in answers if future.result().status_code == 200]
    assert len({job_row(job).pk for job in ids}) == len(ids), "what was answered 200 is durable"
    assert set(each_once_or_again(calls[:20])) == {200}


def test_a_waiter_outlives_the_loss_of_all_connections(acme: Api, operator: Any) -> None:
    waiting = runsync(acme)
    claimed = acme.take()
    terminate(operator)
    finish(acme, claimed)
    assert waiting.result(20)[0].json()["status"] == "COMPLETED"


def test_sigterm_answers_waiters_at_once_and_connections_wait_for_the_next_process(web: Any, acme: Api) -> None:
    waiting = [runsync(acme), runsync(acme)]
    taken = acme.take()
    until(lambda: acme.get("health").json()["jobs"]["inQueue"] == 1)
    told = time.monotonic()
    try:
        os.kill(web.pid, signal.SIGTERM)
        answers = [future.result(20) for future in waiting]
        web.stop()
        late = aside(httpx.get, f"{web.url}/v2/{acme.endpoint}/health", headers={"Authorization": acme.authorization})
        assert not late.done()
    finally:
        web.start()
    assert max(woken for _, woken in answers) - told < 2
    assert sorted(answered.json()["status"] for answered, _ in answers) == ["IN_PROGRESS", "IN_QUEUE"]
    assert all(answered.status_code == 200 for answered, _ in answers)
    assert late.result(20).json()["jobs"] == {"completed": 0, "failed": 0, "inProgress": 1, "inQueue": 1, "retried": 0}
    finish(acme, taken)
