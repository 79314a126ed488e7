"""An attempt that came to nothing: lost by its worker, handed back, or undone. The job goes to its next attempt."""

from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction

from accounts import sql
from jobs.live import announce, job_key, news_key, worker_key
from jobs.models import Attempt
from jobs.states import State, end, lock, note, requeue
from jobs.usage import settle
from jobs.wake import wake_endpoint

SHUTDOWN = "shutdown"  # the code of a worker that ends: no fault of the job's

OPEN = """
SELECT j.losses, j.free_losses, a.started_at IS NOT NULL, a.worker_id, e.id, e.backend
  FROM jobs_job j JOIN jobs_attempt a ON a.job_id = j.id AND a.number = j.attempt
  JOIN jobs_endpoint e ON e.id = a.endpoint_id
 WHERE j.id = %s AND a.number = %s AND a.ended_at IS NULL"""


def lose(job: UUID, number: int, why: str) -> bool:
    """The worker lost this attempt: the next one, or FAILED after MAX_ATTEMPTS. False: it had ended already.

    A loss before the start is not counted, up to MAX_FREE_LOSSES.
    """
    return _give_up(job, number, Attempt.Outcome.LOST, why, counted=True)


def hand_back(job: UUID, number: int, why: str, code: str = "") -> bool:
    """The worker gives an attempt back. Counted like a loss, so that it cannot go on for ever; a shutdown is like one
    before the start. code: the worker's word for why."""
    return _give_up(job, number, Attempt.Outcome.HANDED_BACK, why, counted=True, code=code)


def undo(job: UUID, number: int, why: str = "the worker's poll was gone") -> bool:
    """The hand-over did not reach the worker, so there was no attempt (rules.md 3)."""
    return _give_up(job, number, Attempt.Outcome.UNDONE, why, counted=False)


def _give_up(job: UUID, number: int, outcome: Attempt.Outcome, why: str, *, counted: bool, code: str = "") -> bool:
    with transaction.atomic():
        lock(job)
        row = sql.first(OPEN, [job, number])
        if row is None:
            return False
        losses, free_losses, started, worker_id, endpoint_id, backend = row
        sql.run(
            "UPDATE jobs_attempt SET ended_at = clock_timestamp(), released_at = clock_timestamp(), outcome = %s"
            " WHERE job_id = %s AND number = %s",
            [outcome.value, job, number],
        )
        settle([job])
        note(job, number, outcome.value, why)
        innocent = not started or code == SHUTDOWN
        free = not counted or (innocent and free_losses < settings.MAX_FREE_LOSSES)
        losses, free_losses = losses + (not free), free_losses + (free and counted)
        sql.run("UPDATE jobs_job SET losses = %s, free_losses = %s WHERE id = %s", [losses, free_losses, job])
        if losses >= settings.MAX_ATTEMPTS:
            _fail(job, outcome, losses, why, code)
        else:
            requeue(job)
        wake_endpoint(endpoint_id, backend)
        announce(news_key(job), *([worker_key(worker_id)] if worker_id else []))
    return True


def _fail(job: UUID, outcome: Attempt.Outcome, losses: int, why: str, code: str) -> None:
    """After the last attempt. With a worker's own word for it, the output is as if that worker had ended the job."""
    how = "Lost by its worker" if outcome == Attempt.Outcome.LOST else "Given back by its worker"
    times = f" {losses} times, the last time" if losses > 1 else ""
    text = f"{how}{times} because {why.rstrip('.')}."
    output = orjson.dumps({"error": text, "code": code}) if code else None
    end(job, State.FAILED, text, output=output, error=orjson.dumps(text))
    announce(job_key(job))
