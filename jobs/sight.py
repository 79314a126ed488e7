"""An endpoint and a grant's queue as they are seen, to tell why a job waits (waits.py)."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any
from uuid import UUID

from accounts import sql
from accounts.errors import counted
from jobs.caps import GRANT_RUNS, KEY_HAS_LEFT, KEY_RUNS, SPENT, TENANT_HAS_LEFT, TENANT_RUNS, limits_something
from jobs.usage import FIRST_MS

SAMPLES = 1000  # of a queue's jobs
ALIVE_S = 30


@dataclass(frozen=True)
class Queued:
    """A job in the queue. `losses`: attempts of it that came to nothing."""

    id: UUID
    priority: int
    grant_id: int
    api_key_id: int | None
    losses: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """A grant with queued or running jobs: where it stands in the endpoint's common time, in GPU ms for its weight.

    `low`: queued jobs of low priority, which go after all others of all.
    """

    clock: float
    step: float
    normal: int
    low: int
    running: int


@dataclass(frozen=True, kw_only=True)
class Sight:
    """An endpoint as it was seen. `workers`: who take jobs; `busy` of them hold one; `starting`: who only ping. Of one
    that is pushed to: how many it may be handed, none while it is in trouble.

    spent: its budget of the month is used up. job_ms: what a job of each grant takes; if none of its own was completed,
    what the others' take; none, if none was.
    """

    mode: str
    message: str
    max_running: int | None
    workers: int
    busy: int
    starting: int
    last_seen_at: datetime | None
    shares: dict[int, Share]
    job_ms: dict[int, float]
    pushed: bool = False
    spent: bool = False

    @property
    def running(self) -> int:
        return sum(share.running for share in self.shares.values())

    def first(self, share: Share, low: bool) -> float:
        """Where in the common time the grant's first job begins; `low`: its first of low priority."""
        if not low:
            return share.clock
        others = [one.clock + (one.normal - 1) * one.step for one in self.shares.values() if one.normal]
        return max([share.clock + share.normal * share.step, *others])

    def ahead(self, share: Share, begins: float, low: bool) -> int:
        """How many of the grant's jobs go before one that begins there in the common time."""
        turns = max(0, ceil((begins - self.first(share, low)) / share.step))
        return share.normal + min(share.low, turns) if low else min(share.normal, turns)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What holds for a tenant at all, on an endpoint, or for one of its keys. `month`: that it is used up, else "".

    At most so many jobs run at a time (None: any number), of which some do; `queued` jobs of the endpoint are under it.
    """

    most: int | None
    running: int
    queued: int
    cap: str
    month: str = ""

    @property
    def is_full(self) -> bool:
        return self.most is not None and self.running >= self.most

    @property
    def text(self) -> str:
        return self.month or (self.cap if self.is_full else "")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A grant's queue: the ranks of some of its jobs, in order; and the limits of its tenant, of it, and of keys.

    endpoint_id: where that queue is; `moved`: its jobs were addressed to another endpoint.
    """

    endpoint_id: int
    moved: bool
    places: list[tuple[int, UUID]]
    ranks: list[int]
    limits: list[Limits]
    of_keys: dict[int, Limits]

    def rank(self, job: Queued) -> int:
        """How many of the grant's jobs go first; between two samples, that of the first."""
        at = bisect_left(self.places, (-job.priority, job.id))
        if at < len(self.places) and self.places[at][1] == job.id:
            return self.ranks[at]
        return self.ranks[at - 1] + 1 if at else 0

    def limits_of(self, job: Queued) -> list[Limits]:
        key = self.of_keys.get(job.api_key_id) if job.api_key_id else None
        return [*self.limits, key] if key else self.limits


WORKERS_SEEN = f"""
       SELECT w.endpoint_id, s.at AS seen_at, h.holds, w.unhealthy = '' AND s.at > ago.at AS there,
              h.holds OR coalesce(w.take_at > ago.at, false) AS takes
         FROM jobs_worker w CROSS JOIN (SELECT clock_timestamp() - interval '{ALIVE_S} s') ago (at)
        CROSS JOIN LATERAL (SELECT greatest(w.take_at, w.stop_at, w.ping_at)) s (at)
        CROSS JOIN LATERAL (SELECT EXISTS (
              SELECT 1 FROM jobs_attempt a WHERE a.worker_id = w.id AND a.released_at IS NULL)) h (holds)"""

SEE_WORKERS = f"""
SELECT e.mode, e.message, e.max_running, {SPENT}, count(*) FILTER (WHERE there AND takes),
       count(*) FILTER (WHERE there AND holds), count(*) FILTER (WHERE there AND NOT takes), max(w.seen_at),
       e.backend <> 'fleet', EXISTS (
       SELECT 1 FROM jobs_runpodendpoint r WHERE r.endpoint_id = e.id AND (r.trouble <> '' OR r.throttled))
  FROM jobs_endpoint e LEFT JOIN ({WORKERS_SEEN}) w ON w.endpoint_id = e.id
 WHERE e.id = %(endpoint)s GROUP BY e.id"""

