"""Why a queued job waits: its position, an estimate and the reason, for its status and the admin.

Told from what this process looked up about a second ago, and only while somebody asks: an endpoint (`Sight`) and a
grant's queue (`Line`). The larger the queue, the longer the look and the rarer: it takes a twentieth of a core at most.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Generic, TypeVar
from uuid import UUID

from accounts import sql
from jobs.caps import GRANT_MAY, KEY_HAS_LEFT, KEY_MAY, KEY_RUNS_LESS, TENANT_HAS_LEFT, TENANT_RUNS_LESS
from jobs.models import Endpoint

log = logging.getLogger("hearth.waits")
T = TypeVar("T")
FRESH_S, RARELY = 1.0, 20.0  # a look is good for so long, and for so many times as long as it took
MOST_KEPT = 2000  # endpoints and grants whose looks are kept
SAMPLES = 1000  # of a queue's jobs
ALIVE_S = 30


@dataclass(frozen=True)
class Queued:
    """A job in the queue. `losses`: attempts of it that came to nothing."""

    id: UUID
    priority: int
    endpoint_id: int
    grant_id: int
    api_key_id: int | None
    losses: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """A grant with queued or running jobs: where it stands in the endpoint's common time, in GPU ms for its weight."""

    clock: float
    step: float
    job_ms: float
    queued: int
    running: int


@dataclass(frozen=True, kw_only=True)
class Sight:
    """An endpoint as it was seen. `workers`: who take jobs; `busy` of them hold one; `starting`: who only ping."""

    mode: str
    message: str
    max_running: int | None
    workers: int
    busy: int
    starting: int
    last_seen_at: datetime | None
    shares: dict[int, Share]

    @property
    def running(self) -> int:
        return sum(share.running for share in self.shares.values())


@dataclass(frozen=True, kw_only=True)
class Limit:
    text: str
    monthly: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A grant's queue: the ranks of some of its jobs, in order; and the limits that it or a key of its tenant is at."""

    places: list[tuple[int, UUID]]
    ranks: list[int]
    limit: Limit | None
    key_limits: dict[int, Limit | None]

    def rank(self, job: Queued) -> int:
        """How many of the grant's jobs go first; between two samples, that of the first."""
        at = bisect_left(self.places, (-job.priority, job.id))
        if at < len(self.places) and self.places[at][1] == job.id:
            return self.ranks[at]
        return self.ranks[at - 1] + 1 if at else 0


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
        return _told(job, _kept(_sights, job.endpoint_id, _see), _kept(_lines, job.grant_id, _line_up))
    except Exception:
        log.exception("why job %s waits could not be told", job.id)
        return None


def _told(job: Queued, sight: Sight, line: Line) -> dict[str, Any]:
    ahead = _ahead(job, sight, line)
    limit = line.limit or (job.api_key_id and line.key_limits.get(job.api_key_id)) or None
    reason, text = _reason(job, sight, limit)
    unknown = reason in UNKNOWN or (limit is not None and limit.monthly)
    estimate = None if unknown else _estimate_s(sight, ahead)
    return {"position": 1 + sum(ahead.values()), "estimate_s": estimate, "reason": reason, "text": text}


def _ahead(job: Queued, sight: Sight, line: Line) -> dict[int, int]:
    """How many jobs of each grant go first, if nobody submits more and all take what such a job took before."""
    own = line.rank(job)
    mine = sight.shares.get(job.grant_id)
    begins = mine.clock + own * mine.step if mine else min((share.clock for share in sight.shares.values()), default=0)
    first = {
        grant: share.queued
        if job.priority < 0
        else min(share.queued, max(0, ceil((begins - share.clock) / share.step)))
        for grant, share in sight.shares.items()
    }
    return first | {job.grant_id: own}


def _estimate_s(sight: Sight, ahead: dict[int, int]) -> int:
    slots = max(1, min(sight.workers, sight.max_running or sight.workers))
    if sum(ahead.values()) < slots - sight.busy:
        return 0
    queued = sum(n * sight.shares[grant].job_ms for grant, n in ahead.items() if grant in sight.shares)
    running = sum(share.running * share.job_ms / 2 for share in sight.shares.values())
    return round((queued + running) / slots / 1000)


UNKNOWN = ("paused", "no_worker", "worker_starting")  # when it will begin


def _reason(job: Queued, sight: Sight, limit: Limit | None) -> tuple[str, str]:
    """What would have to change first."""
    if sight.mode in (Endpoint.Mode.PAUSED, Endpoint.Mode.CLOSED):
        return "paused", f"The endpoint is paused. {sight.message}".rstrip()
    if limit:
        return "limit", limit.text
    if not sight.workers:
        return _no_worker(sight)
    if sight.max_running is not None and sight.running >= sight.max_running:
        return "limit", f"The endpoint runs {sight.max_running} jobs at a time."
    if job.losses:
        return "retry", f"{job.losses} attempts of it came to nothing; it is at its old place in the queue."
    if sight.busy >= sight.workers:
        return "busy", f"All {sight.workers} workers are busy." if sight.workers > 1 else "The only worker is busy."
    return "next", "A worker is about to take it."


