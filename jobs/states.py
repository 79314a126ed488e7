"""The one table of legal moves of a job's state, the one compare-and-set that makes them, and what goes with a move.

IN_QUEUE → IN_PROGRESS at a hand-over; back when the attempt is lost, handed back or undone; an ended job moves again
only by `retry`. A move that finds the job elsewhere changes nothing, and that is normal: someone else was first.
"""

from collections.abc import Mapping
from uuid import UUID

from django.db import models

from accounts import sql
from jobs.live import DELIVERIES, announce
from jobs.usage import settle


class State(models.TextChoices):
    """RunPod's words."""

    IN_QUEUE = "IN_QUEUE", "in queue"
    IN_PROGRESS = "IN_PROGRESS", "in progress"
    COMPLETED = "COMPLETED", "completed"
    FAILED = "FAILED", "failed"
    CANCELLED = "CANCELLED", "cancelled"
    TIMED_OUT = "TIMED_OUT", "timed out"


class News(models.TextChoices):
    """What webhooks may be told of a job: each move into a state, but for the submission itself."""

    STARTED = "started"
    RETRIED = "retried", "retried: it is queued again"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out", "timed out"


FINAL = (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT)

MOVES: Mapping[State, tuple[State, ...]] = {
    State.IN_QUEUE: (State.IN_PROGRESS, State.CANCELLED, State.TIMED_OUT, State.FAILED),
    State.IN_PROGRESS: (State.IN_QUEUE, State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT),
    State.FAILED: (State.IN_QUEUE,),
    State.TIMED_OUT: (State.IN_QUEUE,),
    State.COMPLETED: (),
    State.CANCELLED: (),
}


def sources(to: State) -> tuple[State, ...]:
    """The states from which a job may move to `to`."""
    return tuple(state for state, targets in MOVES.items() if to in targets)


def move_sql(to: State, sets: str, where: str, *, only: tuple[State, ...] | None = None) -> str:
    """The compare-and-set as SQL, for statements that do more in one go. `only` narrows the legal sources."""
    legal = sources(to)
    chosen = legal if only is None else only
    if not set(chosen) <= set(legal):
        raise ValueError(f"no legal move from {chosen} to {to}")
    states = ", ".join(f"'{state.value}'" for state in chosen)
    return f"UPDATE jobs_job j SET state = '{to.value}', {sets} WHERE j.state IN ({states}) AND {where}"


def event_sql(kind: str, source: str) -> str:
    """INSERT of one event for each row (id, attempt) of `source`, a CTE of the same statement."""
    return (
        "INSERT INTO jobs_event (job_id, attempt, kind, at, text)"
        f" SELECT id, attempt, '{kind}', clock_timestamp(), %(text)s FROM {source}"
    )


def delivery_sql(news: News, source: str, own: str = "") -> str:
    """INSERT of the deliveries that tell this news of each row (id, attempt, tenant_id, retries) of `source`, a CTE of
    the same statement: to each webhook that its tenant has registered for it, and to the URL of the request itself if
    `own`, a CTE with rows (job_id, webhook), is given. The webhooks are locked, as the foreign key would at the commit:
    one that is removed meanwhile would fail the whole transaction then."""
    to_own = f"UNION ALL SELECT NULL, s.tenant_id FROM {own} p WHERE p.job_id = s.id AND p.webhook <> ''" if own else ""
    return f"""
        INSERT INTO jobs_delivery (message, tenant_id, webhook_id, lane, job_id, retries, attempt, kind, state, tries,
                                   created_at, began_at, next_at)
        SELECT gen_random_uuid(), s.tenant_id, r.webhook_id, r.lane, s.id, s.retries, s.attempt, '{news.value}',
               'pending', 0, now.at, now.at, now.at
          FROM {source} s CROSS JOIN (SELECT clock_timestamp() AS at) now CROSS JOIN LATERAL (
               SELECT w.id AS webhook_id, w.id AS lane FROM (
                      SELECT id FROM jobs_webhook
                       WHERE tenant_id = s.tenant_id AND enabled AND '{news.value}' = ANY (kinds) FOR KEY SHARE) w
               {to_own}) r
            ON CONFLICT DO NOTHING RETURNING 1"""


