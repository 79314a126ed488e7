"""What a backend that is pushed to says of an attempt, by webhook or when it is asked, applied (rules.md 1, 9, 10).

It counts if the attempt is the job's current one, open, and of that name there. A name that is not known yet is learnt.
"""

import logging
from dataclasses import dataclass, replace
from uuid import UUID

import orjson
from django.db import InterfaceError, OperationalError, transaction

from accounts import sql
from jobs import loss, news
from jobs.backends.base import Report
from jobs.ids import AttemptId
from jobs.inline import NotStored, Stored
from jobs.live import announce, job_key
from jobs.models import Endpoint
from jobs.news import Done, Held
from jobs.states import FINAL, State, end
from jobs.wake import wake_endpoint
from jobs.workers import release
from storage.outputs import NotLookedAt
from worker.wire import NOT_RUN

log = logging.getLogger("hearth.reported")


@dataclass(frozen=True, kw_only=True)
class AtS3:
    """What was done at S3 before news is applied, as news.Done has it."""

    absent: frozenset[UUID] | None = None
    stored: Stored | None = None


NOTHING_YET = AtS3()


def apply(attempt: AttemptId, report: Report, at_s3: AtS3 = NOTHING_YET) -> str:
    """Apply what the backend says of an attempt; returns what that came to. Doing it twice is as good as once.

    Raises NotLookedAt and NotStored, having changed nothing, as news.done does."""
    try:
        return _apply_once(attempt, report, at_s3)
    except (OperationalError, InterfaceError, NotLookedAt, NotStored):
        raise
    except Exception as error:  # a paid run must not vanish in a loop of retries: the job says that it was ours to keep
        if report.state not in FINAL or report.fault:
            raise
        log.exception("the result of %s could not be kept", attempt)
        fault = f"Hearth could not keep it ({type(error).__name__})"
        return _apply_once(attempt, replace(report, state=State.FAILED, output=None, error=None, fault=fault), at_s3)


def _apply_once(attempt: AttemptId, report: Report, at_s3: AtS3) -> str:
    with transaction.atomic():
        held = news.lock_attempt(attempt)
        if held is None:
            return "ignored: there is no such attempt"
        if not _is_of(attempt, report):
            return f"ignored: it is of another job of RunPod's, {report.remote_id or 'without an id'}"
        outcome = _apply(held, attempt, report, at_s3) if held.current else "ignored: the attempt had ended"
        if report.state in FINAL:
            release(held.job, held.number)
            if held.backend == Endpoint.Backend.RUNPOD:  # others' dispatchers are at it
                wake_endpoint(held.endpoint_id, held.backend)
    return outcome


ASK_NOW = """
UPDATE jobs_attempt SET ask_at = clock_timestamp()
 WHERE job_id = %s AND number = %s AND released_at IS NULL AND remote_id <> '' RETURNING 1"""


def unreadable(attempt: AttemptId, fault: str) -> str:
    """News that could not be read: RunPod is asked at once; where its name there is not known, that was the result."""
    with transaction.atomic():
        held = news.lock_attempt(attempt)
        if held is None:
            return "ignored: there is no such attempt"
        if sql.first(ASK_NOW, [attempt.job, attempt.number]):
            wake_endpoint(held.endpoint_id, held.backend)
            return f"unreadable, so RunPod is asked: {fault}"
        if held.current:
            news.finish(held, Done(fault=fault))
            return f"applied: FAILED, as {fault}"
    return f"ignored: {fault}"


def _is_of(attempt: AttemptId, report: Report) -> bool:
    """Whether the report has this attempt's name there, which may be learnt from it."""
    if not report.remote_id:
        return False
    row = sql.first(
        "UPDATE jobs_attempt SET remote_id = %(id)s, confirmed_at = coalesce(confirmed_at, clock_timestamp())"
        " WHERE job_id = %(job)s AND number = %(number)s AND sent_at IS NOT NULL AND remote_id IN ('', %(id)s)"
        " RETURNING 1",
        {"id": report.remote_id, "job": attempt.job, "number": attempt.number},
    )
    return row is not None


def _apply(held: Held, attempt: AttemptId, report: Report, at_s3: AtS3) -> str:
    if report.state == State.IN_QUEUE:
        return "nothing new"
    if report.state == State.IN_PROGRESS:
        return _in_progress(held, attempt, report)
    ms = report.execution_ms
    own = held.dialect == Endpoint.Dialect.HEARTH  # it says itself when it starts
    if own and isinstance(report.error_value, str) and report.error_value.startswith(NOT_RUN):
        loss.lose(held.job, held.number, report.error_value)
        return "applied: lost, as the worker did not run it"
    if report.state in (State.COMPLETED, State.FAILED):
        sql.run(STARTED, {"job": held.job, "number": held.number, "own": own, "ms": ms})
        news.finish(held, replace(_done(report), absent=at_s3.absent, stored=at_s3.stored))
        return f"applied: {report.state.value}"
    if report.state == State.TIMED_OUT and (ms or _started(attempt)):
        text = f"RunPod ended it as longer than its executionTimeout{f', after {ms} ms' if ms else ''}."
        sql.run(STARTED, {"job": held.job, "number": held.number, "own": own, "ms": ms})
        end(held.job, State.TIMED_OUT, text, released=True, error=orjson.dumps(text))
        announce(job_key(held.job))
        return "applied: TIMED_OUT"
    why = "it was cancelled at RunPod" if report.state == State.CANCELLED else "RunPod did not start it within its ttl"
    loss.lose(held.job, held.number, why)
    return f"applied: lost, as {why}"


def _in_progress(held: Held, attempt: AttemptId, report: Report) -> str:
    if held.dialect != Endpoint.Dialect.HEARTH:
        news.started(attempt)
    if report.output is not None:
        news.progress(held.endpoint_id, held.worker_name, attempt, report.output, report.output_value)
    return "applied: IN_PROGRESS"


def _done(report: Report) -> Done:
    error, value = report.error, report.error_value
    if report.state == State.FAILED and not error and not report.fault:
        value = "RunPod says FAILED and no reason."
        error = orjson.dumps(value)
    return Done(
        output=report.output,
        output_value=report.output_value,
        error=error,
        error_value=value,
        mended=report.mended,
        fault=report.fault,
    )


def _started(attempt: AttemptId) -> bool:
    row = sql.first(
        "SELECT 1 FROM jobs_attempt WHERE job_id = %s AND number = %s AND started_at IS NOT NULL",
        [attempt.job, attempt.number],
    )
    return row is not None


# A job's GPU time is what the other side says that it ran for, if it says so: news may come long after the end. Our own
# worker says when it starts; others have at the hand-over, if nobody says otherwise (rules.md 4).
STARTED = """
WITH a AS (
    UPDATE jobs_attempt SET started_at = greatest(
           coalesce(started_at, CASE WHEN %(own)s THEN NULL ELSE sent_at END),
           CASE WHEN started_at IS NOT NULL OR NOT %(own)s
                THEN clock_timestamp() - %(ms)s::bigint * interval '1 ms' END)
     WHERE job_id = %(job)s AND number = %(number)s RETURNING started_at
)
UPDATE jobs_job j SET started_at = a.started_at,
       delay_ms = (extract(epoch FROM a.started_at - j.queued_at) * 1000)::bigint
  FROM a WHERE j.id = %(job)s AND a.started_at IS NOT NULL"""
