"""Usage: written where attempts are let go of and jobs end, never drifting from what happened."""

import csv
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from accounts import sql
from accounts.keys import given_key
from jobs import lifecycle, news, states, uploads
from jobs.depth import Holder
from jobs.loss import hand_back, lose, undo
from jobs.models import Endpoint, Grant, Usage
from jobs.news import Done
from jobs.queue import Claimed, claim
from jobs.report import report
from jobs.sweep import STEPS, sweep
from jobs.workers import release
from storage.models import Asset
from tests.cast import Client, Place, attempt_of, attempt_row, new_client, row
from tests.jobs.recount import check_usage
from tests.jobs.simulation import LAST, queue
from worker.wire import Upload

HOLDER = Holder(name="h")


def take(client: Client) -> Claimed:
    (claimed,) = claim(client.place.endpoint.pk, HOLDER, 1).jobs
    return claimed


LASTED = f"""
WITH a AS ({LAST} RETURNING job_id, number, started_at)
UPDATE jobs_event e SET at = a.started_at FROM a
 WHERE e.job_id = a.job_id AND e.attempt = a.number AND e.kind IN ('handed', 'started')"""


def lasted(claimed: Claimed, ms: int) -> None:
    sql.run(LASTED, [ms, claimed.job, claimed.number])


def done(client: Client, claimed: Claimed, ms: int = 0, **result: Any) -> None:
    lasted(claimed, ms)
    assert news.done(client.place.endpoint.pk, "h", attempt_of(claimed), Done(**(result or {"output": b"12345"})))


def used(client: Client) -> Usage:
    """Of today, by the only key."""
    return Usage.all_tenants.get(tenant=client.tenant, day=sql.one("SELECT (now() AT TIME ZONE 'UTC')::date")[0])


def test_a_completed_job_is_its_gpu_time_its_bytes_and_one_end(acme: Client) -> None:
    acme.submit({"n": 1})
    done(acme, take(acme), ms=2_500)
    found = used(acme)
    assert 2_500 <= found.gpu_ms < 2_600
    assert (found.completed, found.attempts, found.bytes_in, found.bytes_out) == (1, 1, len('{"n":1}'), 5)
    assert found.api_key_id is not None
    check_usage(acme.tenant)


def with_file(client: Client, size: int, **result: Any) -> int:
    """A job that our worker ends with a file of that size; bytes of the output itself."""
    claimed = client.place.worker().take_one()
    assert news.started(attempt_of(claimed))
    lasted(claimed, 1_000)
    file = Upload(name="a.png", bytes=size, sha256="0" * 64, content_type="image/png", node="1", kind="image")
    (slot,) = uploads.slots(attempt_of(claimed), [file]) or ()
    value = {"files": [slot.key], "datas": {}, "assets": [{"key": slot.key, "name": "a.png"}]}
    ended = Done(output=b"{}", output_value=value, absent=frozenset(), **result)
    assert news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), ended)
    return len(row(claimed).payload.output or b"")


def test_bytes_out_are_those_of_the_output_and_of_its_files(own_place: Place) -> None:
    client = new_client(own_place)
    for _ in range(2):
        client.submit()
    outputs = [with_file(client, size) for size in (70_000, 3)]
    assert used(client).bytes_out == 70_003 + sum(outputs)
    check_usage(client.tenant)


