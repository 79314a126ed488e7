"""What jobs look like from outside: RunPod's status JSON, health, requests, and the timeline for operators."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from accounts import access, sql
from accounts.keys import GivenKey
from accounts.sealed import SealBroken
from jobs import absent
from jobs.granted import READ, own_grant
from jobs.ids import JobId, public_id
from jobs.live import Key
from jobs.models import Endpoint, Event, Grant, Job
from jobs.sight import Queued
from jobs.states import FINAL, State
from jobs.waits import why
from storage.models import Bucket, preview_key
from storage.outputs import signer


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A job as it is now. output, error, progress: JSON bytes. files_gone: some of its files may have been deleted."""

    uuid: UUID
    id: str
    state: State
    dialect: str
    attempt: int
    delay_ms: int | None
    execution_ms: int | None
    worker: str
    output: bytes | None
    error: bytes | None
    progress: bytes | None
    bucket_id: int | None
    files_gone: bool = False
    queued: Queued | None = None

    @property
    def ended(self) -> bool:
        return self.state in FINAL

    def json(self) -> bytes:
        return orjson.dumps(self.fields())

    def fields(self) -> dict[str, Any]:
        """RunPod's status JSON; output and error are the bytes that the worker sent, except for signed URLs."""
        answer: dict[str, Any] = {}
        for name, value in (("delayTime", self.delay_ms), ("executionTime", self.execution_ms)):
            if value is not None:
                answer[name] = value
        answer["id"] = self.id
        answer["status"] = self.state.value
        output = self.output if self.ended else self.progress
        if output is not None:
            answer["output"] = orjson.Fragment(self._signed(output))
        if self.error is not None:
            answer["error"] = orjson.Fragment(self.error)
        if self.worker:
            answer["workerId"] = self.worker
        if self.queued and (waits := why(self.queued)):
            answer["queue"] = waits
        return answer

    def _signed(self, output: bytes) -> bytes:
        if self.dialect == Endpoint.Dialect.RAW or not self.ended or b'"assets"' not in output:
            return output
        bucket = Bucket.all_tenants.get(pk=self.bucket_id) if self.bucket_id else None
        there = {key for (key,) in sql.rows(THERE, [self.uuid])} if self.files_gone else None
        return json.dumps(with_urls(json.loads(output), bucket, there)).encode()


THERE = "SELECT b.key FROM storage_asset f JOIN storage_blob b ON b.id = f.blob_id WHERE f.job_id = %s"


def with_urls(output: Any, bucket: Bucket | None, there: Collection[str] | None = None) -> Any:
    """The stored output with URLs signed now in place of the keys of its files, of those that are there (None: all);
    other shapes stay as they are."""
    if not isinstance(output, dict) or not isinstance(output.get("assets"), list):
        return output
    files, assets = list(output["files"]), [dict(asset) for asset in output["assets"]]
    for position, asset in enumerate(assets):
        key = asset.pop("key", None)
        if key is None:
            continue
        if there is not None and key not in there:
            asset["url"] = asset["preview"] = files[position] = None
            asset["error"] = "The file was deleted."
            continue
        try:
            asset["url"] = files[position] = asset.get("url") or signer.url(bucket, key)
            asset["preview"] = signer.url(bucket, preview_key(key)) if asset.get("preview") is True else None
        except SealBroken:
            asset["url"] = asset["preview"] = files[position] = None
            asset["error"] = "The secret of its bucket cannot be read. Ask the operator."
    return {**output, "files": files, "assets": assets}


COLUMNS = """j.id, j.sync, j.state, e.dialect, j.attempt, j.delay_ms, j.execution_ms, j.worker_name, p.output, p.error,
       CASE WHEN j.state = 'IN_PROGRESS' THEN p.progress END, j.bucket_id,
       j.files_gone_at IS NOT NULL,
       j.id, j.priority, j.grant_id, j.api_key_id, j.losses + j.free_losses"""
COLUMNS_WIDTH = 18

