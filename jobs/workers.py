"""What Hearth knows of a worker by its polls and pings, and what it tells it: take this, stop that (rules.md 1–4)."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from django.db import transaction

from accounts import access, sql
from accounts.keys import GivenKey
from jobs.depth import Holder
from jobs.handover import bucket_along
from jobs.ids import AttemptId, attempt_id
from jobs.live import announce, endpoint_key, worker_key
from jobs.loss import lose
from jobs.models import Endpoint
from jobs.queue import Taken, claim
from jobs.usage import settle

SETTLE_S = 2  # what a worker said within this time of a hand-over may be older than it


@dataclass(frozen=True, kw_only=True)
class Poller:
    """A worker whose key was good, as its poll goes on. `holds`: it had attempts to let go of when it began."""

    endpoint_id: int
    worker_id: int
    name: str
    dialect: str
    prefetch: int
    holds: bool

    @property
    def holder(self) -> Holder:
        own = self.dialect == Endpoint.Dialect.HEARTH
        return Holder(name=self.name, worker_id=self.worker_id, starts=not own, prefetch=self.prefetch if own else None)


def printable(text: str, most: int) -> str:
    """A worker's own words as the database takes them: no NUL, one line, not too many."""
    return "".join(char if char.isprintable() else " " for char in text[:most])


# Its commit does not wait for the disk: what a crash of PostgreSQL may lose of it is when a worker polled.
SEEN = f"""
WITH {access.WORKER_KEY}, seen AS (
    INSERT INTO jobs_worker (endpoint_id, name, version, first_seen_at, {{at}}, stops_in_job, hung_up, unhealthy)
    SELECT endpoint_id, %(name)s, %(version)s, clock_timestamp(), clock_timestamp(), false, false, ''
      FROM caller, set_config('synchronous_commit', 'off', true)
        ON CONFLICT (endpoint_id, name) DO UPDATE
       SET {{at}} = clock_timestamp(), unhealthy = '', hung_up = jobs_worker.hung_up AND %(pinged)s,
           version = CASE WHEN excluded.version <> '' THEN excluded.version ELSE jobs_worker.version END
    RETURNING id
)
SELECT {access.WORKER_KEY_COLUMNS}, seen.id, e.dialect, e.prefetch,
       EXISTS (SELECT 1 FROM jobs_attempt a WHERE a.worker_id = seen.id AND a.released_at IS NULL)
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN seen ON true
  LEFT JOIN jobs_endpoint e ON e.id = key.endpoint_id"""


def seen(key: GivenKey, endpoint: str, name: str, at: str, version: str = "") -> Poller:
    """Note a take (`take_at`), stop (`stop_at`) or ping (`ping_at`) of this worker. Raises Refused for a wrong key."""
    params = access.worker_key_params(key, endpoint) | {"name": name, "version": printable(version, 50)}
    params["pinged"] = at == "ping_at"
    row = sql.one(SEEN.format(at=at), params)
    endpoint_id = access.check_worker(key, endpoint, row)
    worker_id, dialect, prefetch, holds = row[access.WORKER_KEY_WIDTH :]
    return Poller(
        endpoint_id=endpoint_id, worker_id=worker_id, name=name, dialect=dialect, prefetch=prefetch, holds=holds
    )


def poll(key: GivenKey, endpoint: str, name: str, n: int, *, idle: bool) -> tuple[Poller, Taken]:
    """A job-take poll begins, and what there is for it at once."""
    poller = begin_take(key, endpoint, name, idle=idle)
    return poller, take(poller, n)


def begin_take(key: GivenKey, endpoint: str, name: str, *, idle: bool) -> Poller:
    """A job-take poll begins. A worker that says it has nothing in progress has lost what it was handed before."""
    poller = seen(key, endpoint, name, "take_at")
    if idle and poller.holds:
        settled = "a.handed_at < clock_timestamp() - %(settle)s * interval '1 s'"
        _let_go(poller.worker_id, settled, "its worker asked for work and had none in progress")
    return poller


def hang_up(poller: Poller) -> None:
    """Its poll was cut off. Unless it polls again its lease runs out, whatever an orphaned ping process still names
    (runpod.md 1.7): before its first stop poll in a job nothing else tells it from a handler that blocks."""
    sql.run("UPDATE jobs_worker SET hung_up = true WHERE id = %s", [poller.worker_id])


def take(poller: Poller, n: int) -> Taken:
    """Of dialect dekita with the bucket that its worker is told."""
    taken = claim(poller.endpoint_id, poller.holder, n)
    if poller.dialect != Endpoint.Dialect.DEKITA:
        return taken
    along = [(job, bucket_along(poller.dialect, job.job, job.request_bucket)) for job in taken.jobs]
    return replace(taken, jobs=[replace(job, request_bucket=bucket) for job, bucket in along])


HELD = """
SELECT a.job_id, a.number, a.ended_at IS NOT NULL FROM jobs_attempt a
 WHERE a.worker_id = %(worker)s AND a.released_at IS NULL AND {which}"""


def _let_go(worker_id: int, which: str, why: str) -> None:
    """The worker no longer has these attempts: those that had ended free their slot, the others are lost."""
    held = sql.rows(HELD.format(which=which), {"worker": worker_id, "settle": SETTLE_S})
    for job, number, ended in held:
        if ended:
            release(job, number)
        else:
            lose(job, number, why)