def _no_worker(sight: Sight) -> tuple[str, str]:
    if sight.starting:
        return "worker_starting", f"{sight.starting} workers have come but take no jobs yet."
    if sight.last_seen_at is None:
        return "no_worker", "No worker has served this endpoint yet."
    ago_s = round((datetime.now(UTC) - sight.last_seen_at).total_seconds())
    return "no_worker", f"No worker is there; one was seen {ago_s} s ago."


SEE_WORKERS = f"""
SELECT e.mode, e.message, e.max_running, count(*) FILTER (WHERE there AND takes),
       count(*) FILTER (WHERE there AND holds), count(*) FILTER (WHERE there AND NOT takes), max(w.seen_at)
  FROM jobs_endpoint e LEFT JOIN (
       SELECT w.endpoint_id, s.at AS seen_at, h.holds, w.unhealthy = '' AND s.at > ago.at AS there,
              h.holds OR coalesce(w.take_at > ago.at, false) AS takes
         FROM jobs_worker w CROSS JOIN (SELECT clock_timestamp() - interval '{ALIVE_S} s') ago (at)
        CROSS JOIN LATERAL (SELECT greatest(w.take_at, w.stop_at, w.ping_at)) s (at)
        CROSS JOIN LATERAL (SELECT EXISTS (
              SELECT 1 FROM jobs_attempt a WHERE a.worker_id = w.id AND a.released_at IS NULL)) h (holds)
       ) w ON w.endpoint_id = e.id
 WHERE e.id = %(endpoint)s GROUP BY e.id"""

SEE_SHARES = """
SELECT g.id, greatest(g.clock, max(g.turn) OVER ()), greatest(g.job_ms, 1), g.weight,
       (SELECT count(*) FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE'),
       (SELECT count(*) FROM jobs_attempt a WHERE a.grant_id = g.id AND a.released_at IS NULL)
  FROM jobs_grant g WHERE g.endpoint_id = %(endpoint)s"""


def _see(endpoint_id: int) -> Sight:
    mode, message, max_running, workers, busy, starting, last = sql.one(SEE_WORKERS, {"endpoint": endpoint_id})
    shares = {
        grant: Share(clock=clock, step=job_ms / weight, job_ms=job_ms, queued=queued, running=running)
        for grant, clock, job_ms, weight, queued, running in sql.rows(SEE_SHARES, {"endpoint": endpoint_id})
        if queued or running
    }
    return Sight(
        mode=mode,
        message=message,
        max_running=max_running,
        workers=workers,
        busy=busy,
        starting=starting,
        last_seen_at=last,
        shares=shares,
    )


LINE = """
SELECT -priority, id, n - 1 FROM (
       SELECT priority, id, row_number() OVER (ORDER BY priority DESC, id) AS n, count(*) OVER () AS length
         FROM jobs_job WHERE grant_id = %(grant)s AND state = 'IN_QUEUE') q
 WHERE (n - 1) %% greatest(1, length / %(samples)s) = 0 ORDER BY n"""

LIMITS = f"""
SELECT g.max_running, {GRANT_MAY}, t.max_running, {TENANT_RUNS_LESS}, t.gpu_s_a_month, t.cost_a_month, {TENANT_HAS_LEFT}
  FROM jobs_grant g JOIN accounts_tenant t ON t.id = g.tenant_id WHERE g.id = %(grant)s"""
KEY_LIMITS = f"""
SELECT k.id, k.max_running, {KEY_RUNS_LESS}, k.gpu_s_a_month, k.cost_a_month, {KEY_HAS_LEFT}
  FROM accounts_apikey k JOIN jobs_grant g USING (tenant_id) WHERE g.id = %(grant)s AND NOT {KEY_MAY}"""


def _line_up(grant_id: int) -> Line:
    found = sql.rows(LINE, {"grant": grant_id, "samples": SAMPLES})
    grant_cap, grant_may, *tenants = sql.one(LIMITS, {"grant": grant_id})
    limit = _limit("Your account", *tenants)
    if limit is None and not grant_may:
        limit = Limit(text=f"You run {grant_cap} jobs at a time on this endpoint.")
    keys = {key: _limit("The API key", *limits) for key, *limits in sql.rows(KEY_LIMITS, {"grant": grant_id})}
    return Line(
        places=[(priority, job) for priority, job, _ in found],
        ranks=[rank for _, _, rank in found],
        limit=limit,
        key_limits=keys,
    )


def _limit(whose: str, cap: int | None, runs_less: bool, gpu_s: int | None, cost: Any, has_left: bool) -> Limit | None:
    if not has_left:
        month = [f"{gpu_s} GPU-seconds"] if gpu_s is not None else []
        month += [f"cost of {cost}"] if cost is not None else []
        text = f"{whose} has used its {' or '.join(month)} of this month (UTC)."
        return Limit(text=text, monthly=True)
    return None if runs_less else Limit(text=f"{whose} runs {cap} jobs at a time.")