SEE_SHARES = """
SELECT g.id, greatest(g.clock, max(g.turn) OVER ()), coalesce(g.job_ms, avg(g.job_ms) OVER ()), g.weight,
       q.normal, q.low, (SELECT count(*) FROM jobs_attempt a WHERE a.grant_id = g.id AND a.released_at IS NULL)
  FROM jobs_grant g CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE j.priority >= 0), count(*) FILTER (WHERE j.priority < 0)
         FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE') q (normal, low)
 WHERE g.endpoint_id = %(endpoint)s"""


def see(endpoint_id: int) -> Sight:
    seen = sql.one(SEE_WORKERS, {"endpoint": endpoint_id})
    mode, message, max_running, spent, workers, busy, starting, last, pushed, troubled = seen
    grants = sql.rows(SEE_SHARES, {"endpoint": endpoint_id})
    shares = {
        grant: Share(clock=clock, step=_charge(job_ms) / weight, normal=normal, low=low, running=running)
        for grant, clock, job_ms, weight, normal, low, running in grants
        if normal or low or running
    }
    if pushed:
        workers, busy = 0 if troubled else max_running or 1, sum(share.running for share in shares.values())
    return Sight(
        mode=mode,
        message=message,
        max_running=max_running,
        workers=workers,
        busy=busy,
        starting=starting,
        last_seen_at=last,
        shares=shares,
        job_ms={grant: job_ms for grant, _, job_ms, *_ in grants if job_ms is not None},
        pushed=pushed,
        spent=spent,
    )


def _charge(job_ms: float | None) -> float:
    """What a hand-over moves the clock by."""
    return max(FIRST_MS if job_ms is None else job_ms, 1)


LINE = """
SELECT -priority, id, n - 1 FROM (
       SELECT priority, id, row_number() OVER (ORDER BY priority DESC, id) AS n, count(*) OVER () AS length
         FROM jobs_job WHERE grant_id = %(grant)s AND state = 'IN_QUEUE') q
 WHERE (n - 1) %% greatest(1, length / %(samples)s) = 0 ORDER BY n"""

LIMITS = f"""
SELECT g.endpoint_id, g.overflow_of_id IS NOT NULL,
       t.max_running, {TENANT_RUNS}, t.gpu_s_a_month, t.cost_a_month, {TENANT_HAS_LEFT}, g.max_running, {GRANT_RUNS}
  FROM jobs_grant g JOIN accounts_tenant t ON t.id = g.tenant_id WHERE g.id = %(grant)s"""
KEY_LIMITS = f"""
SELECT k.id, (SELECT count(*) FROM jobs_job j WHERE j.grant_id = g.id AND j.api_key_id = k.id AND j.state = 'IN_QUEUE'),
       k.max_running, {KEY_RUNS}, k.gpu_s_a_month, k.cost_a_month, {KEY_HAS_LEFT}
  FROM accounts_apikey k JOIN jobs_grant g USING (tenant_id) WHERE g.id = %(grant)s AND {limits_something("k")}"""


def line_up(grant_id: int) -> Line:
    found = sql.rows(LINE, {"grant": grant_id, "samples": SAMPLES})
    queued = found[-1][2] + 1 if found else 0
    endpoint_id, moved, *tenants, cap, running = sql.one(LIMITS, {"grant": grant_id})
    here = "" if cap is None else f"You run {counted(cap, 'job')} at a time on this endpoint."
    return Line(
        endpoint_id=endpoint_id,
        moved=moved,
        places=[(priority, job) for priority, job, _ in found],
        ranks=[rank for _, _, rank in found],
        limits=[
            _limits("Your account", queued, *tenants),
            Limits(most=cap, running=running, queued=queued, cap=here),
        ],
        of_keys={key: _limits("The API key", *limits) for key, *limits in sql.rows(KEY_LIMITS, {"grant": grant_id})},
    )


def _limits(
    whose: str, queued: int, cap: int | None, running: int, gpu_s: int | None, cost: Any, has_left: bool
) -> Limits:
    most = [counted(gpu_s, "GPU-second")] if gpu_s is not None else []
    most += [f"cost of {cost}"] if cost is not None else []
    month = "" if has_left else f"{whose} has used its {' or '.join(most)} of this month (UTC)."
    here = "" if cap is None else f"{whose} runs {counted(cap, 'job')} at a time."
    return Limits(most=cap, running=running, queued=queued, cap=here, month=month)