STATUS = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, {COLUMNS}
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id
             JOIN jobs_payload p ON p.job_id = j.id)
    ON j.id = %(job)s AND j.sync = %(sync)s AND e.name = %(endpoint)s AND j.payload_gone_at IS NULL
   AND {access.allows("caller")}"""


def snapshot(row: sql.Row) -> Snapshot:
    """Of COLUMNS."""
    job, sync, state, dialect, attempt, delay_ms, execution_ms, worker, output, error, progress = row[:11]
    bucket_id, files_gone, *line = row[11:COLUMNS_WIDTH]
    return Snapshot(
        uuid=job,
        id=public_id(job, sync),
        state=State(state),
        dialect=dialect,
        attempt=attempt,
        delay_ms=delay_ms,
        execution_ms=execution_ms,
        worker=worker,
        output=None if output is None else bytes(output),
        error=None if error is None else bytes(error),
        progress=None if progress is None else bytes(progress),
        bucket_id=bucket_id,
        files_gone=files_gone,
        queued=Queued(*line) if state == State.IN_QUEUE else None,
    )


def status(key: GivenKey, endpoint: str, job: JobId) -> Snapshot:
    """Raises Refused: 401, 403, 404, 410."""
    params = access.api_key_params(key, READ) | {"job": job.uuid, "sync": job.sync, "endpoint": endpoint}
    row = sql.one(STATUS, params)
    access.check_api_key(key, READ, row)
    if row[access.API_KEY_WIDTH] is None:
        raise absent.why(row[0], job, endpoint)
    return snapshot(row[access.API_KEY_WIDTH :])


RESULT = f"""
SELECT {COLUMNS} FROM jobs_job j JOIN jobs_endpoint e ON e.id = j.endpoint_id JOIN jobs_payload p ON p.job_id = j.id
 WHERE j.id = %s AND j.payload_gone_at IS NULL"""


def result(job: UUID) -> Snapshot:
    """A job for its own submission's answer (runsync): whoever wrote it may read it. Raises Refused: 410."""
    row = sql.first(RESULT, [job])
    if row is None:
        raise absent.of(job)
    return snapshot(row)


JOB_COUNTS = """
SELECT count(*) FILTER (WHERE state = 'COMPLETED'), count(*) FILTER (WHERE state IN ('FAILED', 'TIMED_OUT')),
       count(*) FILTER (WHERE state = 'IN_PROGRESS'), count(*) FILTER (WHERE state = 'IN_QUEUE'),
       coalesce(sum(retries), 0)
  FROM jobs_grant g CROSS JOIN LATERAL (
               SELECT state, retries FROM jobs_job WHERE grant_id = g.id AND state = 'IN_QUEUE'
        UNION ALL SELECT j.state, j.retries FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id
                   WHERE a.grant_id = g.id AND a.released_at IS NULL AND a.ended_at IS NULL
        UNION ALL SELECT state, retries FROM jobs_job
                   WHERE grant_id = g.id AND finished_at > clock_timestamp() - interval '24 hours') j
 WHERE g.id = %(grant)s OR g.overflow_of_id = %(grant)s"""

WORKER_COUNTS = """
SELECT count(*) FILTER (WHERE alive AND NOT busy), count(*) FILTER (WHERE alive AND busy),
       count(*) FILTER (WHERE NOT alive AND unhealthy <> '')
  FROM (SELECT unhealthy,
               unhealthy = '' AND greatest(take_at, stop_at, ping_at) > clock_timestamp() - interval '30 s' AS alive,
               EXISTS (SELECT 1 FROM jobs_attempt a WHERE a.worker_id = w.id AND a.released_at IS NULL) AS busy
          FROM jobs_worker w
         WHERE w.endpoint_id = %(endpoint)s
           AND greatest(take_at, stop_at, ping_at) > clock_timestamp() - interval '5 minutes') w"""


def health(key: GivenKey, endpoint: str) -> dict[str, dict[str, int]]:
    """RunPod's health: the caller's jobs (ended ones of the last 24 h), and all workers of the endpoint."""
    return health_of(*own_grant(key, endpoint, READ))


def health_of(grant_id: int, endpoint_id: int) -> dict[str, dict[str, int]]:
    completed, failed, in_progress, in_queue, retried = sql.one(JOB_COUNTS, {"grant": grant_id})
    idle, running, unhealthy = sql.one(WORKER_COUNTS, {"endpoint": endpoint_id})
    jobs = {"completed": completed, "failed": failed, "inProgress": in_progress, "inQueue": in_queue}
    workers = {"idle": idle, "initializing": 0, "ready": idle + running, "running": running, "throttled": 0}
    return {"jobs": jobs | {"retried": int(retried)}, "workers": workers | {"unhealthy": unhealthy}}


REQUESTS_LIMIT = 100


def requests(key: GivenKey, endpoint: str) -> dict[str, list[dict[str, Any]]]:
    """The caller's latest 100 jobs on the endpoint, newest first, without payloads."""
    grant_id, endpoint_id = own_grant(key, endpoint, READ)
    tenant = Grant.all_tenants.filter(pk=grant_id).values("tenant")[:1]  # whose jobs an index finds by their age
    jobs = Job.all_tenants.filter(tenant=tenant, endpoint_id=endpoint_id).order_by("-id")[:REQUESTS_LIMIT]
    return {"requests": [_listed(job) for job in jobs]}


