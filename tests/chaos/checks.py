"""What must hold after a run, whatever was killed. Each check says what is wrong, by job or as a whole."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from tests.chaos.clients import FINAL, Seen
from tests.chaos.faults import Struck
from tests.chaos.history import Attempt, Story, by_grant
from tests.chaos.plan import JobPlan
from tests.chaos.receiver import Told

MAX_ATTEMPTS, MAX_FREE_LOSSES = 3, 3  # the settings' defaults, which a run leaves as they are
AFTER_S = 60.0  # so long a job may suffer from a fault that is over
SUFFERS = {  # which parts' faults explain that a job failed with this code
    "comfyui_crashed": ("comfyui", "instance"),
    "comfyui_hangs": ("comfyui", "instance"),
    "comfyui_unreachable": ("comfyui", "instance"),
    "prompt_gone": ("comfyui", "instance"),
    "output_missing": ("comfyui", "instance"),
    "upload_failed": ("s3", "instance"),
}
ENDS = {state.lower(): state for state in FINAL}
GIVEN_UP = ("lost", "handed_back", "undone")
QUEUED, RUNNING = "IN_QUEUE", "IN_PROGRESS"
LEGAL = {  # kind of event: the states in which it may happen, and the state after it
    "created": ({""}, QUEUED),
    "handed": ({QUEUED}, RUNNING),
    "started": ({RUNNING}, RUNNING),
    "output": ({RUNNING}, RUNNING),
    "completed": ({RUNNING}, "COMPLETED"),
    "failed": ({RUNNING, QUEUED}, "FAILED"),  # queued: lost for the last time
    "cancelled": ({RUNNING, QUEUED}, "CANCELLED"),
    "timed_out": ({RUNNING, QUEUED}, "TIMED_OUT"),
    "retried": ({"FAILED", "TIMED_OUT"}, QUEUED),
    **{kind: ({RUNNING}, QUEUED) for kind in GIVEN_UP},
}


@dataclass(frozen=True)
class Case:
    """One job: its story, and the client that was answered its id, if one was. A job without one was submitted by a
    request whose answer did not arrive."""

    plan: JobPlan
    story: Story
    seen: Seen | None


@dataclass
class Run:
    """All that is known at the end."""

    stories: list[Story]
    seen: list[Seen]
    struck: list[Struck]
    told: list[Told] = field(default_factory=list)

    @cached_property
    def told_by_id(self) -> dict[str, list[Told]]:
        """What came to the receiver under each webhook-id."""
        found = defaultdict(list)
        for one in self.told:
            found[one.id].append(one)
        return found

    @cached_property
    def cases(self) -> list[Case]:
        """Jobs of no planned submission are left out: `no job without a submission` tells them."""
        tokens = {made.token: (seen, made) for seen in self.seen for made in seen.submissions}
        found = []
        for story in self.stories:
            if story.job.token in tokens:
                seen, made = tokens[story.job.token]
                found.append(Case(seen.plan, story, seen if made.id else None))
        return found


def has_ended(case: Case, run: Run) -> Iterator[str]:
    if case.story.job.state not in FINAL:
        yield f"it is {case.story.job.state}"


def ended_as_it_should(case: Case, run: Run) -> Iterator[str]:
    """As its kind says, or as a fault explains."""
    job, kind, seen = case.story.job, case.plan.kind, case.seen
    allowed = {
        "good": {"COMPLETED"},
        "hurried": {"COMPLETED", "TIMED_OUT"},
        "overlong": {"TIMED_OUT"},
        "cancelled": {"COMPLETED", "CANCELLED"} if seen and seen.cancels else {"COMPLETED"},
    }.get(kind, {"FAILED"})
    if job.state not in allowed and not (job.state == "FAILED" and explained(case, run.struck)):
        yield f"a job to be {' or '.join(sorted(allowed))} is {job.state}: {job.code} {job.error!r}"
    if job.state == "FAILED" and job.code == "node_failed" and not case.plan.fails:
        yield "a node failed that cannot"


def explained(case: Case, struck: Sequence[Struck]) -> bool:
    """Whether it failed for its losses, or its last attempt met a fault that can be the cause."""
    job, attempts = case.story.job, case.story.attempts
    if job.losses >= MAX_ATTEMPTS or (case.plan.fails and job.code == "node_failed"):
        return True
    parts = SUFFERS.get(job.code, ())
    if not attempts or not job.finished_at or not parts:
        return False
    begun, ended = attempts[-1].handed_at.timestamp(), job.finished_at.timestamp()
    return any(one.fault.part.startswith(parts) and one.at < ended and one.until + AFTER_S > begun for one in struck)


def ended_once_each_time(case: Case, run: Run) -> Iterator[str]:
    """It was created once, and ended once for that and once for each retry."""
    kinds = Counter(event.kind for event in case.story.events)
    ends = sum(kinds[kind] for kind in ENDS)
    asked = case.seen.retries if case.seen else 0
    if kinds["created"] != 1:
        yield f"it was created {kinds['created']} times"
    if ends != kinds["created"] + kinds["retried"]:
        yield f"it ended {ends} times, after {kinds['retried']} retries"
    if not kinds["retried"] == case.story.job.retries <= asked:
        yield f"{kinds['retried']} retries in its timeline, {case.story.job.retries} counted, {asked} asked for"


def moved_legally(case: Case, run: Run) -> Iterator[str]:
    """Its events, in their order, are moves that it may make, and lead to the state that it is in."""
    state, number = "", 0
    for event in case.story.events:
        if event.kind not in LEGAL:
            continue
        sources, then = LEGAL[event.kind]
        if state not in sources:
            yield f"{event.kind} while it was {state or 'not there'}"
        state = then
        number += event.kind == "handed"
        if event.attempt != number:
            yield f"{event.kind} of attempt {event.attempt}, when attempt {number} was the latest"
    if state != case.story.job.state:
        yield f"its timeline ends as {state}, and it is {case.story.job.state}"


def attempts_are_over(case: Case, run: Run) -> Iterator[str]:
    """Numbered without a gap, ended, released, one after the other."""
    attempts = case.story.attempts
    if [attempt.number for attempt in attempts] != list(range(1, case.story.job.attempt + 1)):
        yield f"its attempts are {[attempt.number for attempt in attempts]}, its latest {case.story.job.attempt}"
    for attempt in attempts:
        if attempt.ended_at is None or attempt.released_at is None:
            yield f"attempt {attempt.number} has not {'ended' if attempt.ended_at is None else 'been released'}"
    for before, after in pairwise(attempts):
        if before.ended_at and before.ended_at > after.handed_at:
            yield f"attempt {after.number} began before attempt {before.number} had ended"


def attempts_and_events_agree(case: Case, run: Run) -> Iterator[str]:
    """Each hand-over and each attempt that came to nothing is one event; what ended the job ended its attempt."""
    kinds = Counter(event.kind for event in case.story.events)
    outcomes = Counter(attempt.outcome for attempt in case.story.attempts)
    if kinds["handed"] != len(case.story.attempts):
        yield f"{len(case.story.attempts)} attempts, {kinds['handed']} times handed"
    for outcome in (*GIVEN_UP, "completed"):
        if kinds[outcome] != outcomes[outcome]:
            yield f"{outcome}: {kinds[outcome]} events, {outcomes[outcome]} attempts"


def completed_once(case: Case, run: Run) -> Iterator[str]:
    """One attempt completed, the last."""
    completed = [attempt.number for attempt in case.story.attempts if attempt.outcome == "completed"]
    if completed != ([case.story.job.attempt] if case.story.job.state == "COMPLETED" else []):
        yield f"attempts {completed} of {case.story.job.attempt} completed"


def not_tried_for_ever(case: Case, run: Run) -> Iterator[str]:
    """Each time it was queued it was lost so often at most, undone hand-overs apart."""
    lost = 0
    for event in case.story.events:
        lost = 0 if event.kind == "retried" else lost + (event.kind in ("lost", "handed_back"))
        if lost > MAX_ATTEMPTS + MAX_FREE_LOSSES:
            yield f"it was lost {lost} times"


def has_its_files(case: Case, run: Run) -> Iterator[str]:
    """The winner's files are kept, as many as it saves, and no others; each is its own tenant's."""
    job = case.story.job
    kept = [blob for blob in case.story.blobs if blob.state == "kept"]
    if job.state == "COMPLETED" and len(kept) != case.plan.pictures:
        yield f"{len(kept)} of {case.plan.pictures} files are kept"
    for blob in kept:
        if job.state not in ("COMPLETED", "FAILED") or blob.attempt != job.attempt:
            yield f"a file of attempt {blob.attempt} is kept"
    for blob in case.story.blobs:
        if (blob.state == "kept") != (blob.asset_job is not None):
            yield f"{blob.key} is {blob.state}, and {'no' if blob.asset_job is None else 'an'} asset names it"
        owners = {blob.tenant_id, blob.asset_tenant or job.tenant_id}
        if owners != {job.tenant_id} or blob.asset_job not in (None, job.id):
            yield f"{blob.key} belongs to another job or tenant"
        if f"/{job.tenant_id}/{job.id}/a{blob.attempt}/" not in f"/{blob.key}":
            yield f"{blob.key} is not in its attempt's folder"


def client_was_told_the_truth(case: Case, run: Run) -> Iterator[str]:
    """An end that a client was told stays, but for a retry that it asked for."""
    if not case.seen:
        return
    told, before = [*case.seen.states, case.story.job.state], ""
    for state in told:
        if before in FINAL and state not in (before, "retry"):
            yield f"its client was told {before}, and then {state}"
        before = state
    if case.seen.states[-1] not in FINAL:
        yield "its client has not seen its end"
    yield from case.seen.wrong


def its_ends_were_told(case: Case, run: Run) -> Iterator[str]:
    """Its webhook was sent each of its ends; one that a retry has overtaken may be left out."""
    ends = [event.kind for event in case.story.events if event.kind in ENDS] if case.plan.told else []
    written = [delivery.kind for delivery in case.story.deliveries]
    if written != ends:
        yield f"it ended as {ends}, and {written} was to be told"
    for number, delivery in enumerate(case.story.deliveries, 1):
        there = run.told_by_id.get(f"msg_{delivery.message}", [])
        overtaken = number < len(written) and delivery.state == "outdated"
        if not overtaken and (delivery.state != "delivered" or not there):
            yield f"its end as {delivery.kind} is {delivery.state}, and has come {len(there)} times"
        for one in there:
            if (one.json["id"].removeprefix("sync-"), one.json["status"]) != (
                f"{case.story.job.id}-e1",
                ENDS[delivery.kind],
            ):
                yield f"its end as {delivery.kind} was told as {one.body[:100]!r}"


def none_is_missing(run: Run) -> Iterator[str]:
    """What was answered 200 is there, once, and its tenant's."""
    there = Counter(story.job.token for story in run.stories)
    ids = {f"{story.job.id}": story for story in run.stories}
    for seen in run.seen:
        for made in seen.submissions:
            story = ids.get(made.id.removeprefix("sync-").removesuffix("-e1"))
            if made.id and (story is None or story.job.token != made.token):
                yield f"{made.id} was accepted and is not there"
            elif there[made.token] > 1:
                yield f"{made.token} is there {there[made.token]} times"
            elif story and story.job.tenant != f"chaos-{seen.plan.tenant}":
                yield f"{made.id} is {story.job.tenant}'s, and chaos-{seen.plan.tenant} submitted it"


