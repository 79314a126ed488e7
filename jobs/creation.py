"""create(): a submission becomes a job, once, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from psycopg.errors import ForeignKeyViolation

from accounts import access, sql
from accounts.errors import Refused, bad_request
from accounts.keys import GivenKey
from accounts.models import uuid7
from jobs import inputs
from jobs.granted import GRANTED, RUN, no_endpoint
from jobs.ids import JobId
from jobs.inputs import Place
from jobs.states import State
from jobs.wake import wake_endpoint
from jobs.wire import metadata
from jobs.wire.submission import Once, Submission
from storage.assets import Lost
from storage.models import Bucket

ONCE_H = 24  # that an Idempotency-Key is kept
# Some of an endpoint's jobs begin in the queue of another, if it is told to have a share of them (overflow.py).
SHARE = """
      LEFT JOIN LATERAL (
           SELECT s.id, s.endpoint_id, o.backend, 'shared with ' || o.name AS text
             FROM jobs_grant s JOIN jobs_endpoint o ON o.id = s.endpoint_id
            WHERE s.overflow_of_id = g.id AND dice.n >= s.share_from AND dice.n < s.share_below
              AND (o.dialect = e.dialect OR %(inputs)s::bytea IS NULL)) stand_in ON true"""
# For requests with metadata alone: a part of a statement that finds nothing to write costs, too.
METADATA = """), metadata AS (
    INSERT INTO jobs_metadata (job_id, tenant_id, name, value, is_text)
    SELECT job.id, place.tenant_id, m.name, m.value, m.is_text
      FROM job, place, unnest(%(metadata_names)s::text[], %(metadata_values)s::text[], %(metadata_texts)s::bool[])
           m (name, value, is_text)
"""


def _create_sql(more: str = "") -> str:
    return f"""
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
    INSERT INTO jobs_job (id, sync, tenant_id, endpoint_id, grant_id, api_key_id, bucket_id, workflow_id,
                          workflow_version, priority, model_hashes, ttl_ms, execution_timeout_ms, run_again_of,
                          created_at, queued_at, deadline_at)
    SELECT %(id)s, %(sync)s, tenant_id, endpoint_id, grant_id, key_id, bucket_id, %(workflow)s::uuid, %(version)s::int,
           %(priority)s, %(model_hashes)s::bigint[], %(ttl_ms)s, %(execution_timeout_ms)s, %(run_again_of)s,
           now.at, now.at, now.at + %(ttl_ms)s::bigint * interval '1 ms'
      FROM fit, (SELECT clock_timestamp() AS at) now
     WHERE %(once_key)s::text IS NULL OR EXISTS (SELECT 1 FROM once)
    RETURNING id, created_at
), payload AS (
    INSERT INTO jobs_payload (job_id, input, params, inputs, moved_bytes, webhook, policy, request_bucket)
    SELECT job.id, CASE WHEN dialect = 'raw' THEN %(input)s::bytea ELSE coalesce(%(workflow_input)s, %(input)s) END,
           %(params)s::bytea, %(inputs)s::bytea, %(moved_bytes)s, %(webhook)s, %(policy)s,
           CASE WHEN dialect = 'raw' THEN %(raw_request_bucket)s::bytea ELSE %(request_bucket)s::bytea END
      FROM job, place
{more}), event AS (
    INSERT INTO jobs_event (job_id, kind, at, text) SELECT id, 'created', created_at, text FROM job, place
)
SELECT {access.API_KEY_COLUMNS}, place.endpoint_id, place.place_id, place.backend, place.bucket_id,
       fit.endpoint_id IS NOT NULL, job.id
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN place ON true LEFT JOIN fit ON true LEFT JOIN job ON true"""


CREATE, CREATE_WITH_METADATA = _create_sql(), _create_sql(METADATA)


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
        try:
            created = make(key, endpoint, submission)
        except IntegrityError as error:
            if not isinstance(error.__cause__, ForeignKeyViolation):  # found at the commit
                raise
            raise _deleted_meanwhile("The job's bucket or endpoint") from error
        if created:
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
        raise _deleted_meanwhile("A file of the request") from error


def _deleted_meanwhile(what: str) -> Refused:
    return Refused(503, "unavailable", f"{what} was deleted meanwhile. Try again.", retry_after_s=1)


def _create(key: GivenKey, endpoint: str, submission: Submission, files: Sequence[Place] = ()) -> Created | None:
    params = access.api_key_params(key, RUN) | vars(submission) | {"endpoint": endpoint, "id": uuid7()}
    params |= {"inputs": inputs.stored(files), "moved_bytes": sum(moved.blob.bytes for moved in submission.moved)}
    if submission.workflow_input is submission.input:
        params["workflow_input"] = None  # the same bytes are not sent twice
    for name in ("request_bucket", "raw_request_bucket"):
        params[name] = getattr(getattr(submission, name), "token", None)
    ran, once = submission.ran, submission.once
    params |= {"workflow": ran and ran.workflow, "version": ran and ran.version, "params": ran and ran.params}
    params |= metadata.columns(submission.metadata)
    params |= {"once_key": once and once.key, "body_sha256": once and once.body_sha256}
    row = sql.one(CREATE_WITH_METADATA if submission.metadata else CREATE, params)
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
