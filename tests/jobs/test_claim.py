"""Rules 4 and 5: the fair way out of the queue, caps that hold, and a worker's depth."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import news, queue, workers
from jobs.depth import Holder
from jobs.models import Attempt, Job
from jobs.queue import Claimed, claim
from tests.cast import Client, Place, attempt_of, attempt_row, kinds, new_client, new_place, row
from tests.jobs import simulation

HOLDER = Holder(name="h")


def test_the_oldest_job_leaves_first(acme: Client) -> None:
    jobs = [acme.submit({"n": n}) for n in range(3)]
    taken = [claim(acme.place.endpoint.pk, HOLDER, 1).jobs[0].job for _ in range(3)]
    assert taken == [job.uuid for job in jobs]


def test_low_priority_waits_for_the_tenants_other_jobs(acme: Client) -> None:
    low = acme.submit({"n": 1}, policy={"lowPriority": True})
    normal = acme.submit({"n": 2})
    assert [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 2).jobs] == [normal.uuid, low.uuid]


def test_the_grant_with_the_least_running_comes_first(acme: Client, globex: Client) -> None:
    for n in range(10):
        acme.submit({"n": n})
    late = globex.submit({"n": 0})
    first, second = claim(acme.place.endpoint.pk, HOLDER, 2).jobs
    assert row(first).tenant == acme.tenant
    assert second.job == late.uuid


def test_weights_share_the_workers(place: Place) -> None:
    heavy, light = new_client(place, weight=3.0), new_client(place, weight=1.0)
    for client in (heavy, light):
        for n in range(20):
            client.submit({"n": n})
    taken = claim(place.endpoint.pk, HOLDER, 12).jobs
    assert sum(row(job).tenant == heavy.tenant for job in taken) == 9


def test_a_job_of_another_endpoint_is_not_taken(acme: Client) -> None:
    acme.submit()
    assert claim(new_place().endpoint.pk, HOLDER, 1).jobs == []


def test_a_hand_over_is_an_attempt_in_progress_with_its_event(acme: Client) -> None:
    job = acme.submit()
    (claimed,) = claim(acme.place.endpoint.pk, Holder(name="gpu"), 1).jobs
    found, attempt = row(job), attempt_row(claimed)
    assert (found.state, found.attempt, found.worker_name) == ("IN_PROGRESS", 1, "gpu")
    assert attempt.started_at == found.started_at == attempt.handed_at
    assert found.delay_ms is not None
    assert kinds(job) == ["created", "handed"]


def run_claimers(endpoint_id: int, n: int, until: int) -> tuple[list[int], list[str]]:
    """n threads claim and finish jobs until `until` are done; the most seen running at any time, and all job ids."""
    lock, done, most = threading.Lock(), [], [0]

    def one(number: int) -> None:
        try:
            while len(done) < until:
                jobs = claim(endpoint_id, Holder(name=f"h{number}"), 2).jobs
                for claimed in jobs:
                    running = Attempt.objects.filter(endpoint_id=endpoint_id, released_at=None).count()
                    news.done(endpoint_id, f"h{number}", attempt_of(claimed), news.Done(output=b"1", output_value=1))
                    with lock:
                        most.append(running)
                        done.append(str(claimed.job))
                if not jobs:
                    time.sleep(0.05)
        finally:
            connection.close()

    with ThreadPoolExecutor(n) as pool:
        for future in [pool.submit(one, number) for number in range(n)]:
            future.result()
    return most, done


def test_sixteen_claimers_never_pass_a_cap_of_three(place: Place) -> None:
    client = new_client(place, max_running=3)
    simulation.queue(client, 1000)
    most, done = run_claimers(place.endpoint.pk, 16, 1000)
    assert max(most) <= 3
    assert len(done) == len(set(done)) == 1000
    assert not Job.all_tenants.filter(grant=client.grant).exclude(state="COMPLETED").exists()


def test_a_locked_grant_is_waited_for_rather_than_answered_empty(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 claimers and 16 jobs of one grant: everybody gets one, however slow this machine is."""
    monkeypatch.setattr(queue, "LOCK_WAIT_S", 60.0)
    for n in range(16):
        acme.submit({"n": n})
    start = threading.Barrier(16)

    def one(number: int) -> int:
        try:
            start.wait()
            return len(claim(acme.place.endpoint.pk, Holder(name=f"h{number}"), 1).jobs)
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(16))) == [1] * 16


def test_our_worker_is_handed_one_job_ahead_and_no_more(own_place: Place) -> None:
    client = new_client(own_place)
    for _ in range(4):
        client.submit()
    worker = own_place.worker()
    first = worker.take_one()
    assert worker.take() == []
    assert news.started(attempt_of(first))
    assert len(worker.take(n=16)) == 1
    assert worker.take(n=16) == []


def test_a_worker_that_is_idle_since_files_are_slow_to_come_is_handed_others_up_to_four(own_place: Place) -> None:
    client = new_client(own_place)
    for _ in range(8):
        client.submit()
    worker = own_place.worker()
    held = [worker.take_one()]
    while len(held) < 4:
        assert worker.take(n=16) == []
        later(held)
        held += worker.take(n=16)
        assert len(held) <= 4
    later(held)
    assert worker.take(n=16) == []


def test_a_busy_worker_is_handed_no_more_however_long_it_holds_the_next(own_place: Place) -> None:
    client = new_client(own_place)
    for _ in range(4):
        client.submit()
    worker = own_place.worker()
    first = worker.take_one()
    assert news.started(attempt_of(first))
    later([first, worker.take_one()])
    assert worker.take(n=16) == []


def later(held: list[Claimed]) -> None:
    for claimed in held:
        attempt = attempt_row(claimed)
        Attempt.objects.filter(pk=attempt.pk).update(handed_at=attempt.handed_at - timedelta(seconds=6))


def test_with_no_job_ahead_our_worker_is_handed_the_next_when_it_has_let_go_of_the_last() -> None:
    own_place = new_place("hearth", prefetch=0)
    client = new_client(own_place)
    for _ in range(4):
        client.submit()
    worker = own_place.worker()
    (first,) = worker.take(n=16)
    assert news.started(attempt_of(first))
    assert worker.take(n=16) == []
    assert news.done(own_place.endpoint.pk, worker.name, attempt_of(first), news.Done(output=b"{}"))
    assert len(worker.take(n=16)) == 1


def test_a_stock_worker_keeps_its_own_count(acme: Client) -> None:
    for n in range(5):
        acme.submit({"n": n})
    assert len(acme.place.worker().take(n=4)) == 4


@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize("full", [False, True])
def test_an_idle_poll_is_two_statements_of_which_none_locks(full: bool, prefetch: int) -> None:
    place = new_place("hearth", prefetch=prefetch)
    client, worker = new_client(place), place.worker()
    if full:
        client.submit()
        worker.take_one()
        client.submit()
    else:
        worker.poll()  # so that its key is marked as used
    with CaptureQueriesContext(connection) as asked:
        _, taken = workers.poll(place.key, place.name, worker.name, 1, idle=True)
    assert (taken.jobs, taken.full) == ([], full)
    told = [query["sql"] for query in asked.captured_queries]
    assert len(told) == 2 + full  # what it holds: whether it has lost that
    assert not any("FOR NO KEY UPDATE" in text or "BEGIN" in text for text in told)