def test_a_failed_jobs_files_are_counted_once_however_often_it_ends(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    output = with_file(client, 70_000, error=b'"boom"', error_value="boom")
    client.retry(job)
    client.cancel(job)
    assert used(client).bytes_out == 70_000 + output
    assert Asset.all_tenants.filter(tenant=client.tenant).count() == 1
    check_usage(client.tenant, {job.uuid: output})


@pytest.mark.parametrize(("own", "price"), [(None, Decimal("0.5")), (Decimal("0.25"), Decimal("0.25"))])
def test_the_cost_is_by_the_grants_price_or_the_endpoints(acme: Client, own: Decimal | None, price: Decimal) -> None:
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(price=Decimal("0.5"))
    Grant.all_tenants.filter(pk=acme.grant.pk).update(price=own)
    acme.submit()
    claimed = take(acme)
    done(acme, claimed, ms=4_000)
    found = attempt_row(claimed)
    assert found.gpu_ms is not None
    assert used(acme).cost == found.cost == (price * found.gpu_ms / 1000).quantize(Decimal("0.000001"))


def priced(client: Client, price: str, ms: int) -> Decimal:
    """The cost of an attempt of so long at a new price."""
    Endpoint.objects.filter(pk=client.place.endpoint.pk).update(price=Decimal(price))
    client.submit()
    claimed = take(client)
    done(client, claimed, ms=ms)
    gpu_ms = attempt_row(claimed).gpu_ms
    assert gpu_ms
    return (gpu_ms * Decimal(price) / 1000).quantize(Decimal("0.000001"), ROUND_HALF_UP)


def test_a_new_price_in_mid_month_changes_nothing_that_is_written(acme: Client) -> None:
    """The month's report adds what either price made."""
    first = priced(acme, "0.5", 4_000)
    month = used(acme).day.replace(day=1)
    Usage.all_tenants.filter(tenant=acme.tenant).update(day=month)  # earlier, unless this is the first
    second = priced(acme, "0.000333", 7_000)
    assert Usage.all_tenants.filter(tenant=acme.tenant).earliest("day").cost in (first, first + second)
    (line,) = csv.DictReader(StringIO(report(month, [acme.tenant])))
    assert Decimal(line["cost"]) == first + second
    assert Decimal(line["gpu_seconds"]) >= 11


def test_costs_add_up_to_the_last_digit(acme: Client) -> None:
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(price=Decimal("0.000333"))
    queue(acme, 20)
    for n in range(20):
        done(acme, take(acme), ms=7 * n)
    check_usage(acme.tenant)


def test_a_job_cancelled_while_it_runs_is_billed_until_its_worker_lets_go(acme: Client) -> None:
    job = acme.submit()
    claimed = take(acme)
    acme.cancel(job)
    assert (used(acme).cancelled, used(acme).gpu_ms) == (1, 0)
    lasted(claimed, 3_000)
    release(claimed.job, claimed.number)
    assert used(acme).gpu_ms >= 3_000
    release(claimed.job, claimed.number)
    check_usage(acme.tenant)


def test_what_cannot_be_counted_has_not_ended(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are one transaction."""

    def broken(*_: Any) -> None:
        raise RuntimeError("no usage")

    acme.submit()
    claimed = take(acme)
    with monkeypatch.context() as patch:
        patch.setattr(states, "settle", broken)
        with pytest.raises(RuntimeError, match="no usage"):
            done(acme, claimed)
    assert row(claimed).state == "IN_PROGRESS"
    assert attempt_row(claimed).released_at is None
    done(acme, claimed)
    assert used(acme).completed == 1


@pytest.mark.parametrize("bill", [False, True])
@pytest.mark.parametrize("how", [lose, hand_back])
def test_a_lost_attempts_time_is_billed_if_the_operator_says_so(
    acme: Client, monkeypatch: pytest.MonkeyPatch, how: Any, bill: bool
) -> None:
    monkeypatch.setattr(settings, "BILL_LOST", bill)
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(price=1)
    acme.submit()
    claimed = take(acme)
    lasted(claimed, 5_000)
    how(claimed.job, claimed.number, "test")
    found = used(acme)
    assert (found.lost, found.attempts, found.completed) == (1, 1, 0)
    billed, free = (found.gpu_ms, found.unbilled_gpu_ms)[:: 1 if bill else -1]
    assert billed >= 5_000
    assert free == 0
    assert (found.cost > 0) is bill


def test_an_undone_hand_over_is_nothing(acme: Client) -> None:
    acme.submit()
    claimed = take(acme)
    undo(claimed.job, claimed.number)
    assert not Usage.all_tenants.filter(tenant=acme.tenant).exclude(attempts=0, gpu_ms=0).exists()


def test_a_retried_job_ends_twice_and_sent_its_input_once(acme: Client) -> None:
    job = acme.submit({"n": 1})
    done(acme, take(acme), ms=1_000, error=b'"boom"')
    acme.retry(job)
    done(acme, take(acme), ms=1_000)
    found = used(acme)
    assert (found.failed, found.completed, found.attempts, found.bytes_in) == (1, 1, 2, len('{"n":1}'))
    assert found.gpu_ms >= 2_000
    check_usage(acme.tenant)


def test_jobs_that_never_ran_are_counted_by_their_end(acme: Client) -> None:
    acme.cancel(acme.submit())
    acme.submit()
    sql.run("UPDATE jobs_job SET deadline_at = now() - interval '1 s' WHERE grant_id = %s", [acme.grant.pk])
    sweep(STEPS)
    found = used(acme)
    assert (found.cancelled, found.timed_out, found.attempts, found.gpu_ms) == (1, 1, 0, 0)
    check_usage(acme.tenant)


def test_purged_jobs_are_counted_for_the_key_that_sent_them(acme: Client) -> None:
    second = Client(acme.tenant, acme.place, acme.grant, acme.new_key())
    for client in (acme, second, second):
        client.submit()
    assert lifecycle.purge(acme.key, acme.place.name) == 3
    assert sorted(Usage.all_tenants.filter(tenant=acme.tenant).values_list("cancelled", flat=True)) == [1, 2]
    check_usage(acme.tenant)


def test_what_ended_on_another_day_stays_there(acme: Client) -> None:
    queue(acme, 2)
    done(acme, take(acme))
    Usage.all_tenants.filter(tenant=acme.tenant).update(day=date(2026, 1, 31))
    done(acme, take(acme))
    assert Usage.all_tenants.filter(tenant=acme.tenant).count() == 2


def test_a_time_that_was_not_started_costs_nothing(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    own_place.worker().take_one()
    client.cancel(job)
    sql.run("UPDATE jobs_attempt SET handed_at = handed_at - interval '1 hour' WHERE grant_id = %s", [client.grant.pk])
    own_place.worker().take(idle=True)
    assert (used(client).gpu_ms, used(client).attempts) == (0, 1)


def test_many_ends_at_once_neither_drift_nor_lock_each_other_out(acme: Client) -> None:
    """Twelve threads take, finish, cancel, lose and purge the jobs of one tenant."""
    keys = [acme.key, given_key(acme.new_key())]
    queue(acme, 120)
    start = threading.Barrier(12)

    def one(number: int) -> None:
        mine = Client(acme.tenant, acme.place, acme.grant, acme.api_key)
        mine.key = keys[number % 2]
        name = f"h{number}"
        try:
            start.wait()
            for n in range(10):
                job = mine.submit()
                for claimed in claim(acme.place.endpoint.pk, Holder(name=name), 2).jobs:
                    if n % 4 == 3:
                        lose(claimed.job, claimed.number, "test")
                    else:
                        news.done(acme.place.endpoint.pk, name, attempt_of(claimed), Done(output=b"1"))
                mine.cancel(job)
                if n == 9 and number < 3:
                    lifecycle.purge(mine.key, acme.place.name)
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(one, number) for number in range(12)]:
            future.result()
    check_usage(acme.tenant)
