"""The verbs of clients: create, cancel, retry, purge. Each owns its transaction; what a worker says is in news.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from accounts import access, sql
from accounts.errors import Refused, bad_request, not_found
from accounts.keys import GivenKey
from accounts.models import ApiKey, uuid7
from jobs import absent, inputs
from jobs.ids import JobId
from jobs.inputs import Place
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
from jobs.wire.submission import Once, Submission
from storage.assets import Lost
from storage.models import Bucket

RUN, READ = ApiKey.Scope.RUN.value, ApiKey.Scope.READ.value


def no_endpoint(name: str) -> Refused:
    return not_found(f"There is no endpoint {name!r} that this API key may use.")


# What a tenant may address. Of its jobs there are some at other endpoints, by the grant's stand-ins.
GRANTED = """caller JOIN jobs_grant g ON g.tenant_id = caller.tenant_id AND g.overflow_of_id IS NULL
       JOIN jobs_endpoint e ON e.id = g.endpoint_id"""

OWN_GRANT = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, g.id, e.id
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN ({GRANTED}) ON e.name = %(endpoint)s"""


def own_grant(key: GivenKey, endpoint: str, scope: str) -> tuple[int, int]:
    """(grant id, endpoint id) of the caller's grant on the endpoint. Raises Refused: 401, 403, 404."""
    row = sql.one(OWN_GRANT, access.api_key_params(key, scope) | {"endpoint": endpoint})
    access.check_api_key(key, scope, row)
    grant_id, endpoint_id = row[access.API_KEY_WIDTH :]
    if grant_id is None:
        raise no_endpoint(endpoint)
    return grant_id, endpoint_id


ONCE_H = 24  # that an Idempotency-Key is kept
# Some of an endpoint's jobs begin in the queue of another, if it is told to have a share of them (overflow.py).
SHARE = """
      LEFT JOIN LATERAL (
           SELECT s.id, s.endpoint_id, o.backend, 'shared with ' || o.name AS text
             FROM jobs_grant s JOIN jobs_endpoint o ON o.id = s.endpoint_id
            WHERE s.overflow_of_id = g.id AND dice.n >= s.share_from AND dice.n < s.share_below
              AND (o.dialect = e.dialect OR %(inputs)s::bytea IS NULL)) stand_in ON true"""
CREATE = f"""
WITH {access.API_KEY}, place AS (
    SELECT coalesce(stand_in.id, g.id) AS grant_id, g.endpoint_id, g.tenant_id, e.dialect, caller.key_id,
           b.id AS bucket_id, coalesce(stand_in.endpoint_id, e.id) AS place_id,
           coalesce(stand_in.backend, e.backend) AS backend, coalesce(stand_in.text, '') AS text
      FROM {GRANTED} CROSS JOIN (SELECT random() * 100 AS n) dice {SHARE}
      LEFT JOIN storage_bucket b ON b.tenant_id = g.tenant_id
           AND CASE WHEN %(storage)s::text IS NOT NULL THEN b.name = %(storage)s::text
                    WHEN g.bucket_id IS NOT NULL THEN b.id = g.bucket_id
                    ELSE b.is_default END
     WHERE e.name = %(endpoint)s
), fit AS (
    SELECT * FROM place WHERE (dialect = 'raw' OR %(workflow_fault)s::text = '')
       AND (%(storage)s::text IS NULL OR bucket_id IS NOT NULL)
), once AS (
    INSERT INTO jobs_idempotencykey AS k (tenant_id, endpoint_id, key, body_sha256, job_id, created_at)
    SELECT tenant_id, endpoint_id, %(once_key)s::text, %(body_sha256)s::bytea, %(id)s, clock_timestamp()
      FROM fit WHERE %(once_key)s::text IS NOT NULL
        ON CONFLICT (tenant_id, endpoint_id, key) DO UPDATE
       SET body_sha256 = excluded.body_sha256, job_id = excluded.job_id, created_at = excluded.created_at
     WHERE k.created_at < clock_timestamp() - interval '{ONCE_H} hours' RETURNING k.job_id
), job AS (
    INSERT INTO jobs_job (id, sync, tenant_id, endpoint_id, grant_id, api_key_id, bucket_id, priority, model_hashes,
                          ttl_ms, execution_timeout_ms, created_at, queued_at, deadline_at)
    SELECT %(id)s, %(sync)s, tenant_id, endpoint_id, grant_id, key_id, bucket_id, %(priority)s,
           %(model_hashes)s::bigint[], %(ttl_ms)s, %(execution_timeout_ms)s, now.at, now.at,
           now.at + %(ttl_ms)s::bigint * interval '1 ms'
      FROM fit, (SELECT clock_timestamp() AS at) now
     WHERE %(once_key)s::text IS NULL OR EXISTS (SELECT 1 FROM once)
    RETURNING id, created_at
), payload AS (
    INSERT INTO jobs_payload (job_id, input, inputs, moved_bytes, webhook, policy, request_bucket)
    SELECT job.id, CASE WHEN dialect = 'raw' THEN %(input)s::bytea ELSE coalesce(%(workflow_input)s, %(input)s) END,
           %(inputs)s::bytea, %(moved_bytes)s, %(webhook)s, %(policy)s,
           CASE WHEN dialect = 'raw' THEN %(raw_request_bucket)s::bytea ELSE %(request_bucket)s::bytea END
      FROM job, place
), event AS (
    INSERT INTO jobs_event (job_id, kind, at, text) SELECT id, 'created', created_at, text FROM job, place
)
SELECT {access.API_KEY_COLUMNS}, place.endpoint_id, place.place_id, place.backend, place.bucket_id,
       fit.endpoint_id IS NOT NULL, job.id
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN place ON true LEFT JOIN fit ON true LEFT JOIN job ON true"""


