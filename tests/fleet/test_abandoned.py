"""A worker that vanishes in mid-job loses it to the next within 40 s, with all settings as by default (rules 1-3)."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.models import Attempt, Event
from tests.cast import Client, kinds, new_client, new_place, row
from tests.fleet.conftest import SDK_WAITS_S
from tests.fleet.stock import StockWorker, pinged_lately
from tests.fleet.wire import Answer, WireWorker, aside, public, status, until

GONE_S = 40
HANG = {"seconds": 300, "only": 1}
pytestmark = [pytest.mark.xdist_group("abandoned"), pytest.mark.usefixtures("sweeper")]

Start = Callable[..., StockWorker]


@pytest.fixture
def start(web: Any, tmp_path: Path) -> Iterator[Start]:
    """start(client, name, kind): a stock worker on the client's endpoint."""
    started: list[StockWorker] = []

    def one(client: Client, name: str, kind: str = "async") -> StockWorker:
        started.append(StockWorker(web.url, client.place, name, tmp_path / name, kind))
        return started[-1]

    yield one
    for worker in started:
        worker.end()


@pytest.fixture
def clients() -> dict[str, Client]:
    """Each on an endpoint of its own, so that it is known who gets which job."""
    return {name: new_client(new_place()) for name in ("killed", "blocked", "left")}


@pytest.fixture(scope="module")
def held(web: Any) -> list["Future[Answer]"]:
    """Polls that wait meanwhile, and find nothing."""
    workers = [WireWorker(web.url, new_place(), name) for name in ("one", "two")]
    return [aside(poll) for worker in workers for poll in (worker.take, worker.stop)]


def test_a_job_outlives_its_worker_whatever_ended_it(
    web: Any, start: Start, clients: dict[str, Client], held: object
) -> None:
    """killed: kill -9 as soon as the job runs. blocked: the same with a handler that blocks. left: os._exit in it.

    Their ping processes are left behind and go on naming the jobs. All at once, since it takes a lease.
    """
    workers = {name: start(client, name, "sync" if name == "blocked" else "async") for name, client in clients.items()}
    for worker in workers.values():
        worker.wait_until_it_polls()
    given = {"killed": HANG, "blocked": HANG, "left": {"do": "exit", "only": 1}}
    jobs = {name: client.submit(given[name]) for name, client in clients.items()}
    for name in ("killed", "blocked"):
        until(partial(workers[name].has, "began", jobs[name]))
        workers[name].kill()
    until(lambda: not workers["left"].alive())
    gone = time.time()
    second = start(clients["killed"], "second")

    until(lambda: row(jobs["killed"]).state == "COMPLETED", GONE_S)
    assert status(web.url, clients["killed"], jobs["killed"])["output"] == {"attempt": 2}
    assert row(jobs["killed"]).worker_name == second.name
    for name in ("blocked", "left"):
        next_one = WireWorker(web.url, clients[name].place, "next")
        assert next_one.take_one() == f"{public(jobs[name])}-a2"
        next_one.done(f"{public(jobs[name])}-a2", output=1)
    for name, job in jobs.items():
        assert kinds(job) == ["created", "handed", "lost", "handed", "completed"]
        assert Attempt.objects.get(job_id=job.uuid, number=2).handed_at.timestamp() - gone < GONE_S
        assert Event.objects.get(job_id=job.uuid, kind="lost").text == "its worker has not polled for 25 s"
        assert pinged_lately(workers[name]), "an orphaned ping process was to go on all the while"


def test_a_poll_is_held_for_about_ten_seconds(held: list["Future[Answer]"]) -> None:
    for answer in [poll.result() for poll in held]:
        assert (answer.status, answer.body) == (204, b"")
        assert 7.9 < answer.seconds < SDK_WAITS_S
