"""Attempts at a backend that is pushed to: each is sent once, asked after, and given up when its life there is over
(rules.md 8). What is reported of them is applied in reported.py.

Setting `sent_at` is a compare-and-set that is committed before the request goes out. So of any number of dispatchers
one sends an attempt; where one died, an attempt without `sent_at` was not sent, and one without `remote_id` may have
been: that waits for news, and only when its life there must be over is it lost.
"""

import logging
from dataclasses import dataclass
from uuid import UUID

import orjson
from django.conf import settings
from django.core import signing
from django.db import transaction

from accounts import sql
from accounts.sealed import Sealed
from jobs import loss, news
from jobs.backends.base import Handover
from jobs.caps import HANDS_OUT
from jobs.dialects import Given
from jobs.handover import bucket_along, for_worker
from jobs.ids import AttemptId, attempt_id
from jobs.inputs import sources
from jobs.news import Done
from jobs.states import lock, note
from jobs.wake import wake_endpoint
from jobs.workers import release

log = logging.getLogger("hearth.remote")
TOKEN_SALT = "hearth.runpod"
WAIT_S = 1800  # where the endpoint says nothing else
MARGIN_S = 60  # beyond the ttl: clocks, and webhooks on their way
FIRST_ASK_S, ASK_GROWTH, MOST_ASK_S = 5, 1.5, 60
TTL_MS = (10_000, 7 * 24 * 3600_000)  # as RunPod takes them


def token(attempt: AttemptId) -> str:
    """Opens /hooks/runpod/<token> for news of this attempt. News of an ended one changes nothing."""
    return signing.Signer(salt=TOKEN_SALT).sign_object([attempt.job.hex, attempt.number])


def read_token(text: str) -> AttemptId | None:
    """Old signing keys still verify."""
    try:
        job, number = signing.Signer(salt=TOKEN_SALT).unsign_object(text)
        return AttemptId(UUID(job), int(number))
    except (signing.BadSignature, ValueError, TypeError):
        return None


UNSENT = """
SELECT a.job_id, a.number FROM jobs_attempt a
 WHERE a.endpoint_id = %s AND a.ended_at IS NULL AND a.released_at IS NULL AND a.sent_at IS NULL AND a.worker_id IS NULL
 ORDER BY a.handed_at"""


def unsent(endpoint_id: int) -> list[AttemptId]:
    """Attempts that were claimed and not sent, by whomever."""
    return [AttemptId(*row) for row in sql.rows(UNSENT, [endpoint_id])]


# Nobody's queue is waited in for longer than the job's ttl; the ttl there covers the run as well, as RunPod counts it.
# A worker that is not ours and began at the last moment may run on after that, if the other side counts the queue only.
SEND = f"""
WITH at AS MATERIALIZED (SELECT clock_timestamp() AS now)
UPDATE jobs_attempt a
   SET sent_at = at.now, ask_at = at.now + {FIRST_ASK_S} * interval '1 s',
       expires_at = at.now + {MARGIN_S} * interval '1 s' + interval '1 ms' * (life.ttl_ms
                  + CASE WHEN e.dialect = 'hearth' THEN 0 ELSE j.execution_timeout_ms END)
  FROM at, jobs_job j JOIN jobs_grant g ON g.id = j.grant_id JOIN jobs_endpoint e ON e.id = g.endpoint_id
  LEFT JOIN jobs_runpodendpoint r ON r.endpoint_id = e.id
 CROSS JOIN LATERAL (SELECT extract(epoch FROM j.queued_at - clock_timestamp()) * 1000 + j.ttl_ms AS ms) rest
 CROSS JOIN LATERAL (
       SELECT least({TTL_MS[1]}, j.execution_timeout_ms + greatest({TTL_MS[0]},
                    least(coalesce(r.wait_s, {WAIT_S}) * 1000, rest.ms)))::bigint AS ttl_ms) life
 WHERE a.job_id = %(job)s AND a.number = %(number)s AND a.sent_at IS NULL AND a.ended_at IS NULL
   AND j.id = a.job_id AND j.attempt = a.number
RETURNING 1"""

UNSTARTED_DEADLINE = """
UPDATE jobs_job SET deadline_at = queued_at + ttl_ms * interval '1 ms' WHERE id = %s AND started_at IS NULL"""

HANDOVER = f"""
SELECT j.sync, e.dialect, p.input, p.request_bucket, p.inputs, j.execution_timeout_ms, a.sent_at,
       (extract(epoch FROM a.expires_at - a.sent_at) * 1000)::bigint - {MARGIN_S} * 1000
       - CASE WHEN e.dialect = 'hearth' THEN 0 ELSE j.execution_timeout_ms END
  FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id JOIN jobs_payload p ON p.job_id = j.id
  JOIN jobs_endpoint e ON e.id = a.endpoint_id
 WHERE a.job_id = %s AND a.number = %s"""


def send(attempt: AttemptId) -> Handover | None:
    """What to submit now; None if it has ended or somebody else sends it. Until it starts the job's ttl goes on.

    Raises SealBroken; then it is not sent."""
    with transaction.atomic():
        lock(attempt.job)
        if sql.first(SEND, {"job": attempt.job, "number": attempt.number}) is None:
            return None
        sql.run(UNSTARTED_DEADLINE, [attempt.job])
        return handover(attempt)


