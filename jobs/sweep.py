"""sweep(): finishes whatever nobody else did, needing nobody's help (rules.md 16). Each step is its own transaction."""

import logging
from collections.abc import Callable
from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction
from django_q.tasks import async_task

from accounts import audit, rates
from accounts.sql import first, rows, run
from jobs import deletion, retention
from jobs.creation import ONCE_H
from jobs.figures import note_load, roll_up
from jobs.history import up_for
from jobs.live import announce, job_key
from jobs.loss import lose
from jobs.overflow import overflow
from jobs.ready import forget_previews
from jobs.remote import give_up_expired, wake_waiting
from jobs.states import State, end, lock
from jobs.uploads import doom_unwon, release_holds
from jobs.wake import holder, wake_to_stop
from jobs.webhooks import deliver, mail, register
from jobs.workers import release
from storage import assets

log = logging.getLogger("hearth.sweep")
BATCH = 200


OVERDUE = """
SELECT id FROM jobs_job WHERE state IN ('IN_QUEUE', 'IN_PROGRESS') AND deadline_at < clock_timestamp()
 ORDER BY deadline_at LIMIT %(batch)s"""

STILL_OVERDUE = """
SELECT started_at IS NULL, ttl_ms, execution_timeout_ms FROM jobs_job
 WHERE id = %(job)s AND state IN ('IN_QUEUE', 'IN_PROGRESS') AND deadline_at < clock_timestamp()"""


def time_out_overdue() -> int:
    """End jobs that waited longer than their ttl, or ran longer than their execution time-out."""
    return sum(_time_out(job) for (job,) in rows(OVERDUE, {"batch": BATCH}))


def _time_out(job: UUID) -> bool:
    with transaction.atomic():
        lock(job)
        row = first(STILL_OVERDUE, {"job": job})
        if row is None:
            return False
        waits, ttl_ms, execution_timeout_ms = row
        held = holder(job)
        text = (
            f"No worker took the job within its ttl of {ttl_ms} ms."
            if waits
            else f"The job ran longer than its executionTimeout of {execution_timeout_ms} ms."
        )
        end(job, State.TIMED_OUT, text, error=orjson.dumps(text))
        announce(job_key(job))
        wake_to_stop(held)
    return True


SILENT = """
WITH ago AS (SELECT clock_timestamp() - %(lease)s * interval '1 s' AS at)
SELECT a.job_id, a.number, a.ended_at IS NOT NULL,
       CASE WHEN a.confirmed_at IS NULL THEN 'its worker did not confirm it within ' || %(lease)s || ' s'
            WHEN greatest(a.named_at, a.confirmed_at) < ago.at
            THEN 'its worker has not named it for ' || %(lease)s || ' s'
            ELSE 'its worker has not polled for ' || %(lease)s || ' s' END
  FROM jobs_attempt a JOIN jobs_worker w ON w.id = a.worker_id, ago
 WHERE a.released_at IS NULL AND a.handed_at < ago.at AND (
       a.confirmed_at IS NULL
    OR greatest(a.named_at, a.confirmed_at) < ago.at
    OR ((w.stops_in_job OR w.hung_up OR a.ended_at < ago.at) AND greatest(w.take_at, w.stop_at) < ago.at))
 LIMIT %(batch)s"""


def lose_silent() -> int:
    """Leases that ran out: the attempt is lost; one that had ended frees its slot. None does before a web process has
    been up for as long."""
    if not up_for(settings.LEASE_S):
        return 0
    found = rows(SILENT, {"lease": settings.LEASE_S, "batch": BATCH})
    for job, number, ended, why in found:
        if ended:
            release(job, number)
        else:
            lose(job, number, why)
    return len(found)


IDLE = """
SELECT a.job_id, a.number FROM jobs_attempt a
 WHERE a.released_at IS NULL AND a.ended_at IS NULL AND a.started_at IS NULL AND a.worker_id IS NOT NULL
   AND a.handed_at < clock_timestamp() - %(start)s * interval '1 s'
   AND NOT EXISTS (SELECT 1 FROM jobs_attempt o WHERE o.worker_id = a.worker_id AND o.started_at IS NOT NULL
                      AND coalesce(o.released_at, clock_timestamp()) > clock_timestamp() - %(start)s * interval '1 s')
 LIMIT %(batch)s"""


def lose_unstarted() -> int:
    """A worker that runs nothing and still has not started what it holds after START_S."""
    found = rows(IDLE, {"start": settings.START_S, "batch": BATCH})
    return sum(lose(job, number, f"its worker did not start it within {settings.START_S} s") for job, number in found)


WIPE = """
WITH due AS (
    SELECT p.job_id FROM jobs_payload p JOIN jobs_job j ON j.id = p.job_id
     WHERE p.request_bucket IS NOT NULL AND j.finished_at < clock_timestamp() - %(keep)s * interval '1 s'
     LIMIT %(batch)s FOR NO KEY UPDATE OF j SKIP LOCKED
)
UPDATE jobs_payload p SET request_bucket = NULL, request_bucket_wiped = true FROM due WHERE p.job_id = due.job_id"""