def none_was_made_up(run: Run) -> Iterator[str]:
    """Every job comes from a submission; and none was refused, since none is wrong."""
    made = {made.token: made for seen in run.seen for made in seen.submissions}
    for story in run.stories:
        if story.job.token not in made:
            yield f"nobody submitted {story.job.id}"
    for one in made.values():
        if one.refused:
            yield f"{one.token} was refused: {one.refused}"


def told_in_confidence(run: Run) -> Iterator[str]:
    """Each message that came is of a delivery, came to its own tenant, and was signed with that tenant's secret."""
    tenants = {f"msg_{one.message}": story.job.tenant for story in run.stories for one in story.deliveries}
    for one in run.told:
        if tenants.get(one.id) != f"chaos-{one.tenant}":
            yield f"{one.id} of {tenants.get(one.id)} came to chaos-{one.tenant}"
        if one.fault:
            yield f"{one.id} of chaos-{one.tenant}: {one.fault}"


def caps_held(run: Run) -> Iterator[str]:
    """No tenant ever had more slots than its cap, from each hand-over to its release."""
    for stories in by_grant(run.stories):
        cap = stories[0].job.max_running
        most = most_at_once([attempt for story in stories for attempt in story.attempts])
        if cap is not None and most > cap:
            yield f"{stories[0].job.tenant} had {most} slots at once, of {cap}"


