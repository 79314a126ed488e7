"""Claims at the same time: whom another claim has locked is passed, and loses nothing by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.conf import settings

from accounts import sql
from accounts.models import Tenant
from jobs import queue as fair_queue
from jobs.depth import Holder
from jobs.models import Grant, Job
from jobs.queue import MOST_SKIPPED, claim
from tests.cast import Client, Place, new_client, row
from tests.jobs.simulation import queue
from tests.wire.api import aside

HOLDER = Holder(name="h")


@contextmanager
def locked(table: str, id: Any) -> Iterator[None]:
    """As another claim has it for some milliseconds."""
    with psycopg.connect(settings.DATABASE_URL) as other:
        other.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR NO KEY UPDATE", [id])
        yield


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_queue, "LOCK_WAIT_S", 0.0)


def take(place: Place, n: int) -> list[int]:
    """The grants of the jobs that were taken."""
    return [row(claimed).grant_id for claimed in claim(place.endpoint.pk, HOLDER, n).jobs]


@pytest.mark.parametrize("table", ["jobs_grant", "accounts_tenant"])
def test_who_was_passed_because_of_a_lock_still_has_all_that_it_is_behind(place: Place, table: str) -> None:
    """The clock of one is far ahead, since its last job took longer than expected."""
    behind, ahead = new_client(place), new_client(place)
    for client in (behind, ahead):
        queue(client, 30)
    Grant.all_tenants.filter(endpoint=place.endpoint).update(job_ms=100_000)  # than which this test takes less
    Tenant.objects.filter(pk=behind.tenant.pk).update(max_running=1000)
    Grant.all_tenants.filter(pk=ahead.grant.pk).update(clock=6_000_000)
    with locked(table, behind.grant.pk if table == "jobs_grant" else behind.tenant.pk):
        assert take(place, 1) == [ahead.grant.pk]
    assert take(place, 20) == [behind.grant.pk] * 20


@pytest.mark.parametrize("table", ["jobs_grant", "accounts_tenant"])
def test_low_priority_waits_for_others_jobs_that_are_just_being_claimed(
    acme: Client, globex: Client, table: str
) -> None:
    Tenant.objects.filter(pk=globex.tenant.pk).update(max_running=1000)
    low, normal = acme.submit(policy={"lowPriority": True}), globex.submit()
    with locked(table, globex.grant.pk if table == "jobs_grant" else globex.tenant.pk):
        assert take(acme.place, 1) == []
    assert [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 2).jobs] == [normal.uuid, low.uuid]


def claims_after_the_look(monkeypatch: pytest.MonkeyPatch, place: Place, holder: Holder) -> list[Any]:
    """What this holder takes when the next claim has just looked for a warm job, and not locked it yet."""
    read, between = sql.first, list[Any]()

    def first(statement: str, params: Any = None) -> Any:
        found = read(statement, params)
        if statement == fair_queue.WARM and not between:
            between.append(None)
            between[:] = aside(claim, place.endpoint.pk, holder, 1).result().jobs
        return found

    monkeypatch.setattr(sql, "first", first)
    return between


def test_workers_that_look_at_once_pass_a_job_three_times_together(
    own_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one has seen that it may pass a job for the third time, another does."""
    cold, warm = new_client(own_place), new_client(own_place)
    queue(cold, 1, [22])
    queue(warm, 1, [11])
    queue(warm, 1, [33])
    workers = [Holder(name=name, worker_id=own_place.worker(name).poll().worker_id) for name in ("w1", "w2")]
    for worker, models in zip(workers, ([11], [33]), strict=True):
        sql.run("UPDATE jobs_worker SET model_hashes = %s::bigint[] WHERE id = %s", [models, worker.worker_id])
    Job.all_tenants.filter(grant=cold.grant).update(skipped=MOST_SKIPPED - 1)
    between = claims_after_the_look(monkeypatch, own_place, workers[1])
    mine = claim(own_place.endpoint.pk, workers[0], 1).jobs
    assert [row(job).model_hashes for job in [*between, *mine]] == [[33], [22]]


def test_a_warm_job_that_another_took_meanwhile_leaves_its_tenant_in_the_queue(
    own_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, warm = new_client(own_place), new_client(own_place)
    queue(cold, 1, [22])
    queue(warm, 2, [11])
    worker = Holder(name="w1", worker_id=own_place.worker("w1").poll().worker_id)
    sql.run("UPDATE jobs_worker SET model_hashes = '{11}' WHERE endpoint_id = %s", [own_place.endpoint.pk])
    between = claims_after_the_look(monkeypatch, own_place, HOLDER)
    mine = claim(own_place.endpoint.pk, worker, 2).jobs
    assert [row(job).model_hashes for job in between] == [[11]]
    assert sorted(row(job).model_hashes or [] for job in mine) == [[11], [22]]
