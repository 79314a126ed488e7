"""What a worker reports of an attempt: started, progress, done (rules.md 4, 9, 10).

News counts only if the attempt is the job's current one, open, held by the worker of the URL, on the key's endpoint.
All other news changes nothing and is noted in the timeline; the worker is answered 200 either way.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

from accounts import sql
from accounts.sealed import Sealed
from jobs.dialects import READERS
from jobs.ids import AttemptId
from jobs.inline import NotStored, Stored
from jobs.live import announce, endpoint_key, job_key, news_key, worker_key
from jobs.models import Endpoint
from jobs.states import HAS_DELIVERIES, News, State, announce_deliveries, delivery_sql, end, lock, note
from jobs.workers import release
from storage.outputs import keep_outputs

log = logging.getLogger("hearth.news")


@dataclass(frozen=True, kw_only=True)
class Done:
    """A job-done: JSON bytes of output and error as they came; `fault`: why nothing could be read from it. `absent`:
    of the files that it reports, the blobs that were looked for in S3 in vain; None: nobody looked. `stored`: those
    that came inside of it, None before they are stored."""

    output: bytes | None = None
    output_value: Any = None
    error: bytes | None = None
    error_value: Any = None
    mended: bool = False
    fault: str = ""
    absent: frozenset[UUID] | None = None
    stored: Stored | None = None


@dataclass(frozen=True, kw_only=True)
class Held:
    """An attempt as its row says, the job's row being locked."""

    job: UUID
    number: int
    tenant_id: UUID
    current: bool
    worker_name: str
    worker_id: int | None
    endpoint_id: int
    backend: str
    dialect: str
    request_bucket: Sealed | None


HELD = """
SELECT j.tenant_id, j.attempt = a.number AND a.ended_at IS NULL, a.worker_name, a.worker_id, a.endpoint_id, e.backend,
       e.dialect, p.request_bucket
  FROM jobs_job j JOIN jobs_attempt a ON a.job_id = j.id JOIN jobs_endpoint e ON e.id = a.endpoint_id
  JOIN jobs_payload p ON p.job_id = j.id
 WHERE j.id = %s AND a.number = %s"""


def lock_attempt(attempt: AttemptId) -> Held | None:
    lock(attempt.job)
    row = sql.first(HELD, [attempt.job, attempt.number])
    if row is None:
        return None
    tenant, current, worker_name, worker_id, endpoint_id, backend, dialect, bucket = row
    return Held(
        job=attempt.job,
        number=attempt.number,
        tenant_id=tenant,
        current=current,
        worker_name=worker_name,
        worker_id=worker_id,
        endpoint_id=endpoint_id,
        backend=backend,
        dialect=dialect,
        request_bucket=None if bucket is None else Sealed(bucket),
    )


def done(endpoint_id: int, worker_name: str, attempt: AttemptId, result: Done) -> bool:
    """Apply a job-done; says whether it ended the job. Doing it twice is as good as once.

    Raises NotLookedAt or NotStored, having changed nothing, if S3 comes first, which no transaction should wait for."""
    with transaction.atomic():
        held = lock_attempt(attempt)
        if held is None or held.endpoint_id != endpoint_id:
            log.info("job-done of worker %s names no attempt of its endpoint: %s", worker_name, attempt)
            return False
        if held.worker_name != worker_name:
            note(
                held.job, held.number, "ignored", f"job-done of worker {worker_name}, which does not hold this attempt"
            )
            return False
        if not held.current:
            release(held.job, held.number)
            note(held.job, held.number, "ignored", "job-done after the attempt had ended")
            return False
        finish(held, result)
    return True


def finish(held: Held, result: Done) -> None:
    """The attempt, which is current and whose job is locked, has come to this."""
    _end(held, result)
    wake_holder(held)


def _end(held: Held, result: Done) -> None:
    if result.mended:
        note(held.job, held.number, "noted", "NaN or Infinity in the result was made null")
    output, error = result.output, result.error
    if result.fault:
        error = orjson.dumps(f"The worker's result was lost: {result.fault}.")
    elif held.dialect != Endpoint.Dialect.RAW:
        output, error = _hearth_output(held, in_our_shape(held.dialect, result))
    to = State.FAILED if error else State.COMPLETED
    text = error.decode(errors="replace")[:500] if error else ""
    end(held.job, to, text, released=True, output=output, error=error)


def in_our_shape(dialect: str, result: Done) -> Done:
    """A foreign worker's result as our own would have told it. Raises NotStored."""
    if dialect not in READERS:
        return result
    read = READERS[dialect](result.output_value, result.error_value if result.error else None)
    if read.inline and result.stored is None:
        raise NotStored(read.inline)
    stored = result.stored or Stored()
    output = read.stored(stored.slots)
    error = "; ".join([*read.faults, *stored.faults])
    if not error:
        return replace(result, output_value=output, error=None, error_value=None)
    output |= {"error": error, "code": "worker_failed" if read.faults else "upload_failed"}
    return replace(result, output_value=output, error=json.dumps(error).encode(), error_value=error)


