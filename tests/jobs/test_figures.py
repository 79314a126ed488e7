"""Figures over time: what came of jobs is in one row of its tenant's and one of all, however far it is rolled up."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts import sql
from jobs import figures, news, sweep
from jobs.figures import BUCKETS, FRESH, HOUR, MINUTE, Sum, Window, bucket_of, course, most_gpu, quantile_ms
from jobs.ids import JobId
from jobs.models import Figures, Job
from jobs.news import Done
from jobs.states import State, end, lock
from tests.cast import Client, FakeWorker, attempt_of, new_client
from tests.jobs.recount import check_figures


def of(*clients: Client, window: Window = Window.HOUR) -> Sum:
    """What these tenants' figures say of the place where they are."""
    found = course(window, [client.tenant.pk for client in clients])
    return found.endpoints.get(clients[0].place.endpoint.pk, Sum())


def of_all(client: Client, window: Window = Window.HOUR) -> Sum:
    return course(window, None).endpoints.get(client.place.endpoint.pk, Sum())


def ended(client: Client, delay_ms: int = 0, ran_ms: int = 0, worker: FakeWorker | None = None, **done: Any) -> Job:
    """A job that waited and ran for so long."""
    job = client.submit({})
    claimed = (worker or client.place.worker()).take_one()
    sql.run(
        "UPDATE jobs_job SET delay_ms = %s, started_at = clock_timestamp() - %s * interval '1 ms' WHERE id = %s",
        [delay_ms, ran_ms, job.uuid],
    )
    sql.run(
        "UPDATE jobs_attempt SET started_at = clock_timestamp() - %s * interval '1 ms' WHERE job_id = %s",
        [ran_ms, job.uuid],
    )
    assert news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), Done(**(done or {"output": b"{}"})))
    return Job.all_tenants.get(pk=job.uuid)


def spans(client: Client) -> list[str]:
    return sorted(Figures.objects.filter(tenant=client.tenant).values_list("span", flat=True))


def age(client: Client, **by: int) -> None:
    """Moves the figures of the tenant's place into the past."""
    for row in Figures.objects.filter(endpoint=client.place.endpoint):
        Figures.objects.filter(pk=row.pk).update(at=row.at - timedelta(**by))


def test_a_jobs_end_is_counted_with_its_times(acme: Client) -> None:
    ended(acme, delay_ms=1_500, ran_ms=700)
    ended(acme, delay_ms=40, ran_ms=700, error=b'"boom"', error_value="boom")
    found = of(acme)
    assert (found.completed, found.failed, found.ended, found.failing) == (1, 1, 2, 0.5)
    assert [n for n, count in enumerate(found.delays) if count] == [bucket_of(40), bucket_of(1_500)]
    assert found.executions[bucket_of(750)] == sum(found.executions) == 2
    assert 1_400 <= found.gpu_ms < 60_000
    assert of_all(acme) == found
    check_figures(acme.tenant)


def test_each_end_of_a_job_counts(acme: Client) -> None:
    """Also of one that is retried, that never began, and of many in one statement."""
    job = ended(acme, error=b'"boom"', error_value="boom")
    acme.retry(JobId(job.pk, job.sync))
    acme.cancel(JobId(job.pk, job.sync))
    late = acme.submit({}, policy={"ttl": 10_000})
    Job.all_tenants.filter(pk=late.uuid).update(deadline_at=timezone.now() - timedelta(seconds=1))
    sweep.time_out_overdue()
    found = of(acme)
    assert (found.completed, found.failed, found.cancelled, found.timed_out) == (0, 1, 1, 1)
    assert (sum(found.delays), sum(found.executions)) == (3, 1)
    check_figures(acme.tenant)


def test_an_end_that_does_not_happen_is_not_counted(acme: Client) -> None:
    job = acme.submit({}).uuid
    with transaction.atomic():
        lock(job)
        assert end(job, State.CANCELLED, "")
        transaction.set_rollback(True)  # the process dies here
    assert of(acme) == Sum()


