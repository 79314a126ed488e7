"""Why a queued job waits: its position, an estimate and the reason, for its status and the admin.

Told from what this process looked up about a second ago, and only while somebody asks: an endpoint (`Sight`) and a
grant's queue (`Line`). The larger the queue, the longer the look and the rarer: it takes a twentieth of a core at most.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from typing import Any, Generic, TypeVar

from jobs.models import Endpoint
from jobs.sight import Limits, Line, Queued, Sight, jobs_of, line_up, see

log = logging.getLogger("hearth.waits")
T = TypeVar("T")
FRESH_S, RARELY = 1.0, 20.0  # a look is good for so long, and for so many times as long as it took
MOST_KEPT = 2000  # endpoints and grants whose looks are kept
UNKNOWN = ("paused", "no_worker", "worker_starting")  # when it will begin


class Kept(Generic[T]):
    """What was looked up, until it is due again. One thread looks, the others have the last."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load, self._lock, self._due_at = load, threading.Lock(), 0.0
        self._value: T | None = None

    def get(self) -> T:
        if time.monotonic() >= self._due_at and self._lock.acquire(blocking=self._value is None):
            try:
                if time.monotonic() >= self._due_at:
                    begun = time.monotonic()
                    self._value = self._load()
                    self._due_at = time.monotonic() + max(FRESH_S, RARELY * (time.monotonic() - begun))
            finally:
                self._lock.release()
        assert self._value is not None
        return self._value


_sights: dict[int, Kept[Sight]] = {}
_lines: dict[int, Kept[Line]] = {}


def _kept(all_kept: dict[int, Kept[T]], of: int, load: Callable[[int], T]) -> T:
    if len(all_kept) > MOST_KEPT:
        all_kept.clear()
    return all_kept.setdefault(of, Kept(lambda: load(of))).get()


def why(job: Queued) -> dict[str, Any] | None:
    """`position` (1: next), `estimate_s` until it begins or None, `reason` and `text`.

    None: it could not be told, which must be nobody's trouble.
    """
    try:
        return _told(job, _kept(_sights, job.endpoint_id, see), _kept(_lines, job.grant_id, line_up))
    except Exception:
        log.exception("why job %s waits could not be told", job.id)
        return None


def _told(job: Queued, sight: Sight, line: Line) -> dict[str, Any]:
    ahead = _ahead(job, sight, line)
    limits = line.limits_of(job)
    reason, text = _reason(job, sight, next((limit.text for limit in limits if limit.text), ""))
    unknown = reason in UNKNOWN or sight.max_running == 0 or any(limit.month or limit.most == 0 for limit in limits)
    estimate = None if unknown else max(_shared_ms(sight, ahead), *(_own_ms(job, sight, line, of) for of in limits))
    seconds = None if estimate is None else ceil(estimate / 1000)
    return {"position": 1 + sum(ahead.values()), "estimate_s": seconds, "reason": reason, "text": text}


def _ahead(job: Queued, sight: Sight, line: Line) -> dict[int, int]:
    """How many jobs of each grant go first, if nobody submits more and all take what such a job took before."""
    own, low = line.rank(job), job.priority < 0
    if (mine := sight.shares.get(job.grant_id)) is None:  # it was not there yet
        return {job.grant_id: own}
    begins = sight.first(mine, low) + (own - (mine.normal if low else 0)) * mine.step
    return {grant: sight.ahead(share, begins, low) for grant, share in sight.shares.items()} | {job.grant_id: own}


def _shared_ms(sight: Sight, ahead: dict[int, int]) -> float:
    """Until a worker is free for it."""
    slots, free = sight.workers, sight.workers - sight.busy
    if sight.max_running is not None:
        slots, free = min(slots, sight.max_running), min(free, sight.max_running - sight.running)
    if sum(ahead.values()) < free:
        return 0
    queued = sum(n * sight.shares[grant].job_ms for grant, n in ahead.items() if grant in sight.shares)
    running = sum(share.running * share.job_ms / 2 for share in sight.shares.values())
    return (queued + running) / slots


def _own_ms(job: Queued, sight: Sight, line: Line, limits: Limits) -> float:
    """Until its owner may run it."""
    own = max(0, min(line.rank(job), limits.queued - 1))
    if limits.most is None or own < limits.most - limits.running:
        return 0
    job_ms = sight.shares[job.grant_id].job_ms if job.grant_id in sight.shares else 0
    return (own + limits.running / 2) * job_ms / limits.most


def _reason(job: Queued, sight: Sight, limit: str) -> tuple[str, str]:
    """What would have to change first."""
    if sight.mode in (Endpoint.Mode.PAUSED, Endpoint.Mode.CLOSED):
        return "paused", f"The endpoint is paused. {sight.message}".rstrip()
    if limit:
        return "limit", limit
    if not sight.workers:
        return _no_worker(sight)
    if sight.max_running is not None and sight.running >= sight.max_running:
        return "limit", f"The endpoint runs {jobs_of(sight.max_running)} at a time."
    if job.losses:
        times = f"{job.losses} times" if job.losses > 1 else "once"
        return "retry", f"A worker lost it or gave it back {times}; it is at its old place in the queue."
    if sight.busy >= sight.workers:
        return "busy", f"All {sight.workers} workers are busy." if sight.workers > 1 else "The only worker is busy."
    return "next", "A worker is about to take it."


def _no_worker(sight: Sight) -> tuple[str, str]:
    if sight.starting:
        who = f"{sight.starting} workers have come but take" if sight.starting > 1 else "A worker has come but takes"
        return "worker_starting", f"{who} no jobs yet."
    if sight.last_seen_at is None:
        return "no_worker", "No worker has served this endpoint yet."
    ago_s = round((datetime.now(UTC) - sight.last_seen_at).total_seconds())
    return "no_worker", f"No worker is there; one was seen {ago_s} s ago."
