"""Caps and monthly limits at the hand-over: of the endpoint, the grant, the tenant, the key (rules 5, 23)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from accounts import sql
from accounts.keys import given_key
from accounts.models import ApiKey, Tenant
from jobs import live, news
from jobs.depth import Holder
from jobs.loss import lose
from jobs.models import Attempt, Endpoint, Grant
from jobs.queue import Claimed, claim
from jobs.workers import release
from tests.cast import Client, Place, attempt_of, new_client, new_place
from tests.jobs.simulation import LAST, queue

HOLDER = Holder(name="h")


def taken(place: Place, n: int = 10) -> int:
    return len(claim(place.endpoint.pk, HOLDER, n).jobs)


def at(place: Place, client: Client) -> Client:
    """The client's tenant with the same key at another endpoint."""
    grant = Grant.all_tenants.create(tenant=client.tenant, endpoint=place.endpoint)
    return Client(client.tenant, place, grant, client.api_key)


def finish(place: Place, attempts: int = 1, ms: int = 0) -> None:
    """Whatever was handed over first ends, after so long."""
    for attempt in Attempt.objects.filter(endpoint=place.endpoint, ended_at=None).order_by("id")[:attempts]:
        sql.run(LAST, [ms, attempt.job_id, attempt.number])
        found = news.AttemptId(attempt.job_id, attempt.number)
        assert news.done(place.endpoint.pk, HOLDER.name, found, news.Done(output=b"1"))


def test_an_endpoints_cap_is_for_all_its_tenants() -> None:
    place = new_place(max_running=3)
    for _ in range(2):
        queue(new_client(place), 5)
    assert taken(place) == 3
    assert taken(place) == 0
    finish(place, 2)
    assert taken(place) == 2


def test_a_tenants_cap_is_for_all_its_endpoints(place: Place) -> None:
    acme, elsewhere = new_client(place), new_place()
    there = at(elsewhere, acme)
    Tenant.objects.filter(pk=acme.tenant.pk).update(max_running=3)
    queue(acme, 5)
    queue(there, 5)
    assert taken(place, 2) == 2
    assert taken(elsewhere) == 1
    assert taken(place) == 0
    finish(place)
    assert taken(elsewhere) == 1


def test_a_capped_keys_jobs_let_the_tenants_others_pass(acme: Client) -> None:
    capped = given_key(acme.new_key(max_running=1))
    first = Client(acme.tenant, acme.place, acme.grant, acme.api_key)
    first.key = capped
    mine = [first.submit() for _ in range(3)]
    others = [acme.submit() for _ in range(3)]
    got = [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 10).jobs]
    assert got == [mine[0].uuid, *(job.uuid for job in others)]
    finish(acme.place)
    assert [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 10).jobs] == [mine[1].uuid]


def test_jobs_of_a_deleted_key_are_taken_too(acme: Client) -> None:
    acme.submit()
    ApiKey.all_tenants.filter(tenant=acme.tenant).delete()
    assert taken(acme.place) == 1


@pytest.mark.parametrize("owner", ["tenant", "key"])
def test_gpu_seconds_of_a_month_stop_the_next_job(acme: Client, owner: str) -> None:
    queue(acme, 10)
    limit(acme, owner, gpu_s_a_month=10)
    assert taken(acme.place, 1) == 1
    finish(acme.place, ms=6_000)
    assert taken(acme.place, 1) == 1
    finish(acme.place, ms=4_000)
    assert taken(acme.place, 1) == 0
    sql.run("UPDATE jobs_usage SET day = day - 40 WHERE tenant_id = %s", [acme.tenant.pk])
    assert taken(acme.place, 1) == 1


def test_what_runs_counts_towards_the_month_already(acme: Client) -> None:
    queue(acme, 10)
    limit(acme, "tenant", gpu_s_a_month=10)
    assert taken(acme.place, 1) == 1
    sql.run("UPDATE jobs_attempt SET started_at = started_at - interval '11 s' WHERE grant_id = %s", [acme.grant.pk])
    assert taken(acme.place, 1) == 0


def test_many_at_once_are_counted_as_what_such_a_job_takes(acme: Client) -> None:
    queue(acme, 20)
    limit(acme, "tenant", gpu_s_a_month=10)
    Grant.all_tenants.filter(pk=acme.grant.pk).update(job_ms=4_000)
    assert taken(acme.place, 20) == 3