def test_nobody_sees_what_came_of_anothers_jobs(acme: Client) -> None:
    globex = new_client(acme.place, "globex")
    ended(acme)
    age(acme, minutes=2)
    figures.roll_up()
    assert of(globex) == Sum()
    assert course(Window.HOUR, []).endpoints == {}
    ended(globex)
    assert (of(acme).ended, of(globex).ended, of(acme, globex).ended, of_all(acme).ended) == (1, 1, 2, 2)


@pytest.mark.parametrize("window", Window)
def test_what_is_rolled_up_says_the_same(acme: Client, window: Window) -> None:
    ended(acme, delay_ms=1_500, ran_ms=700)
    ended(acme, delay_ms=90_000, ran_ms=3_000)
    before = of(acme, window=window)
    age(acme, minutes=1)
    for expected in ([FRESH], [MINUTE]):
        assert spans(acme) == expected
        assert of(acme, window=window) == of_all(acme, window) == before
        figures.roll_up()
    ended(acme)
    figures.roll_up()
    assert spans(acme) == [FRESH, MINUTE]
    assert of(acme, window=window).completed == of_all(acme, window).completed == 3


def test_minutes_become_hours_hours_days_and_days_go(acme: Client) -> None:
    ended(acme, delay_ms=1_500)
    ended(acme, error=b'"boom"', error_value="boom")
    month = of(acme, window=Window.MONTH)
    for passed, expected in (({"minutes": 2}, MINUTE), ({"hours": 3}, HOUR), ({"days": 3}, "day")):
        age(acme, **passed)
        figures.roll_up()
        assert spans(acme) == [expected]
        assert of(acme, window=Window.MONTH) == of_all(acme, Window.MONTH) == month
    assert of(acme) == Sum()
    row = Figures.objects.get(tenant=acme.tenant)
    assert (row.at.hour, row.at.minute) == (0, 0)
    age(acme, days=figures.KEEP_DAYS)
    figures.roll_up()
    assert not Figures.objects.filter(endpoint=acme.place.endpoint).exists()


def test_an_end_that_comes_late_to_a_minute_is_added_to_it(acme: Client) -> None:
    """Its transaction had begun before the minute was moved."""
    for _ in range(2):
        ended(acme)
        age_fresh(acme)
        figures.roll_up()
    assert (of(acme).completed, of_all(acme).completed) == (2, 2)


def age_fresh(client: Client) -> None:
    """To the same minute each time."""
    at = Figures.objects.filter(tenant=client.tenant, span=MINUTE).values_list("at", flat=True).first()
    at = at or timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=5)
    Figures.objects.filter(tenant=client.tenant, span=FRESH).update(at=at)


def test_more_than_a_batch_is_moved(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BATCH", 2)
    empty = {"endpoint": acme.place.endpoint, "span": FRESH, "delays": [0] * BUCKETS, "executions": [0] * BUCKETS}
    begin = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=20)
    for n in range(7):
        Figures.objects.create(tenant=acme.tenant, at=begin + timedelta(minutes=n), completed=n, **empty)
    figures.roll_up()
    assert spans(acme) == [MINUTE] * 7
    assert of(acme).completed == of_all(acme).completed == 21


def test_ends_while_they_are_rolled_up_are_all_counted(acme: Client) -> None:
    """Both go at the same rows, again and again."""
    over = threading.Event()

    def roll() -> None:
        while not over.is_set():
            sql.run(
                "UPDATE jobs_figures SET at = at - interval '5 minutes' WHERE span = 'fresh' AND tenant_id = %s"
                " AND NOT EXISTS (SELECT 1 FROM jobs_figures o WHERE o.tenant_id = %s AND o.span = 'fresh'"
                " AND o.at < clock_timestamp() - interval '4 minutes')",
                [acme.tenant.pk] * 2,
            )
            figures.roll_up()
        connection.close()

    def work(n: int) -> None:
        for _ in range(5):
            job = acme.submit({}).uuid
            with transaction.atomic():
                lock(job)
                assert end(job, State.CANCELLED, "", released=True)
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        rolling = pool.submit(roll)
        try:
            list(pool.map(work, range(3)))
        finally:
            over.set()
        rolling.result()
    assert of(acme).cancelled == 15
    check_figures(acme.tenant)