@dataclass(frozen=True, kw_only=True)
class Created:
    """The job of a submission; `replayed`: the state it is in, if the same submission had made it before."""

    job: JobId
    replayed: State | None = None


def create(key: GivenKey, endpoint: str, submission: Submission) -> Created:
    """Write the job: what this returns is durable. Refused: 400, 401, 403, 404, 409, 422; then nothing is written.

    With an Idempotency-Key that made a job here before, that job is returned.
    """
    while True:
        has_files = submission.references or submission.raw_references or submission.moved
        make = _create_with_files if has_files else _create
        if created := make(key, endpoint, submission):
            return created  # else the submission that had this key was rolled back, or its day is over


def _create_with_files(key: GivenKey, endpoint: str, submission: Submission) -> Created | None:
    """The same, with the files that its input names: found and locked before, held and named after. Refused(503): what
    was moved out of the request has gone meanwhile."""
    try:
        with transaction.atomic():
            tenant_id, places = inputs.find(key, endpoint, submission)
            places += inputs.keep_moved(submission.moved)
            created = _create(key, endpoint, submission, places)
            if created and created.replayed is None and tenant_id:
                inputs.hold(created.job.uuid, places)
                inputs.name_moved(created.job.uuid, tenant_id, submission.moved, places)
            elif submission.moved:
                transaction.set_rollback(True)  # a replay: nothing of this request is needed
            return created
    except Lost as error:
        raise Refused(
            503, "unavailable", "A file of the request was deleted meanwhile. Try again.", retry_after_s=1
        ) from error


def _create(key: GivenKey, endpoint: str, submission: Submission, files: Sequence[Place] = ()) -> Created | None:
    params = access.api_key_params(key, RUN) | vars(submission) | {"endpoint": endpoint, "id": uuid7()}
    params |= {"inputs": inputs.stored(files), "moved_bytes": sum(moved.blob.bytes for moved in submission.moved)}
    if submission.workflow_input is submission.input:
        params["workflow_input"] = None  # the same bytes are not sent twice
    for name in ("request_bucket", "raw_request_bucket"):
        params[name] = getattr(getattr(submission, name), "token", None)
    once = submission.once
    params |= {"once_key": once and once.key, "body_sha256": once and once.body_sha256}
    row = sql.one(CREATE, params)
    access.check_api_key(key, RUN, row)
    endpoint_id, place_id, backend, bucket_id, fits, job_id = row[access.API_KEY_WIDTH :]
    if endpoint_id is None:
        raise no_endpoint(endpoint)
    if submission.storage and bucket_id is None:
        raise _no_bucket(row[0], submission.storage)
    if not fits:
        raise submission.refusal()
    if job_id is None:
        assert once is not None
        return replay(row[0], endpoint_id, once)
    wake_endpoint(place_id, backend)
    return Created(job=JobId(job_id, submission.sync))


def _no_bucket(api_key: int, name: str) -> Refused:
    buckets = Bucket.all_tenants.filter(tenant__api_keys=api_key).order_by("name").values_list("name", flat=True)
    yours = f"Yours are: {', '.join(buckets)}." if buckets else "You have none."
    return bad_request(f"`storage`: there is no bucket {name!r} of yours. {yours}", "unknown_bucket")


# A statement of its own: the one that waited for the other submission's commit does not see what it wrote.
REPLAY = """
SELECT k.body_sha256, k.job_id, j.sync, j.state
  FROM jobs_idempotencykey k JOIN accounts_apikey a ON a.tenant_id = k.tenant_id LEFT JOIN jobs_job j ON j.id = k.job_id
 WHERE a.id = %(api_key)s AND k.endpoint_id = %(endpoint)s AND k.key = %(key)s"""


def replay(api_key: int, endpoint_id: int, once: Once) -> Created | None:
    """The job that this submission made before, if it did. Raises Refused: 409, 422."""
    row = sql.first(REPLAY, {"api_key": api_key, "endpoint": endpoint_id, "key": once.key})
    if row is None:
        return None
    body_sha256, job, sync, state = row
    if bytes(body_sha256) != once.body_sha256:
        error = f"The Idempotency-Key {once.key!r} came with another body before. A new request needs a new key."
        raise Refused(422, "idempotency_key_reused", error)
    if state is None:
        raise Refused(409, "job_gone", f"The job of the Idempotency-Key {once.key!r} has been deleted.")
    return Created(job=JobId(job, sync), replayed=State(state))


OWN_JOB = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, j.id
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id)
    ON j.id = %(job)s AND j.sync = %(sync)s AND e.name = %(endpoint)s"""


def own_job(key: GivenKey, endpoint: str, job: JobId, scope: str) -> None:
    """Raises Refused unless the job is the caller's and on this endpoint: 401, 403, 404, 410."""
    params = access.api_key_params(key, scope) | {"job": job.uuid, "sync": job.sync, "endpoint": endpoint}
    row = sql.one(OWN_JOB, params)
    access.check_api_key(key, scope, row)
    if row[access.API_KEY_WIDTH] is None:
        raise absent.why(row[0], job, endpoint)


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
