"""claim(): the one fair way out of an endpoint's queue (rules.md 4, 5)."""

import random
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from accounts import sql
from jobs.caps import GRANT_MAY, HANDS_OUT, IS_SPREAD, KEY_MAY, TENANT_MAY, limits_something
from jobs.depth import Holder, look, room
from jobs.states import HAS_DELIVERIES, News, State, announce_deliveries, delivery_sql, move_sql
from jobs.usage import FIRST_MS


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A job handed over: attempt `number` is open and the job is IN_PROGRESS."""

    job: UUID
    sync: bool
    number: int
    dialect: str
    input: bytes
    request_bucket: bytes | None
    inputs: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a claim gave. `full`: the holder had no room, so the queue was not looked at."""

    jobs: list[Claimed]
    full: bool = False


LOCK_WAIT_S = 1.0  # a claim holds its grant for a millisecond or so; this is for many at one grant


def claim(endpoint_id: int, holder: Holder, n: int) -> Taken:
    """Hand up to n jobs to the holder, each of the grant that has had the least GPU time for its weight.

    When others hold the locks of all grants that have work, it tries again rather than answer empty.
    """
    if holder.worker_id is not None:
        queued, has_room = look(endpoint_id, holder)
        if not queued or not has_room:
            return Taken(jobs=[], full=not has_room)
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        with transaction.atomic():
            most, warm = room(holder, n)
            if most <= 0:
                return Taken(jobs=[], full=True)
            jobs, contended = _claim(endpoint_id, holder, most, warm)
        if jobs or not contended or time.monotonic() > until:
            return Taken(jobs=jobs)
        time.sleep(random.uniform(0.001, 0.01))


def _claim(endpoint_id: int, holder: Holder, n: int, warm: bool) -> tuple[list[Claimed], bool]:
    """Up to n jobs; and whether there was work left whose grants others had locked."""
    jobs: list[Claimed] = []
    passed: list[int] = []  # grants found empty or full once they were locked, or whose limits others had locked
    held_up: list[float] = []  # whose turn it was, of the latter
    while len(jobs) < n:
        work, found = _pick(endpoint_id, passed, NORMAL)
        if found and warm:
            found = _pick_warm(endpoint_id, holder, passed) or found
        if not work and not held_up:
            work, found = _pick(endpoint_id, passed, ANY)
        if found is None:
            return jobs, work or bool(held_up)
        locked = _lock_limits(endpoint_id, found)
        if locked and (job := _take(found, holder, min([found.turn, *held_up]))):
            jobs.append(job)
            continue
        passed.append(found.grant)
        if not locked:
            held_up.append(found.turn)
    return jobs, False


@dataclass(frozen=True, kw_only=True)
class Found:
    """A grant, locked. `tenant_id`, `capped`: its tenant, its endpoint have limits to lock as well. `job`: which it is.

    `turn`: the clock of whose turn it is, who may be another that is locked or has no warm job: the common time goes no
    further than that, so who is passed loses nothing.
    """

    grant: int
    tenant_id: UUID | None
    capped: bool
    turn: float
    job: UUID | None = None


AHEAD = 4  # jobs of a key, and grants, among which a warm worker's job is looked for
MOST_SKIPPED = 3  # times that the job whose turn it is can be passed by a warmer one
NORMAL, ANY = 0, -32768  # the least priority looked for: jobs of negative priority come after everybody else's


def heads(most: int) -> str:
    """The first jobs of each of the tenant's keys that may run more; so a key at its cap costs nobody a walk past its
    queue."""
    head = f"""
    SELECT j.id, j.priority, j.skipped, j.model_hashes FROM jobs_job j
     WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE' AND j.priority >= %(least)s AND {{key}}
     ORDER BY j.api_key_id, j.priority DESC, j.id LIMIT {most}"""
    return f"""
    SELECT h.* FROM accounts_apikey k CROSS JOIN LATERAL ({head.format(key="j.api_key_id = k.id")}) h
     WHERE k.tenant_id = g.tenant_id AND {KEY_MAY}
    UNION ALL ({head.format(key="j.api_key_id IS NULL")})"""


HEADS = heads(AHEAD)

PLACE = "FROM jobs_grant g JOIN accounts_tenant t ON t.id = g.tenant_id JOIN jobs_endpoint e ON e.id = g.endpoint_id"
TO_LOCK = f"""g.id, CASE WHEN {limits_something("t")} OR EXISTS (
       SELECT 1 FROM accounts_apikey k WHERE k.tenant_id = t.id AND {limits_something("k")})
       OR (g.max_running IS NOT NULL AND {IS_SPREAD}) THEN t.id END AS tenant_id,
       e.max_running IS NOT NULL AS capped"""

# What runs for longer than it was charged for counts already: nobody fills the fleet with jobs that are longer than all
# before, until the first of them ends.
OVER = "greatest(0, extract(epoch FROM clock_timestamp() - a.started_at) * 1000 - a.charged_ms)"

