"""What came of jobs, minute by minute, rolled up to hours and days: added to at each end, kept by the sweeper.

Times are counted in buckets whose bounds grow by the fourth root of ten, so that they can be summed: a quantile that is
told from them is right to about a tenth.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from itertools import accumulate
from typing import Any
from uuid import UUID

from accounts import sql

FRESH, MINUTE, HOUR, DAY = "fresh", "minute", "hour", "day"  # jobs.models.Figures.Span, which imports this
BOUNDS_MS = tuple(round(10 ** (1 + n / 4)) for n in range(29))  # 10 ms to 28 h
BUCKETS = len(BOUNDS_MS) + 1
COUNTS = ("completed", "failed", "cancelled", "timed_out", "gpu_ms")
TIMES = ("delays", "executions")
LOADS = ("queued", "running")
COLUMNS = (*COUNTS, *TIMES, *LOADS)
MOST_QUEUED = 100_000  # of a grant, as far as they are counted
BATCH = 2_000
ROUNDS = 50  # of batches, in one sweep
KEEP_DAYS = 400


def _each(text: str) -> str:
    return f"ARRAY[{', '.join(text.format(n=n) for n in range(1, BUCKETS + 1))}]::bigint[]"


def _together(loads: str) -> str:
    """Of rows: the sums of what is counted, and of loads the sum or max."""
    sums = {name: f"sum({name})" for name in COUNTS}
    sums |= {name: _each(f"sum({name}[{{n}}])") for name in TIMES}
    sums |= {name: f"{loads}({name})" for name in LOADS}
    return ", ".join(f"{text} AS {name}" for name, text in sums.items())


_BOUNDS = f"'{{{', '.join(map(str, BOUNDS_MS))}}}'::bigint[]"
INTO = f"INSERT INTO jobs_figures AS f (tenant_id, endpoint_id, span, at, {', '.join(COLUMNS)})"
_ADDED = [f"{name} = f.{name} + excluded.{name}" for name in COUNTS]
_ADDED += [f"{name} = {_each(f'f.{name}[{{n}}] + excluded.{name}[{{n}}]')}" for name in TIMES]
_ADDED += [f"{name} = greatest(f.{name}, excluded.{name})" for name in LOADS]
ONTO = f"ON CONFLICT (tenant_id, at, endpoint_id, span) DO UPDATE SET {', '.join(_ADDED)}"

# Of the rows of usage.py's CTE `used`; %(ended)s is the state in which its jobs ended now. A transaction that settles
# twice adds to one row, whichever minute it is by then, also where there is nothing to add: else it would hold
# the usage and wait for the figures of another, which holds those and waits for the usage.
ADD = f"""
{INTO}
SELECT tenant_id, endpoint_id, 'fresh', date_trunc('minute', transaction_timestamp(), 'UTC'),
       {", ".join(f"sum(ended) * (%(ended)s = '{name.upper()}')::int" for name in COUNTS[:-1])}, sum(gpu_ms),
       {_each("count(*) FILTER (WHERE delay = {n} - 1)")}, {_each("count(*) FILTER (WHERE execution = {n} - 1)")},
       NULL, NULL
  FROM (SELECT *, width_bucket(delay_ms, {_BOUNDS}) AS delay, width_bucket(execution_ms, {_BOUNDS}) AS execution
          FROM used) u
 GROUP BY tenant_id, endpoint_id ORDER BY tenant_id, endpoint_id
{ONTO}"""

TAKE = """
WITH gone AS (
    DELETE FROM jobs_figures WHERE id = ANY (ARRAY(
           SELECT id FROM jobs_figures WHERE span = %(of)s AND at < (SELECT clock_timestamp() - %(age)s::interval)
            ORDER BY at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)) RETURNING *
)"""


def _onto(whose: str, to: str) -> str:
    return f"""{INTO}
    SELECT {whose}, endpoint_id, '{to}', date_trunc('{to}', at, 'UTC'), {_together("max")}
      FROM gone GROUP BY 1, 2, 4 ORDER BY 1, 4, 2
    {ONTO}"""


SETTLE_FRESH = f"""{TAKE}, of_all AS ({_onto("NULL::uuid", MINUTE)}), of_tenants AS (
    {_onto("tenant_id", MINUTE)}
)
SELECT count(*) FROM gone"""


def _roll(to: str) -> str:
    return f"{TAKE}, rolled AS ({_onto('tenant_id', to)}) SELECT count(*) FROM gone"


# What is rolled up, once it is so old, by which statement. The chart of an hour is of minutes, that of a day of hours.
ROLLS = (
    (FRESH, "1 minute", SETTLE_FRESH),
    (MINUTE, "2 hours", _roll(HOUR)),
    (HOUR, "2 days", _roll(DAY)),
    (DAY, f"{KEEP_DAYS} days", f"{TAKE} SELECT count(*) FROM gone"),
)


def roll_up() -> int:
    """Move what is old enough to the next longer span, batch by batch: it is in the one or the other."""
    return sum(_rolled({"of": span, "age": age, "batch": BATCH}, move) for span, age, move in ROLLS)


def _rolled(params: dict[str, Any], move: str) -> int:
    moved = 0
    for _ in range(ROUNDS):
        moved += (found := int(sql.one(move, params)[0]))
        if found < BATCH:
            break
    return moved


# All endpoints have a row each time, so that who draws it can tell an empty queue from a sweeper that was away.
LOOK = f"""
WITH look AS (SELECT date_trunc('minute', clock_timestamp(), 'UTC') AS at), load AS (
    SELECT g.tenant_id, g.endpoint_id, sum(q.n) AS queued, sum(r.n) AS running
      FROM jobs_grant g CROSS JOIN LATERAL (
           SELECT count(*) FROM (SELECT 1 FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE'
                                  LIMIT {MOST_QUEUED}) few) q (n)
     CROSS JOIN LATERAL (
           SELECT count(*) FROM jobs_attempt a WHERE a.grant_id = g.id AND a.released_at IS NULL) r (n)
     GROUP BY g.tenant_id, g.endpoint_id
)
{INTO}
SELECT tenant_id, endpoint_id, 'minute', look.at, 0, 0, 0, 0, 0, {_each("0")}, {_each("0")}, queued, running
  FROM look, (SELECT * FROM load WHERE queued + running > 0
              UNION ALL
              SELECT NULL, e.id, coalesce(sum(queued), 0), coalesce(sum(running), 0)
                FROM jobs_endpoint e LEFT JOIN load ON load.endpoint_id = e.id GROUP BY e.id) l
 ORDER BY 1, 2
{ONTO}"""


def note_load() -> int:
    """How many jobs are queued and running now, of each tenant at each endpoint."""
    sql.run(LOOK)
    return 0  # there was nothing to be done


@dataclass(frozen=True)
class Sum:
    """Figures of some time together. queued, running: None where nobody looked."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    gpu_ms: int = 0
    delays: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    executions: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    queued: int | None = None
    running: int | None = None

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled + self.timed_out

    @property
    def failing(self) -> float | None:
        """The part of the jobs that failed or timed out of those that were not cancelled. None: there are none."""
        counted = self.ended - self.cancelled
        return (self.failed + self.timed_out) / counted if counted else None