def end_ctes(to: State, where: str) -> str:
    """The CTEs that end jobs: state, open attempt, payload, event and deliveries at once. The rows must be locked
    before, by an earlier statement, else an attempt that was made meanwhile is not seen here.

    Parameters: text of the event, output and error (JSON bytes or None), released (the worker has let go).
    A request's bucket secrets go at once where no retry is possible (rules.md 22).
    """
    execution = "(extract(epoch FROM clock_timestamp() - j.started_at) * 1000)::bigint"
    waited = "(extract(epoch FROM clock_timestamp() - j.queued_at) * 1000)::bigint"
    sets = (
        "finished_at = clock_timestamp(), deadline_at = NULL,"
        f" delay_ms = coalesce(j.delay_ms, {waited}), execution_ms = {execution}"
    )
    wipe = "true" if to in (State.COMPLETED, State.CANCELLED) else "false"
    return f"""
    job AS ({move_sql(to, sets, where)} RETURNING j.id, j.attempt, j.tenant_id, j.retries), attempt AS (
        UPDATE jobs_attempt a SET ended_at = clock_timestamp(), outcome = '{to.value.lower()}',
               stop_wanted = NOT %(released)s::bool,
               released_at = CASE WHEN %(released)s::bool THEN clock_timestamp() END
          FROM job WHERE a.job_id = job.id AND a.ended_at IS NULL RETURNING a.worker_id
    ), payload AS (
        UPDATE jobs_payload p
           SET output = coalesce(%(output)s::bytea, output), error = coalesce(%(error)s::bytea, error),
               request_bucket = CASE WHEN {wipe} THEN NULL ELSE request_bucket END,
               request_bucket_wiped = request_bucket_wiped OR ({wipe} AND request_bucket IS NOT NULL)
          FROM job WHERE p.job_id = job.id RETURNING p.job_id, p.webhook
    ), event AS ({event_sql(to.value.lower(), "job")}
    ), delivery AS ({delivery_sql(News(to.value.lower()), "job", own="payload")})"""


HAS_DELIVERIES = "EXISTS (SELECT 1 FROM delivery)"
_END = {to: f"WITH {end_ctes(to, 'j.id = %(job)s')} SELECT {HAS_DELIVERIES} FROM job" for to in FINAL}


def announce_deliveries(written: bool) -> None:
    """After the commit: wake who sends them, if there are any."""
    if written:
        announce(DELIVERIES)


def lock(job: UUID) -> State | None:
    """Lock the job's row to the end of the transaction; its state, or None if there is no such job.

    A statement of its own: one that waits for the lock and also reads attempts would read them as they were before.
    """
    row = sql.first("SELECT state FROM jobs_job WHERE id = %s FOR NO KEY UPDATE", [job])
    return State(row[0]) if row else None


def end(
    job: UUID,
    to: State,
    text: str,
    *,
    released: bool = False,
    output: bytes | None = None,
    error: bytes | None = None,
) -> bool:
    """End a job whose row this transaction has locked; says whether it ended now."""
    params = {"job": job, "text": text[:2000], "released": released, "output": output, "error": error}
    row = sql.first(_END[to], params)
    if row is None:
        return False
    announce_deliveries(row[0])
    settle([job], to.value)
    return True


REQUEUE = f"""
WITH job AS ({
    move_sql(
        State.IN_QUEUE,
        "deadline_at = j.queued_at + j.ttl_ms * interval '1 ms', started_at = NULL, delay_ms = NULL, worker_name = ''",
        "j.id = %(job)s",
        only=(State.IN_PROGRESS,),
    )
} RETURNING j.id, j.attempt, j.tenant_id, j.retries
), stream AS (
    DELETE FROM jobs_chunk c USING job WHERE c.job_id = job.id
), payload AS (
    UPDATE jobs_payload p SET progress = NULL, progress_fraction = -1 FROM job WHERE p.job_id = job.id
), delivery AS ({delivery_sql(News.RETRIED, "job")})
SELECT {HAS_DELIVERIES} FROM job"""


def requeue(job: UUID) -> bool:
    """Put a job whose attempt came to nothing back into the queue, at its old place. Its stream begins anew."""
    row = sql.first(REQUEUE, {"job": job})
    announce_deliveries(bool(row and row[0]))
    return row is not None


def note(job: UUID, attempt: int, kind: str, text: str = "") -> None:
    """Write an event that goes with no move."""
    sql.run(
        "INSERT INTO jobs_event (job_id, attempt, kind, at, text) VALUES (%s, %s, %s, clock_timestamp(), %s)",
        [job, attempt, kind, text[:2000]],
    )
