"""Where else an endpoint's jobs run: when, in what order, under whose limits, and as whose."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.db import connection, transaction

import jobs.queue
from accounts import sql
from accounts.errors import Refused
from accounts.models import Tenant
from jobs import budgets, following, granted, history, lifecycle, limits, news, overflow, sweep, waits
from jobs.depth import Holder
from jobs.ids import JobId
from jobs.loss import lose
from jobs.models import Attempt, Endpoint, Event, Grant, Overflow, Usage
from jobs.queue import Claimed, claim
from tests.cast import Client, Place, attempt_of, kinds, new_client, new_place, row
from tests.jobs.simulation import LAST, queue
from tests.overflows import die, live, swept

HOLDER = Holder(name="h")
MOVED = "moved"


@pytest.fixture(autouse=True)
def _swept(_database: None) -> Iterator[None]:
    with swept():
        yield


@dataclass
class Ways:
    """An endpoint of own GPUs that overflows to another; acme may address only the first."""

    own: Place
    other: Place
    acme: Client
    way: Overflow

    def is_set(self, **fields: Any) -> None:
        Overflow.objects.filter(pk=self.way.pk).update(**fields)


@pytest.fixture
def ways() -> Ways:
    """No worker has served the first; the other has two."""
    own, other = new_place("raw"), new_place("raw", price=Decimal("0.5"))
    made = Ways(own, other, new_client(own), Overflow.objects.create(endpoint=own.endpoint, to=other.endpoint))
    live(other, 2)
    return made


def taken(place: Place, n: int = 10) -> list[Claimed]:
    return claim(place.endpoint.pk, HOLDER, n).jobs


def waits_at(job: JobId) -> int:
    return row(job).grant.endpoint_id


def said(job: JobId) -> list[str]:
    return list(Event.objects.filter(job=job.uuid, kind=MOVED).order_by("id").values_list("text", flat=True))


def waited(job: JobId, seconds: float) -> None:
    """It was queued so long ago, and whatever happened to it since happened by then."""
    sql.run("UPDATE jobs_job SET queued_at = queued_at - %s * interval '1 s' WHERE id = %s", [seconds, job.uuid])
    sql.run("UPDATE jobs_event SET at = at - %s * interval '1 s' WHERE job_id = %s", [seconds, job.uuid])


def finish(place: Place, claimed: Claimed, ms: int = 1000) -> None:
    sql.run(LAST, [ms, claimed.job, claimed.number])
    assert news.done(place.endpoint.pk, HOLDER.name, attempt_of(claimed), news.Done(output=b'"done"'))


# when


def test_what_no_worker_takes_runs_elsewhere_and_its_timeline_says_why(ways: Ways) -> None:
    job = ways.acme.submit()
    assert overflow.overflow() == 1
    assert said(job) == [f"to {ways.other.name}: at {ways.own.name} no worker of it has polled for 30 s"]
    (claimed,) = taken(ways.other)
    finish(ways.other, claimed)
    assert history.status(ways.acme.key, ways.own.name, job).state == "COMPLETED"
    assert kinds(job) == ["created", MOVED, "handed", "completed"]


def test_nothing_moves_while_workers_poll(ways: Ways) -> None:
    live(ways.own)
    job = ways.acme.submit()
    assert overflow.overflow() == 0
    assert waits_at(job) == ways.own.endpoint.pk


def test_silence_says_nothing_while_nobody_could_hear_workers(ways: Ways) -> None:
    ways.acme.submit()
    sql.run("UPDATE jobs_webprocess SET up_since = clock_timestamp()")
    assert overflow.overflow() == 0


def test_a_job_that_waited_too_long_moves_though_workers_are_there(ways: Ways) -> None:
    live(ways.own)
    ways.is_set(wait_s=60)
    old, new = ways.acme.submit(), ways.acme.submit()
    waited(old, 61)
    assert overflow.overflow() == 1
    assert said(old) == [f"to {ways.other.name}: it waited at {ways.own.name} for 60 s"]
    assert waits_at(new) == ways.own.endpoint.pk


@pytest.mark.parametrize("limit", [{"gpu_s_a_month": 5}, {"cost_a_month": Decimal("2.50")}])
def test_an_endpoint_that_has_used_its_budget_hands_out_none(ways: Ways, limit: dict[str, Any]) -> None:
    live(ways.own)
    Endpoint.objects.filter(pk=ways.own.endpoint.pk).update(price=Decimal("0.5"), **limit)
    queue(ways.acme, 3)
    (first,) = taken(ways.own, 1)
    finish(ways.own, first, ms=5000)
    assert overflow.overflow() == 2
    assert len(taken(ways.other)) == 2
    job = ways.acme.submit()
    ways.is_set(over_budget=False)
    assert overflow.overflow() == 0
    assert taken(ways.own) == []
    assert told(job)["text"] == "The endpoint has used its budget of this month (UTC)."
    Endpoint.objects.filter(pk=ways.own.endpoint.pk).update(**dict.fromkeys(limit, 100))
    budgets.mark()
    assert len(taken(ways.own)) == 1


def test_a_new_month_is_a_new_budget(ways: Ways) -> None:
    Endpoint.objects.filter(pk=ways.own.endpoint.pk).update(gpu_s_a_month=0)
    ways.acme.submit()
    budgets.mark()
    assert taken(ways.own) == []
    sql.run("UPDATE jobs_endpoint SET spent_at = spent_at - interval '1 month' WHERE id = %s", [ways.own.endpoint.pk])
    assert len(taken(ways.own)) == 1


def test_what_runs_counts_towards_the_endpoints_budget(ways: Ways) -> None:
    Endpoint.objects.filter(pk=ways.own.endpoint.pk).update(gpu_s_a_month=10)
    queue(ways.acme, 2)
    (running,) = taken(ways.own, 1)
    sql.run(LAST, [11_000, running.job, running.number])
    budgets.mark()
    assert taken(ways.own) == []


def test_a_trigger_that_is_off_moves_nothing(ways: Ways) -> None:
    ways.is_set(unhealthy=False)
    ways.acme.submit()
    assert overflow.overflow() == 0


def test_a_paused_endpoints_jobs_stay(ways: Ways) -> None:
    Endpoint.objects.filter(pk=ways.own.endpoint.pk).update(mode="paused")
    ways.acme.submit()
    assert overflow.overflow() == 0


def test_a_share_of_all_jobs_begins_at_the_other_fleet(ways: Ways) -> None:
    live(ways.own)
    ways.is_set(share_percent=100)
    here = ways.acme.submit()
    overflow.overflow()
    there = ways.acme.submit()
    assert [waits_at(job) for job in (here, there)] == [ways.own.endpoint.pk, ways.other.endpoint.pk]
    assert Event.objects.get(job=there.uuid).text == f"shared with {ways.other.name}"
    ways.is_set(share_percent=0)
    overflow.overflow()
    assert waits_at(ways.acme.submit()) == ways.own.endpoint.pk


def test_of_many_jobs_about_the_share_goes_there(ways: Ways) -> None:
    """Of 100 jobs of which 30 shall, fewer than 5 or more than 60 do once in 10**9 times."""
    live(ways.own)
    ways.is_set(share_percent=30)
    live(ways.other, 60)
    overflow.overflow()
    there = Counter(waits_at(ways.acme.submit()) for _ in range(100))
    assert 5 <= there[ways.other.endpoint.pk] <= 60


def test_a_fleet_that_cannot_keep_up_or_is_gone_has_no_share(ways: Ways) -> None:
    live(ways.own)
    ways.is_set(share_percent=100)
    overflow.overflow()
    for _ in range(5):
        ways.acme.submit()
    overflow.overflow()
    assert waits_at(ways.acme.submit()) == ways.own.endpoint.pk
    taken(ways.other)
    die(ways.other)
    sql.run("UPDATE jobs_attempt SET released_at = ended_at WHERE endpoint_id = %s", [ways.other.endpoint.pk])
    overflow.overflow()
    assert waits_at(ways.acme.submit()) == ways.own.endpoint.pk


# how many, where, and back


def test_no_more_go_than_can_run_there_soon(ways: Ways) -> None:
    queue(ways.acme, 50)
    assert overflow.overflow() == 4
    assert overflow.overflow() == 0
    first, second = taken(ways.other, 2)
    assert overflow.overflow() == 0
    finish(ways.other, first)
    finish(ways.other, second)
    assert overflow.overflow() == 2


def test_the_first_of_several_that_can_take_it_gets_it(ways: Ways) -> None:
    third = new_place("raw", max_running=1)
    live(third)
    Overflow.objects.create(endpoint=ways.own.endpoint, to=third.endpoint, position=2)
    queue(ways.acme, 10)
    assert overflow.overflow() == 6
    there = Counter(
        Grant.all_tenants.filter(jobs__state="IN_QUEUE", tenant=ways.acme.tenant).values_list("endpoint", flat=True)
    )
    assert (there[ways.other.endpoint.pk], there[third.endpoint.pk], there[ways.own.endpoint.pk]) == (4, 2, 4)


@pytest.mark.parametrize("fault", [{"mode": "paused"}, {"mode": "draining"}, {"gpu_s_a_month": 0}])
def test_none_go_where_none_are_taken(ways: Ways, fault: dict[str, Any]) -> None:
    Endpoint.objects.filter(pk=ways.other.endpoint.pk).update(**fault)
    ways.acme.submit()
    assert overflow.overflow() == 0
    die(ways.other)
    Endpoint.objects.filter(pk=ways.other.endpoint.pk).update(mode="open", gpu_s_a_month=None)
    assert overflow.overflow() == 0


def test_only_raw_stands_for_raw(ways: Ways) -> None:
    Endpoint.objects.filter(pk=ways.other.endpoint.pk).update(dialect="hearth")
    ways.acme.submit()
    assert overflow.overflow() == 0


def test_files_of_hearths_are_fetched_by_workers_of_the_same_dialect_only() -> None:
    own, other = new_place("hearth"), new_place("worker-comfyui")
    Overflow.objects.create(endpoint=own.endpoint, to=other.endpoint)
    live(other)
    acme = new_client(own)
    plain, named = acme.submit(), acme.submit()
    sql.run("UPDATE jobs_payload SET inputs = '[]' WHERE job_id = %s", [named.uuid])
    assert overflow.overflow() == 1
    assert [waits_at(job) for job in (plain, named)] == [other.endpoint.pk, own.endpoint.pk]
    (claimed,) = taken(other)
    assert claimed.dialect == "worker-comfyui"


def test_what_waits_at_a_fleet_that_died_comes_back_to_one_that_lives(ways: Ways) -> None:
    job = ways.acme.submit()
    overflow.overflow()
    die(ways.other)
    assert overflow.overflow() == 0
    assert waits_at(job) == ways.other.endpoint.pk
    live(ways.own)
    assert overflow.overflow() == 1
    assert waits_at(job) == ways.own.endpoint.pk
    assert said(job)[1] == f"back to {ways.own.name}: at {ways.other.name} no worker of it has polled for 30 s"
    assert len(taken(ways.own)) == 1


def test_a_job_that_came_back_does_not_go_to_and_fro(ways: Ways) -> None:
    job = ways.acme.submit()
    for pause_s in (10, 20, 40):
        overflow.overflow()
        assert waits_at(job) == ways.other.endpoint.pk
        die(ways.other)
        live(ways.own)
        assert overflow.overflow() == 1
        live(ways.other, 2)
        die(ways.own)
        waited(job, pause_s * 0.3)
        assert overflow.overflow() == 0
        waited(job, pause_s * 0.7 + 1)


def test_it_goes_on_to_the_next_from_one_that_died(ways: Ways) -> None:
    third = new_place("raw")
    Overflow.objects.create(endpoint=ways.own.endpoint, to=third.endpoint, position=2)
    job = ways.acme.submit()
    overflow.overflow()
    die(ways.other)
    live(third)
    overflow.overflow()
    waited(job, 11)
    overflow.overflow()
    assert waits_at(job) == third.endpoint.pk


def test_a_way_that_is_taken_away_brings_its_jobs_back(ways: Ways) -> None:
    job = ways.acme.submit()
    overflow.overflow()
    ways.way.delete()
    assert overflow.overflow() == 1
    assert said(job)[1] == f"back to {ways.own.name}: {ways.own.name} does not overflow there any more"


# whose


def test_a_moved_job_is_its_clients_as_before_and_the_place_stays_closed_to_him(ways: Ways) -> None:
    job, globex = ways.acme.submit(), new_client(ways.other, "globex")
    overflow.overflow()
    with pytest.raises(Refused, match="There is no endpoint"):
        granted.own_grant(ways.acme.key, ways.other.name, "run")
    with pytest.raises(Refused, match="There is no endpoint"):
        limits.caller(ways.acme.key, ways.other.name, "run")
    with pytest.raises(Refused, match="There is no endpoint"):
        lifecycle.purge(ways.acme.key, ways.other.name)
    stranger = Client(ways.acme.tenant, ways.other, ways.acme.grant, ways.acme.api_key)
    with pytest.raises(Refused, match="There is no endpoint"):
        stranger.submit()
    for key, at in ((globex.key, ways.other.name), (globex.key, ways.own.name), (ways.acme.key, ways.other.name)):
        with pytest.raises(Refused) as refused:
            history.status(key, at, job)
        assert refused.value.status == 404
    assert lifecycle.purge(globex.key, ways.other.name) == 0
    assert history.health(ways.acme.key, ways.own.name)["jobs"]["inQueue"] == 1
    assert history.health(globex.key, ways.other.name)["jobs"]["inQueue"] == 0
    assert [one["id"] for one in history.requests(ways.acme.key, ways.own.name)["requests"]] == [row(job).public_id]
    assert lifecycle.purge(ways.acme.key, ways.own.name) == 1
    assert row(job).state == "CANCELLED"


def test_usage_and_price_are_of_where_it_ran(ways: Ways) -> None:
    queue(ways.acme, 2)
    overflow.overflow()
    first, second = taken(ways.other)
    finish(ways.other, first, ms=2000)
    ways.acme.cancel(JobId(second.job, second.sync))
    (used,) = Usage.objects.of(ways.acme.tenant)
    assert used.endpoint_id == ways.other.endpoint.pk
    assert (used.completed, used.cancelled, used.attempts) == (1, 1, 1)
    assert used.gpu_ms >= 2000
    assert used.cost == used.gpu_ms * Decimal("0.5") / 1000


def test_who_has_a_price_of_his_own_there_pays_that(ways: Ways) -> None:
    Grant.all_tenants.create(tenant=ways.acme.tenant, endpoint=ways.other.endpoint, price=Decimal("0.1"))
    ways.acme.submit()
    overflow.overflow()
    (claimed,) = taken(ways.other)
    finish(ways.other, claimed, ms=2000)
    (used,) = Usage.objects.of(ways.acme.tenant)
    assert used.cost == used.gpu_ms * Decimal("0.1") / 1000


def test_each_has_his_share_of_the_place_by_the_weight_of_his_grant(ways: Ways) -> None:
    globex = new_client(ways.own, "globex", weight=3.0)
    local = new_client(ways.other, "local")
    for client, n in ((ways.acme, 60), (globex, 60), (local, 60)):
        queue(client, n)
    ran: Counter[Any] = Counter()
    for _ in range(50):
        overflow.overflow()
        for claimed in taken(ways.other, 1):
            finish(ways.other, claimed, ms=600_000)  # beside which it is nothing how busy this machine is
            ran[row(claimed).tenant_id] += 1
    assert sum(ran.values()) == 50
    shares = [ran[client.tenant.pk] for client in (ways.acme, globex, local)]
    assert shares == pytest.approx([10, 30, 10], abs=3)


def test_a_grants_cap_is_for_all_its_places(ways: Ways) -> None:
    Grant.all_tenants.filter(pk=ways.acme.grant.pk).update(max_running=3)
    queue(ways.acme, 10)
    (here,) = taken(ways.own, 1)
    overflow.overflow()
    assert len(taken(ways.other)) == 2
    assert taken(ways.own) == []
    assert overflow.overflow() == 0
    finish(ways.own, here)
    overflow.overflow()
    assert len(taken(ways.other)) == 1


def test_a_new_cap_or_weight_holds_at_the_stand_in_too(ways: Ways) -> None:
    queue(ways.acme, 4)
    overflow.overflow()
    Grant.all_tenants.filter(pk=ways.acme.grant.pk).update(max_running=1, weight=2.0)
    overflow.overflow()
    stand_in = Grant.all_tenants.get(overflow_of=ways.acme.grant)
    assert (stand_in.max_running, stand_in.weight) == (1, 2.0)
    assert len(taken(ways.other)) == 1


def test_who_may_run_no_more_keeps_nobody_from_the_place(ways: Ways) -> None:
    Tenant.objects.filter(pk=ways.acme.tenant.pk).update(max_running=1)
    queue(ways.acme, 20)
    overflow.overflow()
    assert len(taken(ways.other)) == 1
    globex = new_client(ways.own, "globex")
    queue(globex, 5)
    overflow.overflow()
    assert {row(claimed).tenant_id for claimed in taken(ways.other)} == {globex.tenant.pk}


# cancel, retry, loss


def test_a_moved_job_is_cancelled_while_it_waits_and_while_it_runs(ways: Ways) -> None:
    waiting, running = ways.acme.submit(), ways.acme.submit()
    overflow.overflow()
    assert ways.acme.cancel(waiting) == "CANCELLED"
    worker = ways.other.worker()
    claimed = worker.take_one()
    assert claimed.job == running.uuid
    assert ways.acme.cancel(running) == "CANCELLED"
    assert worker.stops() == [attempt_of(claimed)]


def test_a_retry_begins_where_the_job_was_addressed(ways: Ways) -> None:
    job = ways.acme.submit()
    overflow.overflow()
    (claimed,) = taken(ways.other)
    assert news.done(ways.other.endpoint.pk, HOLDER.name, attempt_of(claimed), news.Done(error=b'"no"'))
    live(ways.own)
    assert ways.acme.retry(job) == "IN_QUEUE"
    assert waits_at(job) == ways.own.endpoint.pk
    (again,) = taken(ways.own)
    finish(ways.own, again)
    ran = list(Attempt.objects.filter(job=job.uuid).order_by("number").values_list("endpoint", flat=True))
    assert ran == [ways.other.endpoint.pk, ways.own.endpoint.pk]
    failed, completed = Usage.objects.of(ways.acme.tenant).order_by("id")
    assert (failed.endpoint_id, failed.failed, failed.completed) == (ways.other.endpoint.pk, 1, 0)
    assert (completed.endpoint_id, completed.failed, completed.completed) == (ways.own.endpoint.pk, 0, 1)


def test_an_attempt_that_was_lost_there_is_made_again_there(ways: Ways) -> None:
    job = ways.acme.submit()
    overflow.overflow()
    (claimed,) = taken(ways.other)
    assert lose(claimed.job, claimed.number, "its worker was lost")
    assert waits_at(job) == ways.other.endpoint.pk
    assert [again.number for again in taken(ways.other)] == [2]


def test_news_from_the_place_counts_and_of_the_address_does_not(ways: Ways) -> None:
    ways.acme.submit()
    overflow.overflow()
    (claimed,) = taken(ways.other)
    attempt = attempt_of(claimed)
    assert not news.done(ways.own.endpoint.pk, HOLDER.name, attempt, news.Done(output=b"1"))
    news.progress(ways.other.endpoint.pk, HOLDER.name, attempt, b'"half"', "half")
    assert bytes(row(claimed).payload.progress or b"") == b'"half"'
    assert news.done(ways.other.endpoint.pk, HOLDER.name, attempt, news.Done(output=b"1"))


def told(job: JobId) -> dict[str, Any]:
    waits._sights.clear()
    waits._lines.clear()
    found = waits.why(history.queued(row(job)))
    assert found
    return found


def test_why_it_waits_is_told_of_where_it_waits(ways: Ways) -> None:
    job = ways.acme.submit()
    assert told(job)["reason"] == "no_worker"
    overflow.overflow()
    assert told(job) | {"estimate_s": 0} == {
        "position": 1,
        "estimate_s": 0,
        "reason": "next",
        "text": "It was moved to other workers. A worker is about to take it.",
    }


def test_its_follower_hears_of_the_move_and_of_no_endpoint_that_is_not_his(ways: Ways) -> None:
    job = ways.acme.submit()
    overflow.overflow()
    heard = [orjson.loads(each.json) for each in following.read(job.uuid, following.Seen()).news]
    assert [each["event"] for each in heard if "event" in each] == ["created", MOVED]
    assert ways.other.name not in str(heard)


# races


def test_what_is_claimed_while_it_moves_runs_once(ways: Ways) -> None:
    """A claim that waits for nobody's lock passes a job that is just being moved."""
    job = ways.acme.submit()
    choose, sent = threading.Event(), threading.Event()

    def move() -> int:
        try:
            with transaction.atomic():
                moved = overflow.overflow()
                choose.set()
                assert sent.wait(30)
            return moved
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move)
        assert choose.wait(30)
        assert taken(ways.own) == []
        sent.set()
        assert moving.result(30) == 1
    assert taken(ways.own) == []
    assert [claimed.job for claimed in taken(ways.other)] == [job.uuid]