def _hearth_output(held: Held, result: Done) -> tuple[bytes | None, bytes | None]:
    """Output and error as they are kept: assets recorded and named by key; the error beside them, as the reference has
    it. Files that are not where the worker says fail the job."""
    value = result.output_value
    if not isinstance(value, Mapping) and not result.error:
        return result.output, None
    fields = dict(value) if isinstance(value, Mapping) else {}
    error = result.error
    if isinstance(fields.get("assets"), list):
        kept = keep_outputs(held.tenant_id, held.job, held.number, fields, held.request_bucket, result.absent)
        fields |= {"files": kept.files, "assets": kept.assets}
        if kept.lost and not error:
            fields |= {"error": lost_files(kept.lost), "code": "upload_lost"}
            error = orjson.dumps(fields["error"])
    if result.error:
        fields["error"] = result.error_value
    # not orjson, which refuses what it cannot write, as numbers of over 64 bits
    return json.dumps(fields).encode(), error


def lost_files(names: Sequence[str]) -> str:
    first, more = ", ".join(names[:3]), f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{first}{more}: the worker reported it as uploaded, but S3 has it not, or not whole. "
        "See who else writes or deletes in that S3 bucket, then run the job again."
    )


def wake_holder(held: Held) -> None:
    """After the commit: the job's waiters, the worker that has room again, and who waits behind the grant's cap."""
    keys = [job_key(held.job), endpoint_key(held.endpoint_id)]
    announce(*keys, *([worker_key(held.worker_id)] if held.worker_id else []))


STARTED = f"""
WITH a AS (
    UPDATE jobs_attempt a SET started_at = now.at, confirmed_at = coalesce(a.confirmed_at, now.at), missed_pings = 0
      FROM jobs_job j, (SELECT clock_timestamp() AS at) now
     WHERE a.job_id = %(job)s AND a.number = %(number)s AND a.ended_at IS NULL AND a.started_at IS NULL
       AND j.id = a.job_id AND j.attempt = a.number AND j.state = 'IN_PROGRESS'
    RETURNING a.job_id, a.number, a.started_at, a.worker_id
), j AS (
    UPDATE jobs_job j SET started_at = a.started_at,
           delay_ms = (extract(epoch FROM a.started_at - j.queued_at) * 1000)::bigint,
           deadline_at = a.started_at + j.execution_timeout_ms * interval '1 ms'
      FROM a WHERE j.id = a.job_id RETURNING j.id, j.attempt, j.tenant_id, j.retries
), event AS (
    INSERT INTO jobs_event (job_id, attempt, kind, at) SELECT job_id, number, 'started', started_at FROM a
), delivery AS ({delivery_sql(News.STARTED, "j")})
SELECT worker_id, {HAS_DELIVERIES} FROM a"""


def started(attempt: AttemptId) -> bool:
    """Our worker begins to run: delayTime ends, executionTime and the time-out begin. False: it must not run it."""
    params = {"job": attempt.job, "number": attempt.number}
    with transaction.atomic():
        lock(attempt.job)
        row = sql.first(STARTED, params)
        if row is None:
            return _is_running(attempt)
        announce_deliveries(row[1])
        announce(news_key(attempt.job), *([worker_key(row[0])] if row[0] else []))
    return True


def _is_running(attempt: AttemptId) -> bool:
    """Whether this attempt had started already and still runs: the worker asks a second time."""
    row = sql.first(
        "SELECT 1 FROM jobs_attempt WHERE job_id = %s AND number = %s AND ended_at IS NULL AND started_at IS NOT NULL",
        [attempt.job, attempt.number],
    )
    return row is not None


PROGRESS = """
WITH a AS (
    UPDATE jobs_attempt a SET confirmed_at = coalesce(a.confirmed_at, clock_timestamp())
      FROM jobs_job j
     WHERE a.job_id = %(job)s AND a.number = %(number)s AND a.ended_at IS NULL AND a.worker_name = %(worker)s
       AND a.endpoint_id = %(endpoint)s AND j.id = a.job_id AND j.attempt = a.number
    RETURNING a.job_id
)
UPDATE jobs_payload p SET progress = %(progress)s, progress_fraction = %(fraction)s::float8
  FROM a WHERE p.job_id = a.job_id AND p.progress_fraction <= %(fraction)s::float8"""


def progress(endpoint_id: int, worker_name: str, attempt: AttemptId, raw: bytes, value: Any) -> None:
    """Keep the furthest progress (they come unordered): by `fraction` where the worker says one, else the latest."""
    params = {"job": attempt.job, "number": attempt.number, "worker": worker_name, "endpoint": endpoint_id}
    if sql.run(PROGRESS, params | {"progress": raw, "fraction": _fraction(value)}):
        announce(news_key(attempt.job))


def _fraction(value: Any) -> float:
    fraction = value.get("fraction") if isinstance(value, Mapping) else None
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        return -1.0
    return float(fraction)