@pytest.mark.parametrize("owner", ["tenant", "key"])
def test_money_of_a_month_stops_the_next_job(acme: Client, owner: str) -> None:
    queue(acme, 10)
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(price=Decimal("0.5"))
    limit(acme, owner, cost_a_month=Decimal("4.00"))
    assert taken(acme.place, 1) == 1
    finish(acme.place, ms=8_000)
    assert taken(acme.place, 1) == 0


def test_a_limit_of_one_tenant_stops_no_other(acme: Client, globex: Client) -> None:
    for client in (acme, globex):
        queue(client, 3)
    limit(acme, "tenant", gpu_s_a_month=0)
    assert taken(acme.place) == 3
    assert not Attempt.objects.filter(grant=acme.grant).exists()


@pytest.mark.parametrize(("mode", "handed"), [("open", 2), ("paused", 0), ("draining", 2), ("closed", 0)])
def test_a_paused_or_closed_endpoint_hands_out_nothing(acme: Client, mode: str, handed: int) -> None:
    queue(acme, 2)
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(mode=mode)
    assert taken(acme.place) == handed


def limit(client: Client, owner: str, **fields: Any) -> None:
    if owner == "tenant":
        Tenant.objects.filter(pk=client.tenant.pk).update(**fields)
    else:
        ApiKey.all_tenants.filter(tenant=client.tenant).update(**fields)


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is announced."""
    keys: list[str] = []
    monkeypatch.setattr(live, "_send", keys.extend)
    return keys


LET_GO: dict[str, Callable[[Client, Claimed], object]] = {
    "it is done": lambda client, held: news.done(
        client.place.endpoint.pk, "h", attempt_of(held), news.Done(output=b"1")
    ),
    "it is lost": lambda client, held: lose(held.job, held.number, "test"),
    "it was cancelled": lambda client, held: release(held.job, held.number),
}


@pytest.mark.parametrize("how", LET_GO)
@pytest.mark.parametrize("owner", ["tenant", "key"])
def test_a_slot_that_frees_wakes_who_waits_for_it_at_another_endpoint(
    acme: Client, woken: list[str], owner: str, how: str
) -> None:
    there, idle = (at(new_place(), acme) for _ in range(2))
    limit(acme, owner, max_running=1)
    job = acme.submit()
    (held,) = claim(acme.place.endpoint.pk, HOLDER, 1).jobs
    there.submit()
    assert taken(there.place) == 0
    if how == "it was cancelled":
        acme.cancel(job)
    woken.clear()
    LET_GO[how](acme, held)
    assert live.endpoint_key(there.place.endpoint.pk) in woken
    assert live.endpoint_key(idle.place.endpoint.pk) not in woken
    assert taken(there.place) == 1


def test_without_a_limit_nobody_waits_at_another_endpoint(acme: Client, globex: Client, woken: list[str]) -> None:
    elsewhere = [at(new_place(), client) for client in (acme, globex)]
    limit(globex, "tenant", max_running=1)
    for client in (acme, *elsewhere):
        client.submit()
    (held,) = claim(acme.place.endpoint.pk, HOLDER, 1).jobs
    woken.clear()
    LET_GO["it is done"](acme, held)
    assert [key for key in woken if key.startswith("e:")] == [live.endpoint_key(acme.place.endpoint.pk)]


@pytest.mark.parametrize("capped", ["endpoint", "tenant", "key"])
def test_eight_claimers_never_pass_a_cap_of_three(capped: str) -> None:
    """Of an endpoint with two tenants; of a tenant and its key at two endpoints."""
    acme = new_client(new_place(max_running=3 if capped == "endpoint" else None))
    if capped == "endpoint":
        clients = [acme, new_client(acme.place)]
    else:
        limit(acme, capped, max_running=3)
        clients = [acme, at(new_place(), acme)]
    for client in clients:
        queue(client, 60)
    most, done = run_claimers(clients, 120)
    assert max(most) <= 3
    assert len(set(done)) == len(done) == 120


def run_claimers(clients: list[Client], until: int) -> tuple[list[int], list[str]]:
    """Eight threads claim and finish jobs; the most seen running at any time, and all job ids."""
    lock, done, most = threading.Lock(), [], [0]
    grants = [client.grant for client in clients]

    def one(number: int) -> None:
        place, name = clients[number % 2].place, f"h{number}"
        try:
            while len(done) < until:
                for claimed in claim(place.endpoint.pk, Holder(name=name), 2).jobs:
                    running = Attempt.objects.filter(grant__in=grants, released_at=None).count()
                    news.done(place.endpoint.pk, name, attempt_of(claimed), news.Done(output=b"1"))
                    with lock:
                        most.append(running)
                        done.append(str(claimed.job))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(one, number) for number in range(8)]:
            future.result()
    return most, done
