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

from accounts.errors import counted
from jobs.models import Endpoint
from jobs.sight import Limits, Line, Queued, Sight, line_up, see

log = logging.getLogger("hearth.waits")
T = TypeVar("T")
FRESH_S, RARELY = 1.0, 20.0  # a look is good for so long, and for so many times as long as it took
MOST_KEPT = 2000  # endpoints and grants whose looks are kept


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
    """`position` (1: next), `estimate_s` until it begins (None: nobody knows), `reason` and `text`.

    None: it could not be told, which must be nobody's trouble.
    """
    try:
        line = _kept(_lines, job.grant_id, line_up)
        return _told(job, _kept(_sights, line.endpoint_id, see), line)
    except Exception:
        log.exception("why job %s waits could not be told", job.id)
        return None


def _told(job: Queued, sight: Sight, line: Line) -> dict[str, Any]:
    ahead = _ahead(job, sight, line)
    limits = line.limits_of(job)
    reason, text = _reason(job, sight, next((limit.text for limit in limits if limit.text), ""))
    estimates: list[float | None] = [None]
    if sight.workers and reason != "paused" and not (sight.spent or sight.max_running == 0 or any(map(_never, limits))):
        estimates = [_shared_ms(sight, ahead), *(_own_ms(job, sight, line, of) for of in limits)]
    return {
        "position": 1 + sum(ahead.values()),
        "estimate_s": _longest_s(estimates),
        "reason": reason,
        "text": f"It was moved to other workers. {text}" if line.moved else text,
    }


def _never(limits: Limits) -> bool:
    """It will not begin as long as this limit is what it is."""
    return bool(limits.month) or limits.most == 0


def _longest_s(estimates: list[float | None]) -> int | None:
    known = [ms for ms in estimates if ms is not None]
    return ceil(max(known) / 1000) if len(known) == len(estimates) else None


def _ahead(job: Queued, sight: Sight, line: Line) -> dict[int, int]:
    """How many jobs of each grant go first, if nobody submits more and all take what such a job took before."""
    own, low = line.rank(job), job.priority < 0
    if (mine := sight.shares.get(job.grant_id)) is None:  # it was not there yet
        return {job.grant_id: own}
    begins = sight.first(mine, low) + (own - (mine.normal if low else 0)) * mine.step
    return {grant: sight.ahead(share, begins, low) for grant, share in sight.shares.items()} | {job.grant_id: own}


def _shared_ms(sight: Sight, ahead: dict[int, int]) -> float | None:
    """Until a worker is free for it. None: nobody knows what a job takes."""
    slots, free = sight.workers, sight.workers - sight.busy
    if sight.max_running is not None:
        slots, free = min(slots, sight.max_running), min(free, sight.max_running - sight.running)
    if sum(ahead.values()) < free:
        return 0
    if not sight.job_ms:
        return None
    queued = sum(n * sight.job_ms.get(grant, 0) for grant, n in ahead.items())
    running = sum(share.running * sight.job_ms[grant] / 2 for grant, share in sight.shares.items())
    return (queued + running) / slots


def _own_ms(job: Queued, sight: Sight, line: Line, limits: Limits) -> float | None:
    """Until its owner may run it. None: as above."""
    own = max(0, min(line.rank(job), limits.queued - 1))
    if limits.most is None or own < limits.most - limits.running:
        return 0
    job_ms = sight.job_ms.get(job.grant_id)
    return None if job_ms is None else (own + limits.running / 2) * job_ms / limits.most


def _reason(job: Queued, sight: Sight, limit: str) -> tuple[str, str]:
    """What would have to change first."""
    if sight.mode in (Endpoint.Mode.PAUSED, Endpoint.Mode.CLOSED):
        return "paused", f"The endpoint is paused. {sight.message}".rstrip()
    if limit:
        return "limit", limit
    if sight.spent:
        return "limit", "The endpoint has used its budget of this month (UTC)."
    if not sight.workers:
        return _no_worker(sight)
    if sight.max_running is not None and sight.running >= sight.max_running:
        return "limit", f"The endpoint runs {counted(sight.max_running, 'job')} at a time."
    if job.losses:
        times = f"{job.losses} times" if job.losses > 1 else "once"
        return "retry", f"A worker lost it or gave it back {times}; it is at its old place in the queue."
    if sight.busy >= sight.workers:
        return "busy", f"All {sight.workers} workers are busy." if sight.workers > 1 else "The only worker is busy."
    return "next", "A worker is about to take it."


def _no_worker(sight: Sight) -> tuple[str, str]:
    if sight.pushed:
        return "no_worker", "RunPod takes no jobs at the moment. It is tried again by itself."
    if sight.starting:
        who = f"{sight.starting} workers have come but take" if sight.starting > 1 else "A worker has come but takes"
        return "worker_starting", f"{who} no jobs yet."
    if sight.last_seen_at is None:
        return "no_worker", "No worker has served this endpoint yet."
    ago_s = round((datetime.now(UTC) - sight.last_seen_at).total_seconds())
    return "no_worker", f"No worker is there; one was seen {ago_s} s ago."
