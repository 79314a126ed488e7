"""Any order of what clients, the workers of two fleets, the sweeper and the operator do: a job is in one queue, runs at
one place, under one cap, and ends."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts import sql
from jobs import history, lifecycle, news
from jobs.depth import Holder
from jobs.ids import JobId
from jobs.loss import lose
from jobs.models import Attempt, Event, Job, Overflow
from jobs.overflow import READY, overflow
from jobs.queue import Claimed, claim
from jobs.states import FINAL
from tests.cast import attempt_of, new_client, new_place, row
from tests.overflows import die, live, swept

T = TypeVar("T")
PICKS = st.integers(0, 999)
WORKERS = 2
HOLDER = Holder(name="h")
QUEUED_BY = {"created", "retried", "lost", "moved"}
HELD = """
SELECT count(*) FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id
 WHERE j.tenant_id = %s AND a.released_at IS NULL"""


def picked(several: Sequence[T], pick: int) -> T:
    return several[pick % len(several)]


class TwoFleets(RuleBasedStateMachine):
    @initialize(cap=st.sampled_from([None, 1, 3]))
    def begin(self, cap: int | None) -> None:
        self.own, self.other = new_place(), new_place()
        self.cap, self.client = cap, new_client(self.own, max_running=cap)
        self.places = {place.endpoint.pk: place for place in (self.own, self.other)}
        self.jobs: list[JobId] = [self.client.submit()]
        self.handed: list[Claimed] = []
        self.way = Overflow.objects.create(endpoint=self.own.endpoint, to=self.other.endpoint, wait_s=0)
        self.has_workers(at_other=False, there=True)
        self.has_workers(at_other=True, there=True)

    @rule(n=st.integers(1, 3))
    def submit(self, n: int) -> None:
        self.jobs += [self.client.submit() for _ in range(n)]

    @rule(pick=PICKS, verb=st.sampled_from(["cancel", "retry"]))
    def ask(self, pick: int, verb: str) -> None:
        job = picked(self.jobs, pick)
        if verb == "cancel":
            self.client.cancel(job)
        elif row(job).state == "FAILED":
            self.client.retry(job)
            assert row(job).grant == self.client.grant

    @rule()
    def purge(self) -> None:
        lifecycle.purge(self.client.key, self.own.name)
        assert not Job.all_tenants.filter(tenant=self.client.tenant, state="IN_QUEUE").exists()

    @rule()
    def sweep(self) -> None:
        before = self.waiting_there()
        overflow()
        assert self.waiting_there() <= max(before, READY * WORKERS)

    def waiting_there(self) -> int:
        return Job.all_tenants.filter(grant__overflow_of=self.client.grant, state="IN_QUEUE").count()

    @rule(at_other=st.booleans(), n=st.integers(1, 3))
    def take(self, at_other: bool, n: int) -> None:
        place = self.other if at_other else self.own
        for claimed in claim(place.endpoint.pk, HOLDER, n).jobs:
            self.handed.append(claimed)
            assert row(claimed).grant.endpoint == place.endpoint

    @precondition(lambda self: self.handed)
    @rule(pick=PICKS, how=st.sampled_from(["done", "done", "failed", "lost"]))
    def ends(self, pick: int, how: str) -> None:
        claimed = picked(self.handed, pick)
        attempt = Attempt.objects.get(job=claimed.job, number=claimed.number)
        if how == "lost":
            assert lose(claimed.job, claimed.number, "test") == (attempt.ended_at is None)
        else:
            self.reports(attempt, error=b'"no"' if how == "failed" else None)

    def reports(self, attempt: Attempt, error: bytes | None = None) -> None:
        """Of the two endpoints only that of the attempt may."""
        of = news.AttemptId(attempt.job_id, attempt.number)
        wrong = next(pk for pk in self.places if pk != attempt.endpoint_id)
        assert not news.done(wrong, HOLDER.name, of, news.Done(output=b"1"))
        counts = news.done(attempt.endpoint_id, HOLDER.name, of, news.Done(output=b"1", error=error))
        assert counts == (attempt.ended_at is None)

    @rule(at_other=st.booleans(), there=st.booleans())
    def has_workers(self, at_other: bool, there: bool) -> None:
        place = self.other if at_other else self.own
        if there:
            live(place, WORKERS)
        else:
            die(place)

    @rule(wait_s=st.sampled_from([None, 0]), share=st.sampled_from([0, 50]), gone=st.sampled_from([False, False, True]))
    def operator(self, wait_s: int | None, share: int, gone: bool) -> None:
        Overflow.objects.filter(endpoint=self.own.endpoint).delete()
        if not gone:
            given: dict[str, Any] = {"wait_s": wait_s, "share_percent": share}
            Overflow.objects.create(endpoint=self.own.endpoint, to=self.other.endpoint, **given)

    @rule()
    def time_passes(self) -> None:
        """Whatever came back may go again."""
        of = {"tenant": self.client.tenant.pk}
        back = "at - interval '1 hour' FROM jobs_job j WHERE j.id = e.job_id AND j.tenant_id = %(tenant)s"
        sql.run(f"UPDATE jobs_event e SET at = e.{back}", of)

    @invariant()
    def each_job_is_at_one_place(self) -> None:
        if not hasattr(self, "way"):
            return
        for job in Job.all_tenants.filter(tenant=self.client.tenant).select_related("grant"):
            assert job.endpoint_id == self.own.endpoint.pk
            assert job.grant_id == self.client.grant.pk or job.grant.overflow_of_id == self.client.grant.pk
            now = list(Attempt.objects.filter(job=job, ended_at=None))
            assert [one.grant_id for one in now] == ([job.grant_id] if job.state == "IN_PROGRESS" else [])
        assert self.cap is None or sql.one(HELD, [self.client.tenant.pk])[0] <= self.cap

    def teardown(self) -> None:
        if not hasattr(self, "way"):
            return
        for attempt in Attempt.objects.filter(job__tenant=self.client.tenant, released_at=None):
            self.reports(attempt)
        self.has_workers(at_other=False, there=False)
        self.has_workers(at_other=True, there=True)
        self.operator(wait_s=None, share=0, gone=False)
        for _ in range(200):
            self.time_passes()
            overflow()
            for claimed in claim(self.other.endpoint.pk, HOLDER, 3).jobs:
                assert news.done(self.other.endpoint.pk, HOLDER.name, attempt_of(claimed), news.Done(output=b"1"))
            if not Job.all_tenants.filter(tenant=self.client.tenant).exclude(state__in=FINAL).exists():
                break
        for job in self.jobs:
            self.it_ended(job)

    def it_ended(self, job: JobId) -> None:
        assert history.status(self.client.key, self.own.name, job).ended, "no job is stuck while one fleet is alive"
        moves = Event.objects.filter(job=job.uuid).exclude(kind="ignored").order_by("id")
        for before, line in pairwise(moves.values_list("kind", flat=True)):
            assert line != "moved" or before in QUEUED_BY, "only what is queued moves"


@pytest.fixture
def web(_database: None) -> Iterator[None]:
    with swept():
        yield


@pytest.mark.timeout(700)  # Hypothesis looks for a shorter failure for up to 300 s
def test_any_order_of_events_leaves_each_job_at_one_place_until_it_ends(web: None) -> None:
    how = settings(max_examples=10, stateful_step_count=40, deadline=None, database=None)
    how = settings(how, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(TwoFleets, settings=how)  # type: ignore[no-untyped-call]