# In the order of the clocks, each looked at only if none before it will do.
CANDIDATES = f"""
  FROM (SELECT g.id, g.clock + coalesce(over.ms, 0) / g.weight AS clock FROM jobs_grant g LEFT JOIN (
               SELECT a.grant_id, sum({OVER}) AS ms FROM jobs_attempt a
                WHERE a.released_at IS NULL AND a.endpoint_id = %(endpoint)s GROUP BY a.grant_id
               ) over ON over.grant_id = g.id
         WHERE g.endpoint_id = %(endpoint)s AND g.id <> ALL (%(passed)s) ORDER BY 2, 1 OFFSET 0) c
  CROSS JOIN LATERAL (SELECT 1 FROM jobs_job j WHERE j.grant_id = c.id AND j.state = 'IN_QUEUE' LIMIT 1) queued
  CROSS JOIN LATERAL (
       SELECT {TO_LOCK} {PLACE} WHERE g.id = c.id AND {HANDS_OUT} AND {GRANT_MAY} AND {TENANT_MAY} AND EXISTS ({HEADS})
       OFFSET 0) may"""

TURN = f"""
WITH first AS MATERIALIZED (SELECT may.*, c.clock {CANDIDATES} ORDER BY c.clock, c.id LIMIT 1), free AS (
     SELECT 1 FROM jobs_grant g JOIN first USING (id) FOR NO KEY UPDATE OF g SKIP LOCKED)
SELECT id, tenant_id, capped, clock, EXISTS (SELECT 1 FROM free) FROM first"""

FREE = f"""
SELECT may.* {CANDIDATES} JOIN jobs_grant g ON g.id = may.id
 ORDER BY c.clock, c.id LIMIT 1 FOR NO KEY UPDATE OF g SKIP LOCKED"""


def _pick(endpoint_id: int, passed: list[int], least: int) -> tuple[bool, Found | None]:
    """Whether it is anybody's turn; and the first whom nobody else has locked."""
    params = {"endpoint": endpoint_id, "passed": passed, "least": least}
    if (row := sql.first(TURN, params)) is None:
        return False, None
    *_, clock, free = row
    if (found := row[:3] if free else sql.first(FREE, params)) is None:
        return True, None
    return True, Found(grant=found[0], tenant_id=found[1], capped=found[2], turn=clock)


# Among the first jobs of the first grants, in place of the first of all: no job is passed more than MOST_SKIPPED times,
# no grant by more than that many of its jobs' time, and none of the tenant's jobs of a higher priority.
WARM = f"""
WITH near AS MATERIALIZED (
    SELECT g.id, g.tenant_id, c.clock, coalesce(g.job_ms, {FIRST_MS}) / g.weight AS step {CANDIDATES}
      JOIN jobs_grant g ON g.id = may.id ORDER BY c.clock, c.id LIMIT {AHEAD}
), heads AS (
    SELECT g.id AS grant_id, g.clock, g.step, h.id, h.priority, h.skipped, h.model_hashes,
           max(h.priority) OVER (PARTITION BY g.id) AS top
      FROM near g CROSS JOIN LATERAL (SELECT * FROM ({HEADS}) x ORDER BY priority DESC, id LIMIT {AHEAD}) h
), first AS (
    SELECT id, clock, step, skipped, model_hashes FROM heads ORDER BY clock, grant_id, priority DESC, id LIMIT 1
)
SELECT heads.grant_id, heads.id, first.id, first.clock FROM heads, first, jobs_worker w
 WHERE w.id = %(worker)s AND heads.model_hashes && w.model_hashes
   AND NOT coalesce(first.model_hashes && w.model_hashes, false) AND heads.priority = heads.top
   AND first.skipped < {MOST_SKIPPED} AND heads.clock <= first.clock + {MOST_SKIPPED} * first.step
 ORDER BY cardinality(ARRAY(SELECT unnest(heads.model_hashes) EXCEPT SELECT unnest(w.model_hashes))),
          heads.clock, heads.grant_id, heads.id LIMIT 1"""
LOCK_GRANT = f"""
SELECT {TO_LOCK} {PLACE} WHERE g.id = %(grant)s
   AND EXISTS (SELECT 1 FROM jobs_job WHERE id = %(job)s AND state = 'IN_QUEUE') FOR NO KEY UPDATE OF g SKIP LOCKED"""


# Under its lock, since others may pass it just now.
SKIP = f"""
UPDATE jobs_job SET skipped = skipped + 1 WHERE id = (
       SELECT id FROM jobs_job WHERE id = %s AND state = 'IN_QUEUE' AND skipped < {MOST_SKIPPED}
          FOR NO KEY UPDATE SKIP LOCKED)"""


