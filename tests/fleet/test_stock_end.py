"""How a stock worker ends: told to, it finishes what it holds; killed, its job goes on by what the sweeper sees."""

from collections.abc import Iterator

import pytest

from jobs.models import Event
from tests.cast import kinds, new_client, new_place, row
from tests.fleet.stock import StockWorker, pinged_lately
from tests.fleet.wire import WireWorker, public, status, until

LEASE_S = 5
pytestmark = [pytest.mark.xdist_group("stock worker"), pytest.mark.usefixtures("sweeper")]


@pytest.fixture(scope="module")
def ending(quick: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[StockWorker]]:
    """Workers on endpoints of their own, each for one test to end."""
    folder = tmp_path_factory.mktemp("ends")
    workers = [StockWorker(quick, new_place(), name, folder / name) for name in ("told", "killed", "raced")]
    yield [worker.wait_until_it_polls() for worker in workers]
    for worker in workers:
        worker.end()


def test_sigterm_lets_it_finish_and_it_takes_nothing_more(quick: str, ending: list[StockWorker]) -> None:
    worker, client = ending[0], new_client(ending[0].place)
    job = client.submit({"value": "whole", "seconds": 2})
    until(lambda: worker.has("began", job))
    worker.terminate()
    until(lambda: row(job).state == "COMPLETED")
    after = client.submit({})
    until(lambda: worker.code() is not None, 15)
    assert (worker.code(), kinds(job)) == (0, ["created", "handed", "completed"])
    assert status(quick, client, job)["output"] == "whole"
    assert WireWorker(quick, client.place, "next").take_one() == public(after)


def test_a_killed_worker_with_an_orphaned_ping_process_loses_its_job_by_its_silence(
    quick: str, ending: list[StockWorker]
) -> None:
    worker, client = ending[1], new_client(ending[1].place)
    job = client.submit({"seconds": 300})
    until(lambda: worker.row().stops_in_job, 15)
    worker.kill()
    until(lambda: "lost" in kinds(job), 15)
    assert Event.objects.get(job_id=job.uuid, kind="lost").text == f"its worker has not polled for {LEASE_S} s"
    assert pinged_lately(worker)
    assert WireWorker(quick, client.place, "next").take_one() == f"{public(job)}-a2"


def test_a_job_handed_to_a_worker_that_was_told_to_end_is_done_by_it_or_goes_to_the_next(
    quick: str, ending: list[StockWorker]
) -> None:
    """It ends when its held polls have. The job that one of them still brings it runs if it comes within the second."""
    worker, client = ending[2], new_client(ending[2].place)
    worker.terminate()
    job = client.submit({"value": 1})
    until(lambda: worker.code() is not None, 15)
    next_one = WireWorker(quick, client.place, "next")
    until(lambda: row(job).state == "COMPLETED" or public(job).encode() in next_one.take().body, 20)
    assert kinds(job).count("completed") + kinds(job).count("lost") <= 1