def test_how_many_are_queued_and_running_is_noted(acme: Client) -> None:
    globex = new_client(acme.place, "globex")
    for _ in range(3):
        acme.submit({})
    globex.submit({})
    assert len(acme.place.worker().take(2)) == 2
    figures.note_load()
    loads = {row.tenant_id: (row.queued, row.running) for row in Figures.objects.filter(endpoint=acme.place.endpoint)}
    assert loads[None] == (2, 2)
    assert sum(queued for queued, _ in (loads[acme.tenant.pk], loads[globex.tenant.pk])) == 2
    acme.cancel(acme.submit({}))
    figures.note_load()  # in the same minute, or the next: the most counts
    assert (max(loads[None]), spans(acme)[0]) == (2, FRESH)


def test_an_endpoint_with_nothing_to_do_is_noted_and_its_tenant_is_not(acme: Client) -> None:
    figures.note_load()
    (row,) = Figures.objects.filter(endpoint=acme.place.endpoint)
    assert (row.tenant_id, row.span, row.queued, row.running) == (None, MINUTE, 0, 0)


@pytest.mark.parametrize(
    ("window", "steps", "step"),
    [
        (Window.HOUR, 60, timedelta(minutes=1)),
        (Window.DAY, 24, timedelta(hours=1)),
        (Window.MONTH, 30, timedelta(days=1)),
    ],
)
def test_a_course_has_all_its_steps(acme: Client, window: Window, steps: int, step: timedelta) -> None:
    ended(acme)
    found = course(window, [acme.tenant.pk]).steps
    times = [at for at, _ in found]
    assert len(found) == steps
    assert {after - before for before, after in pairwise(times)} == {step}
    assert sum(each.ended for _, each in found if each) == 1
    assert sum(each is not None for _, each in found) == 1
    assert timezone.now() - times[-1] < 2 * step


def test_who_used_most_comes_first(acme: Client) -> None:
    globex = new_client(acme.place, "globex")
    ended(acme, ran_ms=10**9)
    ended(globex, ran_ms=2 * 10**9)
    found = [(name, ms // 10**9) for _, name, ms in most_gpu(Window.DAY, 2)]
    assert found == [(globex.tenant.name, 2), (acme.tenant.name, 1)]
    Figures.objects.filter(tenant__in=[acme.tenant, globex.tenant]).delete()  # they would be the first elsewhere


def test_quantiles_are_right_to_a_tenth() -> None:
    times = sorted(50 * math.exp(6 * n / 1000) for n in range(1000))
    counts = [0] * BUCKETS
    for ms in times:
        counts[bucket_of(ms)] += 1
    for q in (0.05, 0.5, 0.95):
        assert quantile_ms(counts, q) == pytest.approx(times[math.ceil(q * 1000) - 1], rel=0.1)
    assert quantile_ms([0] * BUCKETS, 0.5) is None


@pytest.mark.parametrize("ms", [0, 9, 10, 17, 18, 1000, 10**8, 10**12])
def test_a_bucket_is_the_same_in_the_database(ms: int) -> None:
    text = f"SELECT width_bucket(%s::bigint, {figures._BOUNDS})"
    assert sql.one(text, [ms])[0] == bucket_of(ms) < BUCKETS


def test_the_sweeper_does_both_every_minute() -> None:
    assert {figures.note_load, figures.roll_up} <= set(sweep.SLOW_STEPS)