def wipe_request_buckets() -> int:
    """Secrets of a request go when no retry is possible any more (rules.md 22)."""
    return run(WIPE, {"keep": int(settings.REQUEST_BUCKET_KEEP.total_seconds()), "batch": BATCH})


FORGET_KEYS = f"""
DELETE FROM jobs_idempotencykey WHERE id IN (
       SELECT id FROM jobs_idempotencykey WHERE created_at < clock_timestamp() - interval '{ONCE_H} hours'
        LIMIT %(batch)s FOR UPDATE SKIP LOCKED)"""
KEYS_BATCH = 10_000


def forget_keys() -> int:
    """Idempotency-Keys that make no difference any more (rules.md 24)."""
    return run(FORGET_KEYS, {"batch": KEYS_BATCH})


FORGET_WORKERS = """
DELETE FROM jobs_worker w
 WHERE greatest(take_at, stop_at, ping_at, first_seen_at) < clock_timestamp() - interval '1 day'
   AND NOT EXISTS (SELECT 1 FROM jobs_attempt a WHERE a.worker_id = w.id AND a.released_at IS NULL)"""
FORGET_PROCESSES = "DELETE FROM jobs_webprocess WHERE seen_at < clock_timestamp() - interval '1 hour'"


# Two statements: once it is locked no worker can come to name it, and the second sees who did before.
LOCK_CATALOGUES = """
SELECT id FROM jobs_catalogue c WHERE NOT EXISTS (SELECT 1 FROM jobs_worker w WHERE w.catalogue_id = c.id)
   FOR UPDATE SKIP LOCKED"""
FORGET_CATALOGUES = """
DELETE FROM jobs_catalogue c WHERE id = ANY (%(locked)s)
   AND NOT EXISTS (SELECT 1 FROM jobs_worker w WHERE w.catalogue_id = c.id)"""


def forget_gone() -> int:
    """Workers and web processes that have not been seen for long, catalogues that no worker has now, windows of rates
    that are over."""
    return run(FORGET_WORKERS) + run(FORGET_PROCESSES) + _forget_catalogues() + rates.forget()


def _forget_catalogues() -> int:
    with transaction.atomic():
        locked = [id for (id,) in rows(LOCK_CATALOGUES)]
        return run(FORGET_CATALOGUES, {"locked": locked}) if locked else 0


def let_holds_go() -> int:
    """Inputs that no job can need any more: it has ended, and for good or REQUEST_BUCKET_KEEP ago."""
    return release_holds(BATCH)


def retain() -> int:
    """What is kept for some days only. It may be much, so a task deletes it; asked again until it is done."""
    if not retention.due():
        return 0
    async_task("jobs.tasks.retain", cluster="slow")
    return 1


def go_on_deleting() -> int:
    """What was asked to be deleted and is not gone yet."""
    if not deletion.to_do():
        return 0
    async_task("jobs.tasks.go_on_deleting", cluster="slow")
    return 1


def forget_words() -> int:
    """That something was deleted, long ago."""
    return assets.forget_words()


def discard_uploads() -> int:
    """Files that nothing names: the deleting is S3's pace, so a task does it; asked again until it is done."""
    doom_unwon(BATCH)
    if not assets.dying(1).exists():
        return 0
    async_task("jobs.tasks.discard_uploads", cluster="slow")
    return 1


def tell_disabled() -> int:
    """Webhooks that were disabled since: mails go at their server's pace, so a task sends them."""
    if not mail.untold().exists():
        return 0
    async_task("jobs.tasks.tell_disabled", cluster="slow")
    return 1


def forget_deliveries() -> int:
    """Those that ended DELIVERY_DAYS ago."""
    return deliver.forget(KEYS_BATCH)


def forget_secrets() -> int:
    """Of webhooks, when they sign nothing any more."""
    return register.forget_secrets(KEYS_BATCH)


def forget_changes() -> int:
    """Lines of the audit trail, after AUDIT_DAYS."""
    return audit.forget(KEYS_BATCH)


def say_overdue() -> int:
    """Deliveries that are due and that nobody sends: no deliverer runs, or not enough of them."""
    if found := deliver.overdue():
        log.warning("nobody sends deliveries that have been due for %d s: %d", deliver.OVERDUE_S, found)
    return found


STEPS: tuple[Callable[[], int], ...] = (  # every SWEEP_S
    time_out_overdue,
    lose_silent,
    lose_unstarted,
    give_up_expired,
    overflow,
    wake_waiting,
)
SLOW_STEPS: tuple[Callable[[], int], ...] = (
    wipe_request_buckets,
    forget_keys,
    forget_gone,
    forget_previews,
    let_holds_go,
    retain,
    go_on_deleting,
    forget_words,
    discard_uploads,
    tell_disabled,
    forget_deliveries,
    forget_secrets,
    forget_changes,
    say_overdue,
    note_load,
    roll_up,
)  # every minute


def sweep(steps: tuple[Callable[[], int], ...] = STEPS + SLOW_STEPS) -> dict[str, int]:
    """Do all steps; returns how much each found to do."""
    found = {step.__name__: step() for step in steps}
    for name, n in found.items():
        if n:
            log.info("%s: %d", name, n)
    return found
