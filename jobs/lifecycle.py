"""The verbs of clients for jobs that are there: cancel, retry, purge. Each owns its transaction."""

from typing import Any
from uuid import UUID

from django.db import transaction

from accounts import access, sql
from accounts.errors import Refused
from accounts.keys import GivenKey
from jobs import absent, inputs
from jobs.granted import GRANTED, RUN, no_endpoint, own_job
from jobs.ids import JobId
from jobs.live import announce, job_key
from jobs.models import Payload
from jobs.states import (
    HAS_DELIVERIES,
    News,
    State,
    announce_deliveries,
    delivery_sql,
    end,
    end_ctes,
    event_sql,
    lock,
    move_sql,
)
from jobs.usage import settle
from jobs.wake import holder, wake_endpoint, wake_to_stop


def cancel(key: GivenKey, endpoint: str, job: JobId) -> State:
    """Cancel the caller's job; returns the state it is in now."""
    with transaction.atomic():
        own_job(key, endpoint, job, RUN)
        return cancel_job(job.uuid, "by the client")


def cancel_job(job: UUID, by: str) -> State:
    """End a job; its worker is told to stop. An ended job stays as it is. Returns the state it is in now."""
    with transaction.atomic():
        state, held = _lock(job), holder(job)
        if not end(job, State.CANCELLED, by):
            return state
        announce(job_key(job))
        wake_to_stop(held)
    return State.CANCELLED


def _lock(job: UUID) -> State:
    state = lock(job)
    assert state is not None
    return state


RETRYABLE = (State.FAILED, State.TIMED_OUT)
RETRY = f"""
WITH job AS ({
    move_sql(
        State.IN_QUEUE,
        "queued_at = clock_timestamp(), deadline_at = clock_timestamp() + j.ttl_ms * interval '1 ms',"
        " started_at = NULL, finished_at = NULL, delay_ms = NULL, execution_ms = NULL, worker_name = '',"
        " losses = 0, free_losses = 0, retries = j.retries + 1,"
        " grant_id = (SELECT coalesce(g.overflow_of_id, g.id) FROM jobs_grant g WHERE g.id = j.grant_id)",
        "j.id = %(job)s",
        only=RETRYABLE,
    )
} RETURNING j.id, j.attempt, j.tenant_id, j.retries, j.endpoint_id),
cleared AS (
    UPDATE jobs_payload p SET output = NULL, error = NULL, progress = NULL, progress_fraction = -1
      FROM job WHERE p.job_id = job.id
), stream AS (
    DELETE FROM jobs_chunk c USING job WHERE c.job_id = job.id
), event AS ({event_sql("retried", "job")}), delivery AS ({delivery_sql(News.RETRIED, "job")})
SELECT {HAS_DELIVERIES}, e.id, e.backend FROM job JOIN jobs_endpoint e ON e.id = job.endpoint_id"""


def retry(key: GivenKey, endpoint: str, job: JobId) -> State:
    """Queue the caller's FAILED or TIMED_OUT job again; Refused(409) for any other."""
    with transaction.atomic():
        own_job(key, endpoint, job, RUN)
        return retry_job(job.uuid, "by the client")


def retry_job(job: UUID, by: str) -> State:
    """Queue a FAILED or TIMED_OUT job again, once per end, where it was addressed.

    Refused: 409 for any other, 410 without its input."""
    with transaction.atomic():
        state = _lock(job)
        payload = (
            Payload.objects.filter(job__payload_gone_at=None, pk=job).only("inputs", "request_bucket_wiped").first()
        )
        if payload is None:
            raise absent.of(job)
        if state not in RETRYABLE:
            raise Refused(409, "not_retryable", f"Only FAILED and TIMED_OUT jobs can be retried; this one is {state}.")
        if payload.request_bucket_wiped:
            raise Refused(409, "not_retryable", "The S3 secrets of this job are kept for 24 h only. Run it anew.")
        if not inputs.can_run_again(payload):
            raise Refused(409, "not_retryable", "The input files of this job are held for 24 h only. Run it anew.")
        told, *endpoint = sql.one(RETRY, {"job": job, "text": by})
        announce_deliveries(told)
        wake_endpoint(*endpoint)
    return State.IN_QUEUE


PURGE = f"""
WITH {access.API_KEY}, place AS (
    SELECT g.id AS grant_id FROM {GRANTED} WHERE e.name = %(endpoint)s
), head AS (
    SELECT j.id FROM place JOIN jobs_grant s ON place.grant_id IN (s.id, s.overflow_of_id)
      JOIN jobs_job j ON j.grant_id = s.id WHERE j.state = 'IN_QUEUE' LIMIT %(batch)s
       FOR UPDATE OF j SKIP LOCKED
), {end_ctes(State.CANCELLED, "j.id IN (SELECT id FROM head)")}
SELECT {access.API_KEY_COLUMNS}, place.grant_id, (SELECT array_agg(id) FROM job), {HAS_DELIVERIES}
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN place ON true"""
PURGE_BATCH = 2000


def purge(key: GivenKey, endpoint: str) -> int:
    """Cancel all of the caller's queued jobs on the endpoint, batch by batch; returns how many."""
    params: dict[str, Any] = access.api_key_params(key, RUN)
    params |= {"endpoint": endpoint, "batch": PURGE_BATCH, "text": "purged from the queue"}
    params |= {"released": True, "output": None, "error": None}
    removed = 0
    while True:
        with transaction.atomic():
            row = sql.one(PURGE, params)
            access.check_api_key(key, RUN, row)
            grant_id, cancelled, told = row[access.API_KEY_WIDTH :]
            if grant_id is None:
                raise no_endpoint(endpoint)
            settle(cancelled or (), State.CANCELLED.value)
            announce(*(job_key(job) for job in cancelled or ()))
            announce_deliveries(told)
        removed += len(cancelled or ())
        if len(cancelled or ()) < PURGE_BATCH:
            return removed
