"""Why a queued job waits: its place, an estimate, the reason."""

import time
from typing import Any

import pytest

from accounts import sql
from accounts.keys import given_key
from accounts.models import ApiKey, Tenant
from jobs import history, news, sight, waits
from jobs.depth import Holder
from jobs.ids import JobId
from jobs.loss import lose
from jobs.models import Endpoint, Grant, Job
from jobs.queue import claim
from tests.cast import Client, Place, attempt_of, new_client, new_place, row
from tests.jobs.simulation import LAST, queue

HOLDER = Holder(name="h")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "FRESH_S", 0.0)
    monkeypatch.setattr(waits, "RARELY", 0.0)


def told(job: JobId | Job) -> dict[str, Any]:
    found = waits.why(history.queued(row(job) if isinstance(job, JobId) else job))
    assert found
    return found


def reason(job: JobId) -> tuple[str, str]:
    found = told(job)
    return found["reason"], found["text"]


def test_with_no_worker_ever_it_says_so(acme: Client) -> None:
    found = told(acme.submit())
    assert found == {
        "position": 1,
        "estimate_s": None,
        "reason": "no_worker",
        "text": "No worker has served this endpoint yet.",
    }


def test_a_worker_that_went_is_remembered(acme: Client) -> None:
    acme.place.worker().take()
    job = acme.submit()
    sql.run("UPDATE jobs_worker SET take_at = now() - interval '90 s' WHERE endpoint_id = %s", [acme.place.endpoint.pk])
    why, text = reason(job)
    assert why == "no_worker"
    assert "was seen 9" in text


def test_a_worker_that_only_pings_is_starting(acme: Client) -> None:
    job = acme.submit()
    acme.place.worker().ping()
    assert reason(job) == ("worker_starting", "A worker has come but takes no jobs yet.")
    acme.place.worker("w2").ping()
    assert reason(job) == ("worker_starting", "2 workers have come but take no jobs yet.")


def test_an_idle_worker_takes_it_next(acme: Client) -> None:
    acme.place.worker().take()
    assert told(acme.submit()) | {"text": ""} == {"position": 1, "estimate_s": 0, "reason": "next", "text": ""}


def test_busy_workers_are_counted(acme: Client) -> None:
    workers = [acme.place.worker(name) for name in ("w1", "w2")]
    for worker in workers:
        acme.submit()
        worker.take()
    job = acme.submit()
    assert reason(job) == ("busy", "All 2 workers are busy.")


def test_a_lost_worker_is_the_reason(acme: Client) -> None:
    job = acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    lose(claimed.job, claimed.number, "test")
    assert reason(job) == ("retry", "A worker lost it or gave it back once; it is at its old place in the queue.")


@pytest.mark.parametrize("mode", ["paused", "closed"])
def test_a_paused_endpoint_tells_its_message(acme: Client, mode: str) -> None:
    acme.place.worker().take()
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(mode=mode, message="New disks until noon.")
    job = acme.submit()
    assert reason(job) == ("paused", "The endpoint is paused. New disks until noon.")
    assert told(job)["estimate_s"] is None


def capped(client: Client, owner: str, most: int = 1) -> None:
    rows: dict[str, Any] = {
        "grant": Grant.all_tenants.filter(pk=client.grant.pk),
        "tenant": Tenant.objects.filter(pk=client.tenant.pk),
        "key": ApiKey.all_tenants.filter(tenant=client.tenant),
        "endpoint": Endpoint.objects.filter(pk=client.place.endpoint.pk),
    }
    rows[owner].update(max_running=most)


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("grant", "You run 1 job at a time on this endpoint."),
        ("tenant", "Your account runs 1 job at a time."),
        ("key", "The API key runs 1 job at a time."),
        ("endpoint", "The endpoint runs 1 job at a time."),
    ],
)
def test_a_cap_is_named(acme: Client, owner: str, text: str) -> None:
    capped(acme, owner)
    acme.place.worker("w2").take()
    acme.submit()
    acme.place.worker("w1").take_one()
    assert reason(acme.submit()) == ("limit", text)