def handover(attempt: AttemptId) -> Handover:
    """An attempt that is sent, as the backend gets it: the same each time, so that it may be told to be the same."""
    row = sql.one(HANDOVER, [attempt.job, attempt.number])
    sync, dialect, given_input, bucket, inputs, execution_timeout_ms, sent_at, ttl_ms = row
    along = bucket_along(dialect, attempt.job, None if bucket is None else bytes(bucket))
    given = Given(dialect=dialect, input=bytes(given_input), bucket=Sealed(along) if along else None)
    files = sources(bytes(inputs)) if inputs else {}
    job_input, s3_config = for_worker(given, attempt.job, attempt.number, files, sent_at)
    name = attempt_id(attempt.job, sync, attempt.number)
    return Handover(
        attempt_id=name,
        input=job_input,
        webhook=f"{settings.HEARTH_URL}/hooks/runpod/{token(attempt)}",
        execution_timeout_ms=execution_timeout_ms,
        ttl_ms=ttl_ms,
        s3_config=s3_config,
        once_key=name,
    )


def taken(attempt: AttemptId, remote_id: str) -> None:
    """The backend has it under this name. News may have said so before."""
    sql.run(
        "UPDATE jobs_attempt SET remote_id = %s WHERE job_id = %s AND number = %s AND remote_id = ''",
        [remote_id, attempt.job, attempt.number],
    )


def not_taken(attempt: AttemptId, why: str) -> None:
    """The backend surely did not take it: as if it had never been handed over."""
    if not loss.undo(attempt.job, attempt.number, why):
        release(attempt.job, attempt.number)


def unwanted(attempt: AttemptId, why: str) -> None:
    """The backend will never take it, so the job fails."""
    with transaction.atomic():
        held = news.lock_attempt(attempt)
        if held and held.current:
            news.finish(held, Done(error=orjson.dumps(why), error_value=why))
        else:
            release(attempt.job, attempt.number)


UNKNOWN = """
UPDATE jobs_attempt a SET ask_at = CASE WHEN r.keeps_keys THEN a.ask_at ELSE a.expires_at END
  FROM jobs_runpodendpoint r
 WHERE a.job_id = %s AND a.number = %s AND a.remote_id = '' AND r.endpoint_id = a.endpoint_id
RETURNING a.asks = 0, r.keeps_keys, (extract(epoch FROM a.expires_at - clock_timestamp()) / 60)::int"""


def unknown(attempt: AttemptId, why: str) -> None:
    """It may have been taken: wait for news of it. It keeps its slot meanwhile."""
    with transaction.atomic():
        row = sql.first(UNKNOWN, [attempt.job, attempt.number])
        if row is None or not row[0]:
            return
        then = "it is asked again" if row[1] else f"without news the next attempt is made in {row[2]} min"
        note(attempt.job, attempt.number, "noted", f"whether RunPod took it is not known: {why}; {then}")


@dataclass(frozen=True, kw_only=True)
class Due:
    """An attempt to be asked after; `ended`: to be stopped; without remote_id to be submitted again."""

    attempt: AttemptId
    remote_id: str
    ended: bool


# Without its name there is nothing to ask, but of a side that knows the Idempotency-Key, or is here (dummy).
IS_DUE = """(a.released_at IS NULL AND a.sent_at IS NOT NULL
   AND (a.remote_id <> '' OR a.ended_at IS NULL AND coalesce(r.keeps_keys, true))
   AND (a.ask_at < clock_timestamp() OR a.ended_at IS NOT NULL AND a.stop_sent_at IS NULL))"""

DUE = f"""
UPDATE jobs_attempt a
   SET ask_at = clock_timestamp() + interval '1 s' * (0.8 + 0.4 * random())
              * least({FIRST_ASK_S} * {ASK_GROWTH} ^ least(a.asks, 20), {MOST_ASK_S}),
       asks = least(a.asks + 1, 30000),
       stop_sent_at = CASE WHEN a.ended_at IS NULL THEN NULL ELSE clock_timestamp() END
 WHERE a.id IN (
       SELECT a.id FROM jobs_attempt a LEFT JOIN jobs_runpodendpoint r ON r.endpoint_id = a.endpoint_id
        WHERE a.endpoint_id = %(endpoint)s AND {IS_DUE} ORDER BY a.ask_at LIMIT %(most)s
          FOR NO KEY UPDATE OF a SKIP LOCKED)
RETURNING a.job_id, a.number, a.remote_id, a.ended_at IS NOT NULL"""


def due(endpoint_id: int, most: int) -> list[Due]:
    """Those whose turn it is; each is next only after a while that grows, whatever becomes of this time."""
    found = sql.rows(DUE, {"endpoint": endpoint_id, "most": most})
    return [Due(attempt=AttemptId(job, number), remote_id=name, ended=ended) for job, number, name, ended in found]