def most_at_once(attempts: Sequence[Attempt]) -> int:
    begins = [(attempt.handed_at, 1) for attempt in attempts]
    ends = [(attempt.released_at, -1) for attempt in attempts if attempt.released_at]
    running = most = 0
    for _, step in sorted([*begins, *ends]):
        running += step
        most = max(most, running)
    return most


OF_A_JOB: tuple[Callable[[Case, Run], Iterator[str]], ...] = (
    has_ended,
    ended_as_it_should,
    ended_once_each_time,
    moved_legally,
    attempts_are_over,
    attempts_and_events_agree,
    completed_once,
    not_tried_for_ever,
    has_its_files,
    client_was_told_the_truth,
    its_ends_were_told,
)
OF_ALL: tuple[Callable[[Run], Iterator[str]], ...] = (
    none_is_missing,
    none_was_made_up,
    caps_held,
    told_in_confidence,
)


@dataclass(frozen=True)
class Result:
    """looked_at: jobs, or 1 for a check of all of them. wrong: what, and of which job."""

    check: str
    looked_at: int
    wrong: list[tuple[Story | None, str]]


def look(run: Run) -> list[Result]:
    found = []
    for check in OF_A_JOB:
        wrong = [(case.story, text) for case in run.cases for text in check(case, run)]
        found.append(Result(name_of(check), len(run.cases), [*wrong]))
    for whole in OF_ALL:
        found.append(Result(name_of(whole), len(run.stories), [(None, text) for text in whole(run)]))
    return found


def name_of(check: Callable[..., object]) -> str:
    return check.__name__.replace("_", " ")
