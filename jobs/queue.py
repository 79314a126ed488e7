"""claim(): the one fair way out of an endpoint's queue (rules.md 4, 5)."""

import random
import time
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from accounts import sql
from jobs.states import State, move_sql


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A job handed over: attempt `number` is open and the job is IN_PROGRESS."""

    job: UUID
    sync: bool
    number: int
    dialect: str
    input: bytes
    request_bucket: bytes | None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who claims: a worker of a fleet, or a backend itself. `starts`: it counts as started at the hand-over.

    prefetch: how many attempts that have not started it may hold; 0: one, when it has let go of all else; None: it
    keeps its own count.
    """

    name: str
    worker_id: int | None = None
    starts: bool = True
    prefetch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a claim gave. `full`: the holder had no room, so the queue was not looked at."""

    jobs: list[Claimed]
    full: bool = False


LOCK_WAIT_S = 1.0  # a claim holds its grant for a millisecond or so; this is for many at one grant


def claim(endpoint_id: int, holder: Holder, n: int) -> Taken:
    """Hand up to n jobs to the holder: of the grant with the least running for its weight, by priority and age.

    When others hold the locks of all grants that have work, it tries again rather than answer empty.
    """
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        with transaction.atomic():
            room = _room(holder, n)
            if room <= 0:
                return Taken(jobs=[], full=True)
            jobs, contended = _claim(endpoint_id, holder, room)
        if jobs or not contended or time.monotonic() > until:
            return Taken(jobs=jobs)
        time.sleep(random.uniform(0.001, 0.01))


def _claim(endpoint_id: int, holder: Holder, n: int) -> tuple[list[Claimed], bool]:
    """Up to n jobs; and whether there was work left whose grants others had locked."""
    jobs: list[Claimed] = []
    passed: list[int] = []  # grants found empty or full once they were locked
    while len(jobs) < n:
        grant = _pick_grant(endpoint_id, passed)
        if grant is None:
            return jobs, _has_work(endpoint_id, passed)
        if job := _take(grant, holder):
            jobs.append(job)
        else:
            passed.append(grant)
    return jobs, False


def _room(holder: Holder, n: int) -> int:
    """How many of n it may have now, under the worker's row's lock: two polls of it cannot both find room."""
    if holder.prefetch is None:
        return n
    sql.first("SELECT 1 FROM jobs_worker WHERE id = %s FOR NO KEY UPDATE", [holder.worker_id])
    held, unstarted = sql.one(
        "SELECT count(*), count(*) FILTER (WHERE ended_at IS NULL AND started_at IS NULL) FROM jobs_attempt"
        " WHERE worker_id = %s AND released_at IS NULL",
        [holder.worker_id],
    )
    room: int = holder.prefetch - unstarted if holder.prefetch else 1 - held
    return min(n, room)


RUNNING = "SELECT count(*) FROM jobs_attempt a WHERE a.grant_id = {grant} AND a.released_at IS NULL"

CANDIDATES = f"""
  FROM jobs_grant g
  CROSS JOIN LATERAL ({RUNNING.format(grant="g.id")}) r (running)
  CROSS JOIN LATERAL (SELECT j.priority, j.id FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE'
                       ORDER BY j.priority DESC, j.id LIMIT 1) head
 WHERE g.endpoint_id = %(endpoint)s AND g.id <> ALL (%(passed)s)
   AND (g.max_running IS NULL OR r.running < g.max_running)"""

PICK_GRANT = f"""
SELECT g.id {CANDIDATES} ORDER BY r.running / g.weight, head.priority DESC, head.id
 LIMIT 1 FOR NO KEY UPDATE OF g SKIP LOCKED"""

# A statement of its own: only one that begins after the grant is locked counts what others committed before.
TAKE = f"""
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at), head AS (
    SELECT j.id FROM jobs_job j JOIN jobs_grant g ON g.id = j.grant_id
     WHERE j.grant_id = %(grant)s AND j.state = 'IN_QUEUE'
       AND (g.max_running IS NULL OR ({RUNNING.format(grant="%(grant)s")}) < g.max_running)
     ORDER BY j.priority DESC, j.id LIMIT 1 FOR NO KEY UPDATE OF j SKIP LOCKED
), job AS ({
    move_sql(
        State.IN_PROGRESS,
        "attempt = j.attempt + 1, worker_name = %(worker_name)s,"
        " started_at = CASE WHEN %(starts)s::bool THEN (SELECT at FROM now) END,"
        " delay_ms = CASE WHEN %(starts)s::bool"
        " THEN (extract(epoch FROM (SELECT at FROM now) - j.queued_at) * 1000)::bigint END,"
        " deadline_at = CASE WHEN %(starts)s::bool"
        " THEN (SELECT at FROM now) + j.execution_timeout_ms * interval '1 ms' END",
        "j.id = (SELECT id FROM head)",
    )
} RETURNING j.id, j.sync, j.attempt, j.endpoint_id, j.grant_id
), attempt AS (
    INSERT INTO jobs_attempt (job_id, number, endpoint_id, grant_id, worker_id, worker_name, handed_at, started_at)
    SELECT id, attempt, endpoint_id, grant_id, %(worker)s, %(worker_name)s, now.at,
           CASE WHEN %(starts)s::bool THEN now.at END FROM job, now
), event AS (
    INSERT INTO jobs_event (job_id, attempt, kind, at, text)
    SELECT id, attempt, 'handed', now.at, 'to ' || %(worker_name)s::text FROM job, now
)
SELECT job.id, job.sync, job.attempt, e.dialect, p.input, p.request_bucket
  FROM job JOIN jobs_payload p ON p.job_id = job.id JOIN jobs_endpoint e ON e.id = job.endpoint_id"""


def _pick_grant(endpoint_id: int, passed: list[int]) -> int | None:
    row = sql.first(PICK_GRANT, {"endpoint": endpoint_id, "passed": passed})
    return row[0] if row else None


def _has_work(endpoint_id: int, passed: list[int]) -> bool:
    return sql.first(f"SELECT 1 {CANDIDATES} LIMIT 1", {"endpoint": endpoint_id, "passed": passed}) is not None


def _take(grant: int, holder: Holder) -> Claimed | None:
    params = {"grant": grant, "worker": holder.worker_id, "worker_name": holder.name, "starts": holder.starts}
    row = sql.first(TAKE, params)
    if row is None:
        return None
    job, sync, number, dialect, given, bucket = row
    return Claimed(
        job=job,
        sync=sync,
        number=number,
        dialect=dialect,
        input=bytes(given),
        request_bucket=None if bucket is None else bytes(bucket),
    )
