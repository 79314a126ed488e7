"""A tenant's job history: which jobs a search finds, newest first, and one with all that was kept of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from math import isfinite
from operator import or_
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Exists, F, Func, OuterRef, Q, QuerySet, TextField, Value

from jobs import absent
from jobs.granted import Holder
from jobs.history import result, timeline
from jobs.ids import parse_job_id
from jobs.models import Attempt, Deletion, Job, Payload, Workflow
from jobs.models.metadata import metadata_of
from jobs.states import State
from storage.assets import when

WITH_ERROR = (State.FAILED, State.TIMED_OUT)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Empty: any. `since`, `until` (without it): by the time in a job's id, to the ms. `key`: an API key's prefix.
    `workflow`: a stored one, by its name now, or one version of it. `error`: a part of what went wrong, its ASCII in
    capitals or not. `metadata`: (name, value as it is written)s that a job has all of.
    `before`: jobs that are older than this one."""

    states: Sequence[str] = ()
    endpoint: str = ""
    key: str = ""
    workflow: str = ""
    since: datetime | None = None
    until: datetime | None = None
    error: str = ""
    metadata: Sequence[tuple[str, str]] = ()
    before: UUID | None = None


def found(holder: Holder, search: Search) -> QuerySet[Job]:
    jobs = _visible(holder)
    if search.states:
        jobs = jobs.filter(state__in=search.states)
    if search.endpoint:
        jobs = jobs.filter(endpoint__name=search.endpoint)
    if search.key:
        jobs = jobs.filter(api_key__tenant=holder.tenant_id, api_key__prefix=search.key)
    if search.workflow:
        name, _, version = search.workflow.partition("@")
        jobs = jobs.filter(workflow__in=Workflow.all_tenants.filter(tenant_id=holder.tenant_id, name=name))
        jobs = jobs.filter(workflow_version=int(version)) if version else jobs
    bounds = _bounds(search)
    jobs = jobs.filter(**{f"pk__{how}": id for how, id in bounds.items()})
    for name, value in search.metadata:  # a job has one such row: a join by an index that is in the order of the list
        entry = {"metadata__tenant": holder.tenant_id, "metadata__name": name, "metadata__value": value}
        jobs = jobs.filter(**entry, **{f"metadata__job__{how}": id for how, id in bounds.items()})
    if search.error:
        text = Func(F("payload__error"), Value("escape"), function="encode", output_field=TextField())
        forms = [Q(why__icontains=_escaped(form)) for form in _json_forms(search.error)]
        jobs = jobs.annotate(why=text).filter(reduce(or_, forms), state__in=WITH_ERROR)
    return jobs


def _bounds(search: Search) -> dict[str, UUID]:
    """Of the ids, by lookup."""
    ends = [*([_first_id(search.until)] if search.until else []), *([search.before] if search.before else [])]
    return ({"gte": _first_id(search.since)} if search.since else {}) | ({"lt": min(ends)} if ends else {})


def _json_forms(text: str) -> set[str]:
    """How it may stand in an error's JSON: as it is or in ASCII, or once more within a string, as the SDK writes."""
    plain = {orjson.dumps(text).decode()[1:-1], json.dumps(text)[1:-1]}
    return plain | {json.dumps(form)[1:-1] for form in plain}


def _escaped(text: str) -> str:
    """As PostgreSQL's encode(…, 'escape') shows bytes, which no bytes make fail."""
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0 < byte < 0x80 else f"\\{byte:03o}" for byte in text.encode()
    )


def _first_id(at: datetime) -> UUID:
    """No job of this time or later has a smaller id: they are UUIDs of version 7, which begin with the ms."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def _visible(holder: Holder) -> QuerySet[Job]:
    """All but those whose deletion was asked for, which may take a while."""
    asked = Deletion.all_tenants.filter(job_id=OuterRef("pk"))
    jobs = Job.all_tenants.filter(~Exists(asked), holder.sees("endpoint__name"), tenant_id=holder.tenant_id)
    return jobs.select_related("endpoint", "grant__endpoint", "api_key", "workflow").prefetch_related("metadata")


def one(holder: Holder, text: str) -> Job:
    """Raises Refused: 404, 410."""
    job = parse_job_id(text)
    if job is None:
        raise absent.no_job(text, where="")
    row = _visible(holder).filter(pk=job.uuid, sync=job.sync).first()
    if row is None:
        raise absent.why(holder.key_id, job)
    return row


def shown(job: Job) -> dict[str, Any]:
    """As a list has it."""
    key = job.api_key
    return {
        "id": job.public_id,
        "endpoint": job.endpoint.name,
        "place": job.grant.endpoint.name,
        "status": job.state,
        "priority": job.priority,
        "workflow": job.ran,
        "key": {"prefix": key.prefix, "name": key.name} if key else None,
        "created_at": when(job.created_at),
        "started_at": when(job.started_at),
        "finished_at": when(job.finished_at),
        "delay_ms": job.delay_ms,
        "execution_ms": job.execution_ms,
        "worker": job.worker_name or None,
        "attempt_count": job.attempt,
        "retries": job.retries,
        "metadata": metadata_of(job),
        "run_again_of": job.run_again_of or None,
    }


def told(holder: Holder, job: Job, *, with_input: bool) -> dict[str, Any]:
    """All of it; what was deleted of it by then is None, and `payload_deleted_at` says when."""
    known = _read(result(job.pk).json()) if job.payload_gone_at is None else {}
    given = _given(job, with_input) if known else {}
    return {
        **shown(job),
        "attempts": [_attempt(attempt) for attempt in Attempt.objects.filter(job=job).order_by("number")],
        "run_again_as": [again.public_id for again in run_again_as(holder, job)],
        "timeline": timeline(job),
        **{name: known.get(name) for name in ("queue", "output", "error")},
        "params": given.get("params"),
        **({"input": given.get("input")} if with_input else {}),
        "payload_deleted_at": when(job.payload_gone_at),
    }


def _given(job: Job, with_input: bool) -> dict[str, Any]:
    wanted = ["params"] * (job.workflow is not None) + ["input"] * with_input
    kept = Payload.objects.filter(pk=job.pk).values(*wanted).first() if wanted else None
    return {name: _read(bytes(raw)) for name, raw in (kept or {}).items() if raw}


def _read(kept: bytes) -> Any:
    """JSON that came from a client or worker: it may hold lone surrogates, which orjson refuses, and numbers beyond
    all floats, which would be no JSON once written again: they are None."""
    return json.loads(kept, parse_float=_finite)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if isfinite(number) else None


AGAIN_MOST = 100


def run_again_as(holder: Holder, job: Job) -> QuerySet[Job]:
    """The jobs that were made of its request, newest first, not more than a person looks at."""
    return _visible(holder).filter(run_again_of=job.public_id).order_by("-id")[:AGAIN_MOST]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "worker": attempt.worker_name or None,
        "outcome": attempt.outcome or None,
        "handed_at": when(attempt.handed_at),
        "started_at": when(attempt.started_at),
        "ended_at": when(attempt.ended_at),
        "gpu_ms": attempt.gpu_ms,
        "cost": None if attempt.cost is None else str(attempt.cost),
    }
