"""What is well and what is not, in words: red is to be seen to now, yellow is to be known."""

from dataclasses import dataclass

from accounts.errors import counted
from jobs.admin.shown import duration
from jobs.figures import Sum
from jobs.glance import MOST, Budget, Hand, Parts, Place, Post, Receiver
from jobs.models import Endpoint

OK, WARN, BAD, OFF = "ok", "warning", "danger", ""  # unfold's colours but for ok; OFF: nothing to say
LATE_S, VERY_LATE_S = 300, 3600  # what waits for so long in a queue
SOME_FAIL, MOST_FAIL, ENOUGH_ENDED = 0.1, 0.5, 5
SWEEP_LATE_S, TASK_LATE_S = 60, 60
NEAR, FULL = 0.8, 1


@dataclass(frozen=True)
class Verdict:
    level: str
    words: str


def ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{duration(max(seconds, 0) * 1000)} ago"


def most(n: int) -> str:
    """A number that was counted to MOST."""
    return f"{n:,}+" if n >= MOST else f"{n:,}"


def of_place(place: Place, figures: Sum, all_seen: bool) -> Verdict:
    """all_seen: the operator's view, who may know what is wrong at RunPod."""
    found = [*_serves(place, all_seen), *_keeps_up(place, figures)]
    for level in (BAD, WARN, OFF):
        if words := [verdict.words for verdict in found if verdict.level == level]:
            return Verdict(level, " ".join(words))
    return Verdict(OK, "It keeps up." if place.queued or place.running else "It is ready.")


def _serves(place: Place, all_seen: bool) -> list[Verdict]:
    if place.mode != Endpoint.Mode.OPEN:
        return [Verdict(WARN, f"It is {place.mode}. {place.message}".rstrip())]
    if place.spent:
        return [Verdict(BAD if place.queued else WARN, "It has used its budget of this month.")]
    waiting = f"{counted_most(place.queued)} and " if place.queued else ""
    if place.pushed:
        why = f": {place.trouble}" if all_seen else " at the moment."
        return [Verdict(BAD if place.queued else WARN, f"{waiting}RunPod takes no jobs{why}")] if place.trouble else []
    if place.takers:
        return []
    if place.seen_ago_s is None and not place.queued:
        return [Verdict(OFF, "No worker has served it yet.")]
    seen = f"; one was seen {ago(place.seen_ago_s)}" if place.seen_ago_s is not None else ""
    text = f"{waiting}no worker takes jobs{seen}."
    return [Verdict(BAD if place.queued else WARN, text[0].upper() + text[1:])]


def counted_most(queued: int) -> str:
    return f"{most(queued)} {'job waits' if queued == 1 else 'jobs wait'}"


def _keeps_up(place: Place, figures: Sum) -> list[Verdict]:
    found = []
    failing, failed = figures.failing or 0, figures.failed + figures.timed_out
    if failing >= SOME_FAIL:
        bad = failing >= MOST_FAIL and figures.ended - figures.cancelled >= ENOUGH_ENDED
        of = counted(figures.ended - figures.cancelled, "job")
        found.append(Verdict(BAD if bad else WARN, f"{failed} of {of} failed or timed out."))
    if (place.oldest_s or 0) >= LATE_S:
        level = BAD if (place.oldest_s or 0) >= VERY_LATE_S else WARN
        found.append(Verdict(level, f"A job has waited for {duration((place.oldest_s or 0) * 1000)}."))
    return found


def of_hand(hand: Hand) -> Verdict:
    if hand.unhealthy:
        return Verdict(BAD, f"It said that it is unhealthy: {hand.unhealthy}")
    if not hand.alive:
        held = f", and holds {counted(hand.held, 'job')}" if hand.held else ""
        return Verdict(BAD if hand.held else OFF, f"It has not been heard for 30 s{held}.")
    return Verdict(OK, "It works." if hand.held else "It waits for jobs.")


def of_deliveries(post: Post) -> Verdict:
    waits = f"{most(post.waiting)} on their way."
    if post.overdue:
        return Verdict(BAD, f"{most(post.overdue)} due for a minute, and nobody sends them: does a deliverer run?")
    if post.failed:
        return Verdict(WARN, f"{most(post.failed)} of {most(post.ended)} failed for good within a day. {waits}")
    return Verdict(OK, f"None of {most(post.ended)} failed for good within a day. {waits}")


def of_receiver(receiver: Receiver) -> Verdict:
    if receiver.disabled:
        return Verdict(BAD, f"Disabled {ago(receiver.since_s)}: it had failed for too long, or was gone.")
    return Verdict(WARN, f"Its last tries failed, since {duration(receiver.since_s * 1000)}.")


def of_parts(parts: Parts) -> dict[str, Verdict]:
    """By the part's name."""
    found = {"Web": Verdict(OK, f"{counted(parts.web, 'process')} answering."), "Sweeper": _of_sweeper(parts.sweeper_s)}
    if not parts.web:
        found["Web"] = Verdict(BAD, "No process says that it answers: workers may not be heard.")
    for name, number in parts.clusters.items():
        there = Verdict(OK, f"{counted(number, 'process')} there.")
        found[f"Tasks, {name}"] = there if number else Verdict(BAD, "No process is there.")
    return found | {"Tasks": _of_tasks(parts)}


def _of_sweeper(begun_s: float | None) -> Verdict:
    if begun_s is None:
        return Verdict(BAD, "None is there: nothing times out, and lost workers keep their jobs.")
    if begun_s > SWEEP_LATE_S:
        return Verdict(BAD, f"It last began to sweep {ago(begun_s)}.")
    return Verdict(OK, f"It last began to sweep {ago(begun_s)}.")


def _of_tasks(parts: Parts) -> Verdict:
    if (parts.late_s or 0) > TASK_LATE_S:
        return Verdict(
            BAD, f"{counted(parts.late, 'task')} waiting, the oldest for {duration((parts.late_s or 0) * 1000)}."
        )
    if parts.failed:
        return Verdict(
            WARN, f"{counted(parts.failed, 'task')} failed within a day; what they were for is done all the same."
        )
    return Verdict(OK, "None failed within a day, none is late.")


def of_budget(budget: Budget) -> Verdict:
    gpu = f"{budget.gpu_s:,.0f} of {budget.most_gpu_s:,} GPU-seconds" if budget.most_gpu_s is not None else ""
    cost = f"{budget.cost:,.2f} of {budget.most_cost:,.2f} cost" if budget.most_cost is not None else ""
    used = " and ".join(text for text in (gpu, cost) if text)
    return Verdict(BAD if budget.part >= FULL else WARN, f"{100 * budget.part:.0f} % of this month's is used: {used}.")
