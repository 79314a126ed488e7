"""Jobs as rows of a file: page by page, each found by where the last one ended, so that however many there are, no
transaction is longer than a page and no more than a page is in memory."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from io import StringIO
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet

from accounts import sql
from accounts.keys import GivenKey
from jobs import search
from jobs.granted import READ, holder
from jobs.ids import public_id
from jobs.models import Job
from jobs.models.metadata import as_given
from jobs.report import plain
from storage.assets import when

PAGE = 500


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSONL: "application/x-ndjson"}


@dataclass(frozen=True, kw_only=True)
class Page:
    """`last`: the id of its last job; None if there is nothing after it."""

    body: bytes
    last: UUID | None


VALUES = (
    *("id", "sync", "tenant__name", "endpoint__name", "grant__endpoint__name", "state", "priority"),
    *("workflow__name", "workflow_version"),
    *("api_key__prefix", "api_key__name", "created_at", "started_at", "finished_at", "delay_ms", "execution_ms"),
    *("worker_name", "attempt", "retries", "run_again_of", "payload_gone_at"),
)
COLUMNS = (
    *("id", "endpoint", "place", "status", "priority", "workflow", "key", "key_name"),
    *("created_at", "started_at", "finished_at"),
    *("delay_ms", "execution_ms", "worker", "attempt_count", "retries", "run_again_of", "gpu_ms", "cost"),
    *("payload_deleted_at", "metadata"),
)
TENANT = "tenant"


def of_tenant(key: GivenKey, wanted: search.Search, form: Format, after: UUID | None) -> Page:
    """The page after that job of what the key's tenant finds, newest first. Raises Refused: 401, 403."""
    return page(search.found(holder(key, READ), replace(wanted, before=after)), form, after)


def page(jobs: QuerySet[Job], form: Format, after: UUID | None, *, of_all: bool = False) -> Page:
    """`of_all`: the jobs may be of several tenants, whom the rows name."""
    found = jobs.filter(pk__lt=after) if after else jobs
    values = list(found.prefetch_related(None).order_by("-pk").values_list(*VALUES)[:PAGE])
    rows = _rows(values, of_all)
    body = b"".join(orjson.dumps(row) + b"\n" for row in rows) if form == Format.JSONL else _csv(rows, after, of_all)
    return Page(body=body, last=values[-1][0] if len(values) == PAGE else None)


ENTRIES = "SELECT job_id, name, value, is_text FROM jobs_metadata WHERE job_id = ANY (%s) ORDER BY name"
USED = "SELECT job_id, sum(gpu_ms)::bigint, sum(cost) FROM jobs_attempt WHERE job_id = ANY (%s) GROUP BY job_id"


def _rows(values: Sequence[tuple[Any, ...]], of_all: bool) -> Iterator[dict[str, Any]]:
    """As the list tells a job, and what it used."""
    ids = [row[0] for row in values]
    metadata: dict[UUID, dict[str, Any]] = {}
    for job, entry, value, is_text in sql.rows(ENTRIES, [ids]):
        metadata.setdefault(job, {})[entry] = as_given(value, is_text)
    sums = {job: (ms, cost) for job, ms, cost in sql.rows(USED, [ids])}
    for id, sync, tenant, endpoint, place, state, priority, workflow, version, prefix, name, *more in values:
        created, started, finished, delay_ms, execution_ms, worker, attempts, retries, again, gone_at = more
        gpu_ms, cost = sums.get(id, (None, None))
        yield {
            **({TENANT: tenant} if of_all else {}),
            "id": public_id(id, sync),
            "endpoint": endpoint,
            "place": place,
            "status": state,
            "priority": priority,
            "workflow": f"{workflow}@{version}" if workflow else None,
            "key": {"prefix": prefix, "name": name} if prefix else None,
            "created_at": when(created),
            "started_at": when(started),
            "finished_at": when(finished),
            "delay_ms": delay_ms,
            "execution_ms": execution_ms,
            "worker": worker or None,
            "attempt_count": attempts,
            "retries": retries,
            "metadata": metadata.get(id, {}),
            "run_again_of": again or None,
            "gpu_ms": gpu_ms,
            "cost": None if cost is None else str(cost),
            "payload_deleted_at": when(gone_at),
        }


def _csv(rows: Iterator[Mapping[str, Any]], after: UUID | None, of_all: bool) -> bytes:
    """With a header if it is the first page. What somebody else chose the words of begins no formula."""
    columns = (TENANT, *COLUMNS) if of_all else COLUMNS
    out = StringIO(newline="")
    writer = csv.DictWriter(out, columns)
    if after is None:
        writer.writeheader()
    for row in rows:
        key = row["key"] or {"prefix": None, "name": ""}
        told = {"metadata": orjson.dumps(row["metadata"]).decode(), "worker": plain(row["worker"] or "")}
        writer.writerow({**row, "key": key["prefix"], "key_name": plain(key["name"]), **told})
    return out.getvalue().encode()