def release(job: UUID, number: int) -> None:
    """The worker has let go of an attempt that had ended: its slot is free."""
    with transaction.atomic():
        row = sql.first(
            "UPDATE jobs_attempt SET released_at = clock_timestamp(), stop_wanted = false"
            " WHERE job_id = %s AND number = %s AND ended_at IS NOT NULL AND released_at IS NULL"
            " RETURNING worker_id, endpoint_id",
            [job, number],
        )
        if row:
            settle([job])
            announce(endpoint_key(row[1]), *([worker_key(row[0])] if row[0] else []))


STOPS_IN_JOB = """
UPDATE jobs_worker w SET stops_in_job = true
 WHERE w.id = %(worker)s AND NOT stops_in_job AND EXISTS (
       SELECT 1 FROM jobs_attempt a WHERE a.worker_id = w.id AND a.released_at IS NULL
          AND a.handed_at < clock_timestamp() - %(settle)s * interval '1 s')"""


def begin_stop(key: GivenKey, endpoint: str, name: str) -> Poller:
    """A job-stop poll begins. One that begins during a job comes from a worker whose handler does not block it."""
    poller = seen(key, endpoint, name, "stop_at")
    if poller.holds:
        sql.run(STOPS_IN_JOB, {"worker": poller.worker_id, "settle": SETTLE_S})
    return poller


STOPS = """
UPDATE jobs_attempt a SET stop_sent_at = clock_timestamp() FROM jobs_job j
 WHERE j.id = a.job_id AND a.worker_id = %(worker)s AND a.stop_wanted
   AND coalesce(a.stop_sent_at < clock_timestamp() - interval '10 s', true)
RETURNING j.id, j.sync, a.number"""


def stops(poller: Poller) -> list[str]:
    """The attempt ids this worker is to stop now; each is said again only after 10 s, since the SDK asks at once."""
    return [attempt_id(*row) for row in sql.rows(STOPS, {"worker": poller.worker_id})]


NAMED = """
WITH named AS (SELECT * FROM unnest(%(jobs)s::uuid[], %(numbers)s::int[]) n (job_id, number))
UPDATE jobs_attempt a
   SET confirmed_at = coalesce(a.confirmed_at, clock_timestamp()), named_at = clock_timestamp(), missed_pings = 0,
       stop_wanted = a.stop_wanted
                  OR coalesce(a.ended_at < clock_timestamp() - %(settle)s * interval '1 s', false)
  FROM named WHERE a.job_id = named.job_id AND a.number = named.number AND a.worker_id = %(worker)s
RETURNING a.stop_wanted"""

UNNAMED = """
UPDATE jobs_attempt a SET missed_pings = a.missed_pings + 1, stop_wanted = false
 WHERE a.worker_id = %(worker)s AND (a.released_at IS NULL OR a.stop_wanted)
   AND a.handed_at < clock_timestamp() - %(settle)s * interval '1 s'
   AND NOT EXISTS (SELECT 1 FROM unnest(%(jobs)s::uuid[], %(numbers)s::int[]) n (job_id, number)
                    WHERE n.job_id = a.job_id AND n.number = a.number)"""


def ping(key: GivenKey, endpoint: str, name: str, version: str, named: Collection[AttemptId]) -> None:
    """A worker's ping: it confirms and keeps what it names; what it left out twice is lost.

    An ended attempt that it still names is to be stopped.
    """
    poller = seen(key, endpoint, name, "ping_at", version)
    jobs, numbers = [a.job for a in named], [a.number for a in named]
    params = {"worker": poller.worker_id, "settle": SETTLE_S, "jobs": jobs, "numbers": numbers}
    if named and any(stop for (stop,) in sql.rows(NAMED, params)):
        announce(worker_key(poller.worker_id))
    if sql.run(UNNAMED, params):
        _let_go(poller.worker_id, "a.missed_pings >= 2", "two pings of its worker did not name it")


ALIVE = """
WITH a AS (
    UPDATE jobs_attempt SET confirmed_at = coalesce(confirmed_at, clock_timestamp()), named_at = clock_timestamp(),
           missed_pings = 0
     WHERE job_id = %s AND number = %s AND ended_at IS NULL RETURNING worker_id
), w AS (
    UPDATE jobs_worker w SET stop_at = clock_timestamp() FROM a WHERE w.id = a.worker_id
)
SELECT 1 FROM a"""


def alive(attempt: AttemptId) -> bool:
    """A worker that shuts down still runs this attempt: as good as a ping that names it and a poll. False: it ended."""
    return sql.first(ALIVE, [attempt.job, attempt.number]) is not None


def unhealthy(key: GivenKey, endpoint: str, name: str, reason: str) -> None:
    """A worker's death notice: what it held is lost now."""
    poller = seen(key, endpoint, name, "ping_at")
    text = printable(reason, 500) or "unhealthy"
    sql.run("UPDATE jobs_worker SET unhealthy = %s WHERE id = %s", [text, poller.worker_id])
    _let_go(poller.worker_id, "true", "its worker said that it is unhealthy")