def quantile_ms(counts: Sequence[int], q: float) -> float | None:
    """The time below which that part of the jobs is, evenly spread within its bucket. None: there are none. What is
    beyond the last bound counts as at it."""
    rank = q * sum(counts)
    if rank <= 0:
        return None
    below = list(accumulate(counts))
    bucket = next(n for n, total in enumerate(below) if total >= rank)
    low, high = (0, *BOUNDS_MS, BOUNDS_MS[-1])[bucket : bucket + 2]
    return low + (high - low) * (1 - (below[bucket] - rank) / counts[bucket])


def bucket_of(ms: float) -> int:
    """As width_bucket."""
    return bisect_right(BOUNDS_MS, ms)


class Window(Enum):
    """How far back, and in which steps: unit, number of them."""

    HOUR = ("1h", "minute", 60)
    DAY = ("24h", "hour", 24)
    MONTH = ("30d", "day", 30)

    def __init__(self, word: str, unit: str, steps: int) -> None:
        self.word, self.unit, self.steps = word, unit, steps


@dataclass(frozen=True)
class Course:
    """`steps`: of each of the window's steps, the oldest first; None: nothing is known of it."""

    steps: list[tuple[datetime, Sum | None]]
    endpoints: dict[int, Sum]


# a subquery, so that an index may be used
SINCE = "(SELECT date_trunc(%(unit)s, clock_timestamp(), 'UTC') - (%(steps)s - 1) * ('1 ' || %(unit)s)::interval)"
OF_ALL = f"""SELECT * FROM jobs_figures WHERE tenant_id IS NULL AND at >= {SINCE}
    UNION ALL SELECT * FROM jobs_figures WHERE span = 'fresh' AND at >= {SINCE}"""
