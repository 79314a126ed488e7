"""Any order of what clients, workers and the sweeper do leaves every job in a legal state with a true history."""

from typing import Any

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
from accounts.errors import Refused
from jobs import lifecycle, news
from jobs.ids import JobId
from jobs.loss import hand_back, lose, undo
from jobs.models import Attempt, Event, Job
from jobs.news import Done
from jobs.queue import Claimed
from jobs.states import FINAL
from jobs.sweep import time_out_overdue
from tests.cast import Client, attempt_of, new_client, new_place

ENDS = {"completed", "failed", "cancelled", "timed_out"}
OPENS = {"created", "retried"}
RESULTS = {"ok": Done(output=b"1", output_value=1), "error": Done(error=b'"boom"', error_value="boom")}
WORKERS = st.sampled_from(["w1", "w2"])


class Jobs(RuleBasedStateMachine):
    dialect = "raw"

    @initialize(cap=st.sampled_from([None, 1, 2]))
    def begin(self, cap: int | None) -> None:
        self.client: Client = new_client(new_place(self.dialect), max_running=cap)
        self.cap = cap
        self.jobs: list[JobId] = []
        self.handed: list[tuple[str, Claimed]] = []

    @rule(low=st.booleans())
    def submit(self, low: bool) -> None:
        self.jobs.append(self.client.submit(policy={"lowPriority": low}))

    @rule(worker=WORKERS, n=st.integers(1, 3))
    def take(self, worker: str, n: int) -> None:
        self.handed += [(worker, job) for job in self.client.place.worker(worker).take(n)]

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), result=st.sampled_from(sorted(RESULTS)), stranger=st.booleans())
    def report(self, data: st.DataObject, result: str, stranger: bool) -> None:
        worker, claimed = data.draw(st.sampled_from(self.handed))
        name = "stranger" if stranger else worker
        news.done(self.client.place.endpoint.pk, name, attempt_of(claimed), RESULTS[result])

    @precondition(lambda self: self.handed)
    @rule(data=st.data(), how=st.sampled_from([lambda *a: lose(*a, "test"), lambda *a: hand_back(*a, "test"), undo]))
    def give_up(self, data: st.DataObject, how: Any) -> None:
        _, claimed = data.draw(st.sampled_from(self.handed))
        how(claimed.job, claimed.number)

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        news.started(attempt_of(data.draw(st.sampled_from(self.handed))[1]))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), verb=st.sampled_from(["cancel", "retry"]))
    def ask(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        before = Job.all_tenants.get(pk=job.uuid).state
        if verb == "cancel" or before in ("FAILED", "TIMED_OUT"):
            getattr(self.client, verb)(job)
        else:
            with pytest.raises(Refused):
                self.client.retry(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def run_out_of_time(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '30 days' WHERE id = %s", [job.uuid])
        time_out_overdue()

    @rule()
    def purge(self) -> None:
        lifecycle.purge(self.client.key, self.client.place.name)

    @invariant()
    def every_job_tells_the_truth(self) -> None:
        if not hasattr(self, "jobs"):
            return
        for job in Job.all_tenants.filter(grant=self.client.grant):
            attempts = list(Attempt.objects.filter(job=job).order_by("number"))
            kinds = list(Event.objects.filter(job=job).values_list("kind", flat=True))
            ends, opens = [k for k in kinds if k in ENDS], [k for k in kinds if k in OPENS]
            assert len(ends) == len(opens) - (job.state not in FINAL), "it ends once for each time it was queued"
            if job.state in FINAL:
                assert ends[-1] == job.state.lower()
            assert [a.number for a in attempts] == list(range(1, job.attempt + 1))
            assert kinds.count("handed") == len(attempts)
            still_open = [a.number for a in attempts if a.ended_at is None]
            assert still_open == ([job.attempt] if job.state == "IN_PROGRESS" else [])

    @invariant()
    def the_cap_holds(self) -> None:
        if getattr(self, "cap", None):
            running = Attempt.objects.filter(grant=self.client.grant, released_at=None).count()
            assert running <= self.cap


class OwnJobs(Jobs):
    """The same on an endpoint of dialect hearth, where jobs start after their hand-over."""

    dialect = "hearth"


@pytest.mark.parametrize("machine", [Jobs, OwnJobs])
def test_any_order_of_events_keeps_the_jobs_true(machine: type[Jobs]) -> None:
    how = settings(
        max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(machine, settings=how)  # type: ignore[no-untyped-call]
