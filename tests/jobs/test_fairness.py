"""The fair queue: shares of GPU time by weight, what a long queue of one does to another, and warm models."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts import sql
from jobs.depth import Holder
from jobs.models import Grant, Job
from jobs.queue import MOST_SKIPPED, claim
from jobs.states import State
from tests.cast import Client, Place, new_client, new_place
from tests.jobs.simulation import Fleet, queue

HOLDER = Holder(name="h")


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_gpu_time_is_shared_by_weight_however_long_the_jobs_are(place: Place, slots: int) -> None:
    clients = [new_client(place, weight=weight) for weight in (3.0, 1.0, 1.0)]
    lasts = dict(zip((client.grant.pk for client in clients), (2_000, 10_000, 1_000), strict=True))
    for client in clients:
        queue(client, 1500)
    fleet = Fleet(place, slots, lambda job: lasts[job.grant_id])
    fleet.run(300)
    assert fleet.shares(clients) == pytest.approx([0.6, 0.2, 0.2], abs=0.06)


def test_an_estimate_that_was_wrong_is_made_good(place: Place) -> None:
    """Jobs of one tenant whose lengths nobody can guess: 19 of 1 s, then one of 60 s."""
    steady, wild = new_client(place), new_client(place)
    for client in (steady, wild):
        queue(client, 1500)
    wild_ms = iter([60_000 if n % 20 == 19 else 1_000 for n in range(1500)])
    lengths: dict[object, int] = {}

    def lasts(job: Job) -> int:
        return lengths.setdefault(job.pk, next(wild_ms) if job.grant_id == wild.grant.pk else 4_000)

    fleet = Fleet(place, 2, lasts)
    fleet.run(400)
    assert fleet.shares([steady, wild]) == pytest.approx([0.5, 0.5], abs=0.06)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_queue_of_100_000_delays_a_single_job_by_what_workers_hold_and_no_more(place: Place, slots: int) -> None:
    flood, other = new_client(place, "flood"), new_client(place, "other")
    queue(flood, 100_000)
    sql.run("ANALYZE jobs_job")
    fleet = Fleet(place, slots, lambda job: 10_000)
    fleet.run(20)
    for _ in range(5):
        job = other.submit()
        before = len(fleet.taken)
        fleet.run(1)
        assert fleet.taken[before].pk == job.uuid
        fleet.run(slots + 1)  # it is paid for before the next comes


def test_who_was_idle_has_saved_nothing_up(place: Place) -> None:
    busy, idle = new_client(place), new_client(place)
    for client in (busy, idle):
        queue(client, 300)
    sql.run("UPDATE jobs_job SET state = 'CANCELLED', finished_at = now() WHERE grant_id = %s", [idle.grant.pk])
    fleet = Fleet(place, 1, lambda job: 1_000)
    fleet.run(100)
    queue(idle, 100)
    fleet.run(40)
    assert 18 <= sum(job.grant_id == idle.grant.pk for job in fleet.taken[100:]) <= 22


def test_jobs_of_low_priority_come_after_everybody_elses(acme: Client, globex: Client) -> None:
    low = [acme.submit(policy={"lowPriority": True}) for _ in range(2)]
    normal = [globex.submit() for _ in range(3)]
    taken = [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 5).jobs]
    assert taken == [job.uuid for job in (*normal, *low)]


def test_priority_counts_within_the_tenant_only(acme: Client, globex: Client) -> None:
    later, first = acme.submit(policy={"priority": -3}), acme.submit(policy={"priority": 10})
    queue(globex, 3)
    taken = [Job.all_tenants.get(pk=job.job) for job in claim(acme.place.endpoint.pk, HOLDER, 4).jobs]
    mine = [job.pk for job in taken if job.tenant_id == acme.tenant.pk]
    assert mine == [first.uuid]
    assert [job.tenant_id == acme.tenant.pk for job in taken[:2]].count(True) == 1
    assert [job.job for job in claim(acme.place.endpoint.pk, HOLDER, 4).jobs] == [later.uuid]


def test_a_hand_over_that_was_undone_costs_nothing(acme: Client) -> None:
    from jobs.loss import undo

    acme.submit()
    (claimed,) = claim(acme.place.endpoint.pk, HOLDER, 1).jobs
    assert Grant.all_tenants.get(pk=acme.grant.pk).clock > 0
    assert undo(claimed.job, claimed.number)
    assert Grant.all_tenants.get(pk=acme.grant.pk).clock == 0


LENGTHS = (5, 300, 9_000)
X, Y, Z = [11], [22], [33]


def test_a_worker_gets_the_job_whose_models_it_has_loaded(own_place: Place) -> None:
    client = new_client(own_place)
    for models in (X, Y, X):
        queue(client, 1, models)
    jobs = list(Job.all_tenants.filter(grant=client.grant).order_by("id").values_list("pk", flat=True))
    fleet = Fleet(own_place, 1, lambda job: 1_000)
    fleet.run(3)
    assert [job.pk for job in fleet.taken] == [jobs[0], jobs[2], jobs[1]]
    assert fleet.reloads == 2


def test_none_is_passed_by_warmer_jobs_more_than_three_times(own_place: Place) -> None:
    client = new_client(own_place)
    for models in (X, Y, X, X, X, X, X):
        queue(client, 1, models)
    fleet = Fleet(own_place, 1, lambda job: 1_000)
    fleet.run(7)
    assert [job.model_hashes for job in fleet.taken] == [X, X, X, X, Y, X, X]
    assert fleet.taken[4].skipped == MOST_SKIPPED


def test_a_warmer_job_of_lower_priority_waits(own_place: Place) -> None:
    client = new_client(own_place)
    queue(client, 1, X)
    fleet = Fleet(own_place, 1, lambda job: 1_000)
    fleet.run(1)
    queue(client, 1, X)
    queue(client, 1, Y)
    sql.run(
        "UPDATE jobs_job SET priority = 1 WHERE grant_id = %s AND model_hashes = %s::bigint[]", [client.grant.pk, Y]
    )
    fleet.run(2)
    assert [job.model_hashes for job in fleet.taken] == [X, Y, X]


def test_warm_models_spare_reloads_and_leave_the_shares_as_they_are(own_place: Place) -> None:
    clients = [new_client(own_place, weight=weight) for weight in (2.0, 1.0, 1.0)]
    for client, models in zip(clients, (X, Y, Z), strict=True):
        queue(client, 400, models)
    warm = Fleet(own_place, 3, lambda job: 1_000)
    warm.run(240)
    assert warm.shares(clients) == pytest.approx([0.5, 0.25, 0.25], abs=0.04)
    cold_place = new_place("hearth")
    cold_clients = [new_client(cold_place, weight=weight) for weight in (2.0, 1.0, 1.0)]
    for n, client in enumerate(cold_clients):  # each job another set: nothing is ever warm
        queue(client, 400)
        sql.run("UPDATE jobs_job SET model_hashes = NULL WHERE grant_id = %s", [client.grant.pk])
        _ = n
    cold = Fleet(cold_place, 3, lambda job: 1_000)
    cold.run(240)
    assert cold.shares(cold_clients) == pytest.approx(warm.shares(clients), abs=0.04)
    changes = reloads_of(cold, {client.grant.pk: n for n, client in enumerate(cold_clients)})
    assert warm.reloads < changes / 2


def reloads_of(fleet: Fleet, models: dict[int, int]) -> int:
    """How often a slot would have loaded another model, if each tenant had its own."""
    loaded: dict[str, int] = {}
    changes = 0
    for job in fleet.taken:
        if loaded.get(job.worker_name) != models[job.grant_id]:
            changes += 1
            loaded[job.worker_name] = models[job.grant_id]
    return changes


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 6))
def test_a_newcomer_is_next_whatever_happened_before(seed: int, slots: int, tenants: int) -> None:
    """Random tenants, weights, lengths and arrivals; now and then somebody new submits a single job."""
    dice = random.Random(seed)
    place = new_place()
    clients = [new_client(place, weight=dice.choice([0.5, 1.0, 4.0])) for _ in range(tenants)]
    for client in clients:
        queue(client, dice.randint(0, 6))
    fleet = Fleet(place, slots, lambda job: LENGTHS[job.pk.int % 3])
    for _ in range(4):
        fleet.run(dice.randint(1, 8))
        before = len(fleet.taken)
        as_new = sum(not grant.turn for grant in Grant.all_tenants.filter(endpoint=place.endpoint, clock=0))
        job = new_client(place).submit()
        fleet.run(as_new + 1)
        assert job.uuid in [taken.pk for taken in fleet.taken[before : before + as_new + 1]]
        queue(dice.choice(clients), dice.randint(0, 5))
    fleet.run(10_000)
    left = Job.all_tenants.filter(endpoint=place.endpoint).exclude(state=State.COMPLETED)
    assert not left.exists()