OF_TENANTS = f"SELECT * FROM jobs_figures WHERE tenant_id = ANY (%(tenants)s::uuid[]) AND at >= {SINCE}"

# Of a step of several looks the fullest counts, for each endpoint; those of several endpoints are added up.
COURSE = """
WITH part AS (
    SELECT endpoint_id, date_trunc(%(unit)s, at, 'UTC') AS step, {most} FROM ({which}) f GROUP BY tenant_id, 1, 2
)
SELECT NULL, s.at, p.* FROM generate_series({since}, clock_timestamp(), ('1 ' || %(unit)s)::interval) s (at)
  LEFT JOIN (SELECT step, {sums} FROM part GROUP BY step) p ON p.step = s.at
UNION ALL
SELECT endpoint_id, NULL, NULL, {sums} FROM part GROUP BY endpoint_id
 ORDER BY 2"""


def course(window: Window, tenants: Sequence[UUID] | None) -> Course:
    """Of these tenants' jobs; None: of all."""
    which = OF_ALL if tenants is None else OF_TENANTS
    params = {"unit": window.unit, "steps": window.steps, "tenants": list(tenants or ())}
    text = COURSE.format(which=which, since=SINCE, most=_together("max"), sums=_together("sum"))
    steps: list[tuple[datetime, Sum | None]] = []
    endpoints = {}
    for endpoint_id, at, step, *columns in sql.rows(text, params):
        if endpoint_id is not None:
            endpoints[endpoint_id] = _sum(columns)
        else:
            steps.append((at, None if step is None else _sum(columns)))
    return Course(steps, endpoints)


def _sum(columns: Sequence[Any]) -> Sum:
    """Sums of bigint are numeric."""
    completed, failed, cancelled, timed_out, gpu_ms = map(int, columns[:5])
    delays, executions, *loads = columns[5:]
    queued, running = (None if load is None else int(load) for load in loads)
    return Sum(completed, failed, cancelled, timed_out, gpu_ms, delays, executions, queued, running)


# Of the spans that a window has rows of. Each end is in one row of its tenant's.
GPU = f"""
SELECT t.id, t.name, sum(f.gpu_ms) FROM jobs_figures f JOIN accounts_tenant t ON t.id = f.tenant_id
 WHERE f.span IN ('fresh', 'minute', 'hour', 'day') AND f.at >= {SINCE} AND f.gpu_ms > 0
 GROUP BY t.id ORDER BY 3 DESC, 2 LIMIT %(most)s"""


def most_gpu(window: Window, most: int) -> list[tuple[UUID, str, int]]:
    """(tenant, its name, GPU ms) of those who used most."""
    params = {"unit": window.unit, "steps": window.steps, "most": most}
    return [(id, name, int(ms)) for id, name, ms in sql.rows(GPU, params)]