def test_a_used_up_month_has_no_estimate(acme: Client) -> None:
    acme.place.worker().take()
    Tenant.objects.filter(pk=acme.tenant.pk).update(gpu_s_a_month=0)
    found = told(acme.submit())
    assert (found["reason"], found["estimate_s"]) == ("limit", None)
    assert "0 GPU-seconds of this month" in found["text"]


def test_places_follow_priority_and_age(acme: Client) -> None:
    late, low, high = acme.submit(), acme.submit(policy={"priority": -1}), acme.submit(policy={"priority": 3})
    assert [told(job)["position"] for job in (high, late, low)] == [1, 2, 3]


def test_places_are_those_in_which_the_queue_serves(place: Place) -> None:
    """Three tenants of different weights and lengths: what was told before is how they are taken."""
    clients = [new_client(place, weight=weight) for weight in (1.0, 2.0, 0.5)]
    for client, job_ms in zip(clients, (1_000, 5_000, 2_000), strict=True):
        queue(client, 20)
        Grant.all_tenants.filter(pk=client.grant.pk).update(job_ms=job_ms)
    said = {job.pk: told(job)["position"] for job in Job.all_tenants.filter(endpoint=place.endpoint)}
    taken = [job.job for job in claim(place.endpoint.pk, HOLDER, 60).jobs]
    off = [abs(said[job] - place) for place, job in enumerate(taken, 1)]
    assert len(taken) == 60
    assert max(off) <= 2


def completed(client: Client, ms: int, **result: Any) -> None:
    """A job of the client's that took so long."""
    client.submit()
    claimed = client.place.worker().take_one()
    sql.run(LAST, [ms, claimed.job, claimed.number])
    assert news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), news.Done(**(result or {"output": b"1"})))


def waiting(client: Client) -> dict[str, Any]:
    """What is told of a job behind two of the client's, of which the only worker has one."""
    client.submit()
    client.place.worker().take_one()
    client.submit()
    return told(client.submit())


def test_before_any_job_was_completed_nobody_knows_how_long_it_takes(acme: Client, globex: Client) -> None:
    completed(globex, 60_000, error=b'"boom"')
    assert waiting(acme) == {
        "position": 2,
        "estimate_s": None,
        "reason": "busy",
        "text": "The only worker is busy.",
    }


def test_the_first_completed_job_says_how_long_they_take(acme: Client) -> None:
    completed(acme, 40_000)
    assert waiting(acme)["estimate_s"] in range(60, 63)
    grant = Grant.all_tenants.get(pk=acme.grant.pk)
    assert grant.job_ms is not None
    assert 40_000 <= grant.job_ms < 41_000


def test_who_has_completed_none_is_told_by_the_others_average(acme: Client, globex: Client) -> None:
    completed(globex, 40_000)
    Grant.all_tenants.create(tenant=new_client(new_place()).tenant, endpoint=acme.place.endpoint, job_ms=80_000)
    assert waiting(acme)["estimate_s"] in range(90, 93)
    assert Grant.all_tenants.get(pk=acme.grant.pk).job_ms is None


def test_a_tenant_at_its_limit_is_told_so_where_no_worker_is(acme: Client) -> None:
    """It runs its one job at another endpoint."""
    capped(acme, "tenant")
    elsewhere = new_place()
    grant = Grant.all_tenants.create(tenant=acme.tenant, endpoint=elsewhere.endpoint)
    Client(acme.tenant, elsewhere, grant, acme.api_key).submit()
    Grant.all_tenants.filter(pk=acme.grant.pk).update(job_ms=10_000)
    elsewhere.worker().take_one()
    found = told(acme.submit())
    assert (found["reason"], found["position"], found["estimate_s"]) == ("limit", 1, None)


def test_the_estimate_is_the_work_ahead_by_the_workers(acme: Client, globex: Client) -> None:
    for name in ("w1", "w2"):
        acme.place.worker(name).take()
    for client in (acme, globex):
        Grant.all_tenants.filter(pk=client.grant.pk).update(job_ms=10_000)
        queue(client, 20)
    found = told(acme.submit())
    assert found["position"] in (40, 41)
    assert found["estimate_s"] in range(190, 211)


