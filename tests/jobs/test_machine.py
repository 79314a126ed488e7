"""Any order of what clients, workers, the sweeper and time do leaves every job in a legal state with a true history."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from accounts import sql
from accounts.errors import Refused
from accounts.models import uuid7
from jobs import history, lifecycle, news, uploads, workers
from jobs.ids import JobId
from jobs.loss import hand_back, lose, undo
from jobs.models import Attempt, Event, Job
from jobs.news import Done
from jobs.queue import Claimed
from jobs.states import FINAL
from jobs.sweep import STEPS as OFTEN
from jobs.sweep import sweep
from storage.models import Blob
from storage.outputs import NotLookedAt
from tests.cast import Client, FakeWorker, attempt_of, attempt_row, new_client, new_place, row
from tests.chaos.checks import MAX_ATTEMPTS, Case, Run, attempts_and_events_agree, moved_legally, not_tried_for_ever
from tests.chaos.history import Story
from tests.jobs.recount import check_usage
from worker.wire import Upload

T = TypeVar("T")
ENDS = {"completed", "failed", "cancelled", "timed_out"}
OPENS = {"created", "retried"}
RESULTS = {"ok": Done(output=b"1", output_value=1), "error": Done(error=b'"boom"', error_value="boom")}
FILE = Upload(name="a.png", bytes=3, sha256="0" * 64, content_type="image/png", node="1", kind="image")
POLICY = {"ttl": 10_000, "executionTimeout": 5_000}
WORKERS = st.sampled_from(["w1", "w2"])
PICKS = st.integers(0, 999)
"""Which of several there will be. What is drawn must not depend on the database: on a slow machine real time decides
there too (2 s after a hand-over, an idle worker has lost the job), and Hypothesis takes that for a flaky test."""
TIMES = {"jobs_job": ("deadline_at", "queued_at", "started_at"), "jobs_worker": ("take_at", "stop_at", "ping_at")}
TIMES["jobs_attempt"] = (
    "handed_at",
    "confirmed_at",
    "named_at",
    "started_at",
    "ended_at",
    "stop_sent_at",
    "released_at",
)
NOW = """
SELECT j.id, j.state, j.attempt, j.losses, array_remove(array_agg(a.number ORDER BY a.number), NULL),
       coalesce(array_agg(a.number) FILTER (WHERE a.id IS NOT NULL AND a.ended_at IS NULL), '{}'),
       count(a.id) FILTER (WHERE a.released_at IS NULL)
  FROM jobs_job j LEFT JOIN jobs_attempt a ON a.job_id = j.id WHERE j.grant_id = %s GROUP BY j.id"""
OVERDUE = """
SELECT count(*) FROM jobs_job WHERE grant_id = %s AND finished_at IS NULL AND deadline_at < clock_timestamp()"""
AGE_EVENTS = """
UPDATE jobs_event e SET at = e.at - %(s)s * interval '1 s'
  FROM jobs_job j WHERE j.id = e.job_id AND j.endpoint_id = %(endpoint)s"""
WEB = uuid7()
ALL_SILENT_S = 1000  # more than any lease and START_S


STEPS: dict[str, tuple[int, st.SearchStrategy[dict[str, Any]]]] = {}


def step(weight: int, **given: st.SearchStrategy[Any]) -> Callable[[T], T]:
    """What may happen next, so often beside the others. Not a rule each: of those Hypothesis leaves many out of each
    example, and most examples then come to nothing."""

    def noted(method: T) -> T:
        STEPS[method.__name__] = weight, st.fixed_dictionaries(given)  # type: ignore[attr-defined]
        return method

    return noted


def any_step() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    names = st.sampled_from([name for name, (weight, _) in STEPS.items() for _ in range(weight)])
    return names.flatmap(lambda name: st.tuples(st.just(name), STEPS[name][1]))


def picked(several: Sequence[T], pick: int) -> T:
    return several[pick % len(several)]


class Jobs(RuleBasedStateMachine):
    dialect = "raw"

    @initialize(cap=st.sampled_from([None, 1, 2]))
    def begin(self, cap: int | None) -> None:
        self.client: Client = new_client(new_place(self.dialect), max_running=cap)
        self.cap = cap
        self.jobs: list[JobId] = []
        self.handed: list[tuple[str, Claimed]] = []
        self.slots: dict[tuple[UUID, int], str] = {}  # key of the file of each attempt that opened an upload
        self.ended: dict[UUID, str] = {}  # jobs that were seen to have ended
        self.cleared: Counter[UUID] = Counter()  # bytes of outputs that went with a retry

    def worker(self, name: str) -> FakeWorker:
        return self.client.place.worker(name)

    def chosen(self, pick: int, from_open: bool) -> tuple[str, Claimed]:
        """One that is open, or any that there ever was."""
        held_now = Attempt.objects.filter(grant=self.client.grant, ended_at=None).values_list("job_id", "number")
        now = {*held_now} if from_open else set()
        still = [held for held in self.handed if (held[1].job, held[1].number) in now]
        return picked(still or self.handed, pick)

    @rule(chosen=st.deferred(any_step))
    def goes_on(self, chosen: tuple[str, dict[str, Any]]) -> None:
        name, given = chosen
        if not self.handed:  # nothing else can be of any use
            self.take("w1", 2, idle=False)
        getattr(self, name)(**given)

    # what clients do

    @step(2, low=st.booleans(), hurried=st.booleans())
    def submit(self, low: bool, hurried: bool) -> None:
        self.jobs.append(self.client.submit(policy={"lowPriority": low, **(POLICY if hurried else {})}))

    @step(5, pick=PICKS, from_open=st.booleans(), verb=st.sampled_from(["cancel", "retry"] * 3 + ["purge"]))
    def ask(self, pick: int, from_open: bool, verb: str) -> None:
        job = self.chosen_job(pick, from_open)
        found = row(job)
        before = found.state
        if verb == "purge":
            lifecycle.purge(self.client.key, self.client.place.name)
        elif verb == "cancel":
            assert self.client.cancel(job) == (before if before in FINAL else "CANCELLED")
        elif before in ("FAILED", "TIMED_OUT"):
            self.retry(job, found)
        else:
            with pytest.raises(Refused):
                self.client.retry(job)

    def chosen_job(self, pick: int, from_open: bool) -> JobId:
        """One that a worker has, or any."""
        return self.job_of(self.chosen(pick, from_open)[1]) if from_open and self.handed else picked(self.jobs, pick)

    def job_of(self, claimed: Claimed) -> JobId:
        return next(job for job in self.jobs if job.uuid == claimed.job)

    def retry(self, job: JobId, ended: Job) -> None:
        self.ended.pop(job.uuid)
        self.cleared[job.uuid] += len(ended.payload.output or b"")
        self.client.retry(job)

    # what workers do

    @step(3, worker=WORKERS, n=st.integers(1, 3), idle=st.booleans())
    def take(self, worker: str, n: int, idle: bool) -> None:
        self.taken(worker, n, idle=idle)

    def taken(self, worker: str, n: int = 1, *, idle: bool = False) -> list[Claimed]:
        """What the worker is handed; if there is nothing, a client comes first. It opens an upload for each at once."""
        claimed = self.worker(worker).take(n, idle=idle)
        if not claimed:
            self.submit(low=False, hurried=False)
            claimed = self.worker(worker).take(n)
        self.handed += [(worker, job) for job in claimed]
        for job in claimed:
            (slot,) = uploads.slots(attempt_of(job), [FILE]) or ()
            self.slots[job.job, job.number] = slot.key
        return claimed

    @step(2, worker=WORKERS, times=st.sampled_from([1, 3, 7]), started=st.booleans())
    def crash(self, worker: str, times: int, started: bool) -> None:
        """A job on which its worker crashes, again and again; it goes to the head of the queue each time."""
        for _ in range(times):
            for job in self.taken(worker):
                if started:
                    news.started(attempt_of(job))
                assert lose(job.job, job.number, "its worker crashed")

    @step(3, pick=PICKS, from_open=st.booleans())
    def start(self, pick: int, from_open: bool) -> None:
        _, claimed = self.chosen(pick, from_open)
        runs = self.is_open(claimed)
        assert news.started(attempt_of(claimed)) == runs, "a worker runs what is its own, and nothing else"

    @step(1, pick=PICKS, from_open=st.booleans(), what=st.sampled_from(["progress", "upload", "a stranger's result"]))
    def tell(self, pick: int, from_open: bool, what: str) -> None:
        """What ends nothing."""
        worker, claimed = self.chosen(pick, from_open)
        if what == "progress":
            value = {"fraction": pick / 1000}
            news.progress(self.client.place.endpoint.pk, worker, attempt_of(claimed), b"{}", value)
        elif what == "upload":
            slots = uploads.slots(attempt_of(claimed), [FILE])
            assert (slots is not None) == self.is_open(claimed)
        else:
            assert not self.done("a stranger", claimed, RESULTS["ok"])

    @step(
        4,
        pick=PICKS,
        from_open=st.booleans(),
        other=PICKS,
        result=st.sampled_from(["files", "files", "broken", *RESULTS]),
        there=st.booleans(),
    )
    def report(self, pick: int, from_open: bool, other: int, result: str, there: bool) -> None:
        worker, claimed = self.chosen(pick, from_open)
        done = RESULTS.get(result) or self.with_files(other, claimed, broken=result == "broken")
        self.reported(worker, claimed, done, there)

    @step(3, worker=WORKERS, other=PICKS, there=st.booleans(), broken=st.booleans(), regret=st.booleans())
    def work(self, worker: str, other: int, there: bool, broken: bool, regret: bool) -> None:
        """A job from its hand-over to a result with files. regret: if it failed it is retried, and cancelled before it
        got to a worker again."""
        for claimed in self.taken(worker):
            news.started(attempt_of(claimed))
            self.reported(worker, claimed, self.with_files(other, claimed, broken=broken), there)
            self.every_job_is_in_one_place()
            job = self.job_of(claimed)
            if regret and (ended := row(job)).state == "FAILED":
                self.retry(job, ended)
                self.client.cancel(job)

    def reported(self, worker: str, claimed: Claimed, done: Done, there: bool) -> None:
        counts = self.is_open(claimed)
        try:
            applied = self.done(worker, claimed, done)
        except NotLookedAt as error:  # as web does: S3 is asked, then it is told again
            assert self.is_open(claimed), "nothing has changed before S3 was asked"
            absent: frozenset[UUID] = frozenset() if there else frozenset(error.blobs)
            applied = self.done(worker, claimed, replace(done, absent=absent))
            state = Job.all_tenants.get(pk=claimed.job).state
            assert state == ("COMPLETED" if there and not done.error else "FAILED"), "files that are nowhere fail it"
        assert applied == counts

    def done(self, worker: str, claimed: Claimed, done: Done) -> bool:
        return news.done(self.client.place.endpoint.pk, worker, attempt_of(claimed), done)

    def with_files(self, pick: int, claimed: Claimed, *, broken: bool) -> Done:
        """A result that names the files of all attempts of its job and one of any job, as of a confused worker.
        `broken`: those that were made before it failed."""
        own = [key for (job, _), key in self.slots.items() if job == claimed.job]
        keys = [*own, picked([*self.slots.values()], pick)]
        value = {"files": keys, "datas": {}, "assets": [{"key": key, "name": "a.png"} for key in keys]}
        return Done(output=b"{}", output_value=value, **({"error": b'"boom"', "error_value": "boom"} if broken else {}))

    @step(
        3,
        pick=PICKS,
        from_open=st.booleans(),
        how=st.sampled_from([lambda *a: lose(*a, "test"), lambda *a: hand_back(*a, "test"), undo]),
    )
    def give_up(self, pick: int, from_open: bool, how: Any) -> None:
        _, claimed = self.chosen(pick, from_open)
        was_open = self.is_open(claimed)
        assert how(claimed.job, claimed.number) == was_open

    @step(
        3,
        worker=WORKERS,
        what=st.sampled_from(["ping", "ping", "stop", "hang up", "ill"]),
        picks=st.lists(PICKS, max_size=3),
    )
    def worker_says(self, worker: str, what: str, picks: list[int]) -> None:
        """A ping names any of what it was ever handed."""
        if what == "ping":
            own = [claimed for name, claimed in self.handed if name == worker]
            self.worker(worker).ping(*(picked(own, pick) for pick in picks if own))
        elif what == "stop":
            for attempt in self.worker(worker).stops():
                told = Attempt.objects.get(job_id=attempt.job, number=attempt.number)
                assert (told.worker_name, told.ended_at is None) == (worker, False)
        elif what == "hang up":
            workers.hang_up(self.worker(worker).poll())
        else:
            workers.unhealthy(self.client.place.key, self.client.place.name, worker, "no GPU")
            assert not Attempt.objects.filter(grant=self.client.grant, worker_name=worker, released_at=None).exists()

    # what time does

    @step(2, seconds=st.sampled_from([3, 6, 20, 30, 700]))
    def time_passes(self, seconds: int) -> None:
        self.pass_time(seconds)
        for _ in range(2):  # what the first one puts back into the queue may have waited too long already
            sweep(OFTEN)
        assert sql.one(OVERDUE, [self.client.grant.pk]) == (0,)

    def pass_time(self, seconds: int) -> None:
        """Moves all times of this endpoint into the past. A web process has listened for longer than that."""
        history.beat(WEB)
        sql.run("UPDATE jobs_webprocess SET up_since = seen_at - interval '1 hour' WHERE id = %s", [WEB])
        for table, columns in TIMES.items():
            sets = ", ".join(f"{column} = {column} - %(s)s * interval '1 s'" for column in columns)
            given = {"s": seconds, "endpoint": self.client.place.endpoint.pk}
            sql.run(f"UPDATE {table} SET {sets} WHERE endpoint_id = %(endpoint)s", given)
        sql.run(AGE_EVENTS, given)

    def teardown(self) -> None:
        """Workers that fall silent lose what they hold, and what is queued can be cancelled: nothing is stuck."""
        if not hasattr(self, "client"):
            return
        self.every_job_tells_the_truth()
        self.pass_time(ALL_SILENT_S)
        for _ in range(20):  # batches
            if not sweep(OFTEN)["lose_silent"]:
                break
        assert not Attempt.objects.filter(grant=self.client.grant, released_at=None).exists()
        lifecycle.purge(self.client.key, self.client.place.name)
        assert not Job.all_tenants.filter(grant=self.client.grant).exclude(state__in=FINAL).exists()
        self.every_job_tells_the_truth()

    # what holds at all times

    def is_open(self, claimed: Claimed) -> bool:
        return attempt_row(claimed).ended_at is None

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        """Cheap, after each step: what has been is looked at where all ends, since events tell of each moment."""
        holding = 0
        for job, state, attempt, losses, numbers, still_open, held in self.rows_now():
            assert numbers == list(range(1, attempt + 1))
            assert still_open == ([attempt] if state == "IN_PROGRESS" else [])
            assert losses < MAX_ATTEMPTS or state == "FAILED"
            self.its_end_stays(job, state)
            holding += held
        assert getattr(self, "cap", None) is None or holding <= self.cap

    def rows_now(self) -> list[Any]:
        return sql.rows(NOW, [self.client.grant.pk]) if hasattr(self, "client") else []

    def its_end_stays(self, job: UUID, state: str) -> None:
        """Unless its client asks for it again."""
        if state in FINAL:
            assert self.ended.setdefault(job, state) == state
        else:
            assert job not in self.ended

    def every_job_tells_the_truth(self) -> None:
        for story in self.stories():
            kinds = [event.kind for event in story.events]
            ends, opens = [k for k in kinds if k in ENDS], [k for k in kinds if k in OPENS]
            assert len(ends) == len(opens) - (story.job.state not in FINAL), "it ends once for each time it was queued"
            assert complaints(story) == []
            only_the_deciders_file_is_kept(story)
        check_usage(self.client.tenant, self.cleared)

    def stories(self) -> Iterable[Story]:
        """Rows of the ORM have the fields of what `make chaos` reads."""
        found = {job.pk: Story(job=job) for job in Job.all_tenants.filter(grant=self.client.grant)}
        for attempt in Attempt.objects.filter(job__in=found).order_by("number"):
            found[attempt.job_id].attempts.append(attempt)
        for event in Event.objects.filter(job__in=found).order_by("id"):
            found[event.job_id].events.append(event)
        for blob in Blob.all_tenants.filter(job_id__in=found):
            found[blob.job_id].blobs.append(blob)
        return found.values()


def complaints(story: Story) -> list[str]:
    """What `make chaos` would find."""
    checks = (moved_legally, attempts_and_events_agree, not_tried_for_ever)
    case, run = Case(None, story, None), Run([], [], [])
    return [text for check in checks for text in check(case, run)]


def only_the_deciders_file_is_kept(story: Story) -> None:
    decided = {attempt.number for attempt in story.attempts if attempt.outcome in ("completed", "failed")}
    assert {blob.attempt for blob in story.blobs if blob.state == "kept"} <= decided


class OwnJobs(Jobs):
    """The same on an endpoint of dialect hearth, where jobs start after their hand-over."""

    dialect = "hearth"


@pytest.fixture
def web() -> Iterator[None]:
    yield
    sql.run("DELETE FROM jobs_webprocess WHERE id = %s", [WEB])


@pytest.mark.timeout(700)  # Hypothesis looks for a shorter failure for up to 300 s
@pytest.mark.parametrize("machine", [Jobs, OwnJobs])
def test_any_order_of_events_keeps_the_jobs_true(machine: type[Jobs], web: None) -> None:
    how = settings(
        max_examples=16,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(machine, settings=how)  # type: ignore[no-untyped-call]