def test_a_first_move_waits_for_a_claim_that_has_counted_what_runs(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a grant has a stand-in, a claim locks nothing else to count what was addressed by it."""
    Grant.all_tenants.filter(pk=ways.acme.grant.pk).update(max_running=1)
    ways.is_set(wait_s=0)
    live(ways.own)
    queue(ways.acme, 10)
    there: list[Claimed] = []
    gone, counted, take = threading.Event(), threading.Event(), jobs.queue._take

    def move_and_claim() -> None:
        try:
            overflow.overflow()
            with transaction.atomic():
                there.extend(taken(ways.other))
                gone.set()
                assert counted.wait(30)
        finally:
            connection.close()

    mover = threading.Thread(target=move_and_claim)

    def late(*given: Any) -> Any:
        if mover.ident is None:
            mover.start()
            gone.wait(1)
        return take(*given)

    monkeypatch.setattr(jobs.queue, "_take", late)
    here = taken(ways.own)
    counted.set()
    mover.join(30)
    assert len(here) + len(there) == 1


def test_claims_at_both_places_and_moves_at_once_run_each_job_once_and_never_more_than_the_cap(ways: Ways) -> None:
    Grant.all_tenants.filter(pk=ways.acme.grant.pk).update(max_running=3)
    ways.is_set(wait_s=0)
    live(ways.own, 2)
    queue(ways.acme, 40)
    most: list[int] = []
    over = threading.Event()

    def mover() -> None:
        try:
            while not over.is_set():
                overflow.overflow()
        finally:
            connection.close()

    def worker(place: Place) -> int:
        done = 0
        try:
            while not over.is_set():
                for claimed in taken(place, 2):
                    most.append(sql.one(RUNNING, [ways.acme.tenant.pk])[0])
                    finish(place, claimed)
                    done += 1
                if sql.one(LEFT, [ways.acme.tenant.pk])[0] == 0:
                    over.set()
            return done
        finally:
            connection.close()

    timer = threading.Timer(60, over.set)
    timer.start()
    with ThreadPoolExecutor(5) as pool:
        moving = pool.submit(mover)
        counts = [pool.submit(worker, place) for place in (ways.own, ways.other, ways.own, ways.other)]
        done = [each.result() for each in counts]
        moving.result()
    timer.cancel()
    assert sum(done) == 40
    assert max(most) <= 3
    attempts = Attempt.objects.filter(job__tenant=ways.acme.tenant)
    assert Counter(attempts.values_list("outcome", flat=True)) == {"completed": 40}
    for attempt in attempts.select_related("grant", "job"):
        assert (attempt.grant.endpoint_id, attempt.job.grant_id) == (attempt.endpoint_id, attempt.grant_id)


RUNNING = """
SELECT count(*) FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id
 WHERE j.tenant_id = %s AND a.released_at IS NULL"""
LEFT = "SELECT count(*) FROM jobs_job WHERE tenant_id = %s AND finished_at IS NULL"


def test_the_sweeper_does_it(ways: Ways) -> None:
    assert overflow.overflow in sweep.STEPS
    job = ways.acme.submit()
    assert sweep.sweep((overflow.overflow,)) == {"overflow": 1}
    assert waits_at(job) == ways.other.endpoint.pk