def let_go(attempt: AttemptId, why: str) -> None:
    """The backend has no more of it: an ended attempt's slot is free, an open one is lost."""
    if not loss.lose(attempt.job, attempt.number, why):
        release(attempt.job, attempt.number)


TROUBLED = """
UPDATE jobs_runpodendpoint SET failures = failures + 1, trouble = %(why)s,
       rest_until = greatest(rest_until, clock_timestamp() + %(rest)s * interval '1 s')
 WHERE endpoint_id = %(endpoint)s"""


def troubled(endpoint_id: int, why: str, rest_s: float) -> None:
    """The backend did not do what it was asked: it is left alone for a while."""
    sql.run(TROUBLED, {"endpoint": endpoint_id, "why": why[:500], "rest": rest_s})


def well(endpoint_id: int) -> None:
    sql.run(
        "UPDATE jobs_runpodendpoint SET failures = 0, trouble = '', rest_until = NULL"
        " WHERE endpoint_id = %s AND failures > 0",
        [endpoint_id],
    )


LOOK_S = 30
# Where overflow depends on it, the other side's health is asked though there may be no job to send.
LOOK_IS_DUE = f"""(coalesce(r.looked_at < clock_timestamp() - interval '{LOOK_S} s', true)
   AND EXISTS (SELECT 1 FROM jobs_overflow o WHERE r.endpoint_id IN (o.endpoint_id, o.to_id)))"""
LOOKS = f"""
SELECT r.failures > 0 OR {LOOK_IS_DUE}, r.throttled,
       EXISTS (SELECT 1 FROM jobs_overflow o WHERE o.endpoint_id = r.endpoint_id AND o.throttled)
  FROM jobs_runpodendpoint r WHERE r.endpoint_id = %s"""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """`due`: its health is to be asked. `throttled`: what that said the last time. `spills`: jobs go elsewhere then."""

    due: bool = False
    throttled: bool = False
    spills: bool = False


def looks(endpoint_id: int) -> Looks:
    row = sql.first(LOOKS, [endpoint_id])
    return Looks(due=row[0], throttled=row[1], spills=row[2]) if row else Looks()


def looked_at(endpoint_id: int, *, throttled: bool) -> None:
    """It answers. What it failed at before may fail again, so that is still counted."""
    sql.run(
        "UPDATE jobs_runpodendpoint SET looked_at = clock_timestamp(), throttled = %s, trouble = ''"
        " WHERE endpoint_id = %s",
        [throttled, endpoint_id],
    )


RESTS = "coalesce(r.rest_until > clock_timestamp(), false)"


def rests(endpoint_id: int) -> bool:
    row = sql.first(f"SELECT {RESTS} FROM jobs_runpodendpoint r WHERE r.endpoint_id = %s", [endpoint_id])
    return bool(row and row[0])


# What a dispatcher is about to do is not meant: so long it may take.
LATE = "interval '3 s'"
WAITING = f"""
SELECT e.id, e.backend FROM jobs_endpoint e LEFT JOIN jobs_runpodendpoint r ON r.endpoint_id = e.id
 WHERE e.backend <> 'fleet' AND NOT {RESTS} AND coalesce(r.woken_at < clock_timestamp() - {LATE}, true) AND (
       EXISTS (SELECT 1 FROM jobs_attempt a WHERE a.endpoint_id = e.id AND a.released_at IS NULL AND (
               {IS_DUE} OR a.ended_at IS NULL AND a.sent_at IS NULL AND a.handed_at < clock_timestamp() - {LATE}))
    OR {LOOK_IS_DUE}
    OR ({HANDS_OUT} AND EXISTS (
        SELECT 1 FROM jobs_grant g JOIN jobs_job j ON j.grant_id = g.id
         WHERE g.endpoint_id = e.id AND j.state = 'IN_QUEUE' AND j.queued_at < clock_timestamp() - {LATE})))"""


def wake_waiting() -> int:
    """Wake the dispatchers of endpoints that have something to send, to ask or to stop."""
    found = sql.rows(WAITING)
    for endpoint_id, backend in found:
        sql.run("UPDATE jobs_runpodendpoint SET woken_at = clock_timestamp() WHERE endpoint_id = %s", [endpoint_id])
        wake_endpoint(endpoint_id, backend)
    return len(found)


# One whose name is known is asked after as long as that can tell more; the other side may be away.
OVER = """
SELECT a.job_id, a.number FROM jobs_attempt a
 WHERE a.released_at IS NULL AND a.worker_id IS NULL AND (
       a.sent_at IS NULL AND a.ended_at IS NOT NULL
    OR a.expires_at < clock_timestamp() - CASE WHEN a.remote_id = '' THEN 0 ELSE %(patience)s END * interval '1 s')
 LIMIT %(batch)s"""
PATIENCE_S = 600


def give_up_expired(batch: int = 200) -> int:
    """Attempts whose life at the backend must be over, and those that ended before they were sent."""
    found = sql.rows(OVER, {"patience": PATIENCE_S, "batch": batch})
    for job, number in found:
        let_go(AttemptId(job, number), "there was no news of it as long as it could live at RunPod")
    return len(found)