def _pick_warm(endpoint_id: int, holder: Holder, passed: list[int]) -> Found | None:
    """A job that needs what the worker has loaded, a little before its turn; it counts as passing the first."""
    params = {"endpoint": endpoint_id, "worker": holder.worker_id, "passed": passed, "least": NORMAL}
    if (warm := sql.first(WARM, params)) is None:
        return None
    grant, job, first, clock = warm
    row = sql.first(LOCK_GRANT, {"grant": grant, "job": job})
    if row is None or not sql.run(SKIP, [first]):
        return None
    return Found(grant=grant, tenant_id=row[1], capped=row[2], job=job, turn=clock)


def _lock_limits(endpoint_id: int, found: Found) -> bool:
    """Lock what else has limits for this grant's jobs; False if someone else has. Waiting could be a deadlock: a claim
    of several jobs holds other tenants' rows by now."""
    lock = "SELECT 1 FROM {} WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED"
    if found.capped and not sql.first(lock.format("jobs_endpoint"), [endpoint_id]):
        return False
    return found.tenant_id is None or sql.first(lock.format("accounts_tenant"), [found.tenant_id]) is not None


# A statement of its own: only one that begins after the rows are locked counts what others committed before.
TAKE = f"""
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at), place AS MATERIALIZED (
    SELECT g.id, g.tenant_id, e.id AS endpoint_id, e.dialect, g.weight,
           greatest(coalesce(g.job_ms, common.job_ms, {FIRST_MS}), 1) AS charged_ms,
           over.ms / g.weight AS over, greatest(g.clock + over.ms / g.weight, common.turn) AS start
      {PLACE} CROSS JOIN LATERAL (
           SELECT max(o.turn) AS turn, avg(o.job_ms) AS job_ms FROM jobs_grant o WHERE o.endpoint_id = e.id) common
     CROSS JOIN LATERAL (SELECT coalesce(sum({OVER}), 0) FROM jobs_attempt a
                          WHERE a.grant_id = g.id AND a.released_at IS NULL) over (ms)
     WHERE g.id = %(grant)s AND {HANDS_OUT} AND {GRANT_MAY} AND {TENANT_MAY}
       AND (%(locked)s::bool OR g.max_running IS NULL OR NOT {IS_SPREAD})
), head AS (
    SELECT j.id FROM place g CROSS JOIN LATERAL ({HEADS}) h JOIN jobs_job j ON j.id = h.id
     WHERE j.state = 'IN_QUEUE' AND j.grant_id = g.id AND (%(job)s::uuid IS NULL OR j.id = %(job)s)
     ORDER BY h.priority DESC, h.id LIMIT 1 FOR NO KEY UPDATE OF j SKIP LOCKED
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
} RETURNING j.id, j.sync, j.attempt, j.tenant_id, j.retries, j.model_hashes
), attempt AS (
    INSERT INTO jobs_attempt (job_id, number, endpoint_id, grant_id, worker_id, worker_name, handed_at, started_at,
                              charged_ms)
    SELECT job.id, attempt, place.endpoint_id, place.id, %(worker)s, %(worker_name)s, now.at,
           CASE WHEN %(starts)s::bool THEN now.at END, place.charged_ms FROM job, now, place
), event AS (
    INSERT INTO jobs_event (job_id, attempt, kind, at, text)
    SELECT id, attempt, 'handed', now.at, 'to ' || %(worker_name)s::text FROM job, now
), share AS (
    UPDATE jobs_grant g SET turn = greatest(g.turn, least(place.start, %(turn)s::float8)),
           clock = place.start - place.over + place.charged_ms / place.weight
      FROM job, place WHERE g.id = place.id
), warm AS (
    UPDATE jobs_worker w SET model_hashes = job.model_hashes
      FROM job WHERE w.id = %(worker)s AND w.model_hashes IS DISTINCT FROM coalesce(job.model_hashes, w.model_hashes)
), begun AS (
    SELECT * FROM job WHERE %(starts)s::bool
), delivery AS ({delivery_sql(News.STARTED, "begun")})
SELECT job.id, job.sync, job.attempt, place.dialect, p.input, p.request_bucket, p.inputs, {HAS_DELIVERIES}
  FROM place, job JOIN jobs_payload p ON p.job_id = job.id"""


def _take(found: Found, holder: Holder, turn: float) -> Claimed | None:
    params: dict[str, Any] = {"grant": found.grant, "job": found.job, "turn": turn, "least": ANY}
    params["locked"] = found.tenant_id is not None  # else, if it got its first stand-in meanwhile, it is for the next
    params |= {"worker": holder.worker_id, "worker_name": holder.name, "starts": holder.starts}
    row = sql.first(TAKE, params)
    if row is None:
        return None
    job, sync, number, dialect, given, bucket, inputs, told = row
    announce_deliveries(told)
    return Claimed(
        job=job,
        sync=sync,
        number=number,
        dialect=dialect,
        input=bytes(given),
        request_bucket=None if bucket is None else bytes(bucket),
        inputs=None if inputs is None else bytes(inputs),
    )