def _listed(job: Job) -> dict[str, Any]:
    times = {"delayTime": job.delay_ms, "executionTime": job.execution_ms}
    known: dict[str, Any] = {name: value for name, value in times.items() if value is not None}
    worker = {"workerId": job.worker_name} if job.worker_name else {}
    waits = why(queued(job)) if job.state == State.IN_QUEUE else None
    known |= {"queue": waits} if waits else {}
    return {"id": job.public_id, "status": job.state, "createdAt": job.created_at.isoformat(), **known, **worker}


def queued(job: Job) -> Queued:
    losses = job.losses + job.free_losses
    return Queued(job.pk, job.priority, job.grant_id, job.api_key_id, losses)


def timeline(job: Job, events: list[Event] | None = None) -> list[dict[str, Any]]:
    """The job's events: at (ISO 8601), ms since the submission and since the event before, kind, attempt, text."""
    events = list(Event.objects.filter(job=job)) if events is None else events
    before = [job.created_at] + [event.at for event in events]
    return [
        {
            "at": event.at.isoformat(),
            "ms": _ms(event.at, job.created_at),
            "after_ms": _ms(event.at, last),
            "kind": event.kind,
            "attempt": event.attempt,
            "text": event.text,
        }
        for event, last in zip(events, before, strict=False)
    ]


def _ms(at: datetime, since: datetime) -> int:
    return round((at - since).total_seconds() * 1000)


# Changes whenever a line of the job's timeline, its progress or a preview is written; `p` is its payload.
VERSION = """(SELECT coalesce(max(v.id), 0) FROM jobs_event v WHERE v.job_id = p.job_id) || ' ' || p.xmin::text
    || coalesce((SELECT ' ' || v.xmin::text FROM jobs_preview v WHERE v.job_id = p.job_id), '')"""

NEWS = f"""
SELECT 'j:' || id, '' FROM jobs_job WHERE id = ANY (string_to_array(%(j)s, ',')::uuid[]) AND finished_at IS NOT NULL
UNION ALL
SELECT 'n:' || n, coalesce({VERSION}, 'gone')
  FROM unnest(string_to_array(%(n)s, ',')::uuid[]) n LEFT JOIN jobs_payload p ON p.job_id = n
UNION ALL
SELECT 'e:' || g.endpoint_id, '' FROM jobs_grant g WHERE g.endpoint_id = ANY (%(e)s::bigint[])
   AND EXISTS (SELECT 1 FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE') GROUP BY g.endpoint_id
UNION ALL
SELECT 'w:' || w, '' FROM unnest(%(w)s::bigint[]) w
UNION ALL
SELECT 's:' || s, '' FROM unnest(%(s)s::uuid[]) s
 WHERE EXISTS (SELECT 1 FROM jobs_chunk c WHERE c.job_id = s AND c.sent_at IS NULL)"""


def have_news(keys: list[Key]) -> list[tuple[Key, str]]:
    """Of all that is waited for, in one query: jobs that ended, the version that a job's news is at, streams with a
    chunk that nobody has read, endpoints with a queue, and all workers.

    The jobs, which may be thousands, go as one text: psycopg would hold up the event loop to make an array of them.
    """
    ids: dict[str, list[Any]] = {"j": [], "n": [], "s": [], "e": [], "w": []}
    for key in keys:
        kind, _, name = key.partition(":")
        ids[kind].append(name if kind in "jns" else int(name))
    return [(key, version) for key, version in sql.rows(NEWS, ids | {kind: ",".join(ids[kind]) for kind in "jn"})]


# Since when some web process could take polls and pings without a gap.
IS_UP = "seen_at > clock_timestamp() - interval '10 s'"
UP_FOR = f"""
SELECT coalesce(min(up_since) < clock_timestamp() - %s * interval '1 s', false)
  FROM jobs_webprocess WHERE {IS_UP}"""


def up_for(seconds: int) -> bool:
    """Whether workers could be heard for so long; else their silence says nothing."""
    return bool(sql.one(UP_FOR, [seconds])[0])


BEAT = """
INSERT INTO jobs_webprocess AS p (id, up_since, seen_at) VALUES (%(id)s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(),
       up_since = CASE WHEN p.seen_at < clock_timestamp() - interval '6 s' THEN clock_timestamp() ELSE p.up_since END"""


def beat(process: UUID) -> None:
    """This web process can take polls and pings; after a gap it counts as up from now on."""
    sql.run(BEAT, {"id": process})