@pytest.mark.parametrize("owner", ["grant", "tenant", "key", "endpoint"])
def test_the_estimate_of_who_is_at_a_limit_is_by_that(acme: Client, owner: str) -> None:
    """Workers that stand idle are no help: ten jobs of 10 s, one at a time."""
    workers = [acme.place.worker(f"w{n}") for n in range(5)]
    for worker in workers:
        worker.take()
    capped(acme, owner)
    Grant.all_tenants.filter(pk=acme.grant.pk).update(job_ms=10_000)
    acme.submit()
    workers[0].take_one()
    jobs = [acme.submit() for _ in range(10)]
    assert told(jobs[-1])["estimate_s"] in range(90, 101)


def test_the_estimate_of_a_limited_key_is_by_its_own_jobs(acme: Client) -> None:
    """The tenant's other keys have none."""
    acme.place.worker().take()
    Grant.all_tenants.filter(pk=acme.grant.pk).update(job_ms=10_000)
    for _ in range(3):
        acme.submit()
    acme.key = given_key(acme.new_key(max_running=1))
    for name in ("w2", "w3", "w4"):
        acme.place.worker(name).poll()
    assert [told(acme.submit())["estimate_s"] for _ in range(3)] == [0, 10, 20]


@pytest.mark.parametrize("owner", ["grant", "tenant", "key", "endpoint"])
def test_who_may_run_nothing_has_no_estimate(acme: Client, owner: str) -> None:
    acme.place.worker().take()
    capped(acme, owner, 0)
    found = told(acme.submit())
    assert (found["reason"], found["estimate_s"]) == ("limit", None)


def test_low_priority_waits_for_others_and_nobody_for_it(acme: Client, globex: Client) -> None:
    low = [globex.submit(policy={"lowPriority": True}) for _ in range(3)]
    normal = [acme.submit() for _ in range(3)]
    low.append(acme.submit(policy={"lowPriority": True}))
    said = {job.uuid: told(job)["position"] for job in (*normal, *low)}
    assert [said[job.uuid] for job in normal] == [1, 2, 3]
    taken = [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 7).jobs]
    assert taken[:3] == [job.uuid for job in normal]
    assert max(abs(said[job] - place) for place, job in enumerate(taken, 1)) <= 1


def test_nothing_of_another_tenant_is_told_but_numbers(acme: Client, globex: Client) -> None:
    queue(globex, 3)
    assert globex.tenant.name not in str(told(acme.submit()))


def test_a_place_in_a_long_queue_is_told_from_samples(acme: Client) -> None:
    queue(acme, 12_000)
    jobs = list(Job.all_tenants.filter(grant=acme.grant).order_by("id"))
    for at in (0, 5_000, 11_999):
        assert abs(told(jobs[at])["position"] - (at + 1)) <= 12


def test_what_cannot_be_told_is_left_out(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> sight.Sight:
        raise RuntimeError("no view")

    monkeypatch.setattr(waits, "see", broken)
    job = acme.submit()
    assert "queue" not in history.status(acme.key, acme.place.name, job).fields()


def test_one_look_serves_all_who_ask_within_a_second(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "FRESH_S", 60.0)
    looks: list[int] = []
    see = waits.see
    monkeypatch.setattr(waits, "see", lambda endpoint: looks.append(endpoint) or see(endpoint))
    jobs = [acme.submit() for _ in range(5)]
    begun = time.monotonic()
    for job in jobs:
        told(job)
    assert len(looks) <= 1 + (time.monotonic() - begun) // 60


def test_a_job_that_does_not_wait_has_no_such_field(acme: Client) -> None:
    job = acme.submit()
    assert "queue" in history.status(acme.key, acme.place.name, job).fields()
    claimed = acme.place.worker().take_one()
    assert "queue" not in history.status(acme.key, acme.place.name, job).fields()
    news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), news.Done(output=b"1"))
    assert "queue" not in history.status(acme.key, acme.place.name, job).fields()
