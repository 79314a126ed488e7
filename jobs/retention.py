"""What jobs leave goes when its days are over: payloads, files, timelines, by the tenant's days or the instance's.

Batch by batch, each a transaction of one tenant that also counts what went in the day's receipt: killed at any point it
goes on where it was, and two at once share the work.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from accounts import sql
from jobs import tally
from storage import assets
from storage.models import Asset

log = logging.getLogger("hearth.retention")
BATCH = 200
WITHIN_S = 120.0

# The tenants that have something of which the days are over, and what is older than when.
OLDER = """
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS at)
SELECT t.id, now.at - t.days * interval '1 day'
  FROM now, (SELECT id, coalesce({days}, %(days)s::int) AS days FROM accounts_tenant) t CROSS JOIN LATERAL (
       SELECT 1 FROM {table} WHERE tenant_id = t.id AND {at} < now.at - t.days * interval '1 day' AND {still}
        ORDER BY {at} LIMIT 1) due
 WHERE t.days > 0"""
EXPIRED = """
SELECT DISTINCT e.tenant_id, now.at FROM (SELECT clock_timestamp() AS at) now CROSS JOIN LATERAL (
       SELECT tenant_id FROM storage_asset WHERE expires_at < now.at ORDER BY expires_at LIMIT 1000) e"""

DUE_JOBS = """
WITH due AS (
    SELECT id FROM jobs_job WHERE tenant_id = %(tenant)s AND finished_at < %(before)s AND {still}
     ORDER BY finished_at LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED
)"""
PAYLOADS = f"""
{DUE_JOBS.format(still="payload_gone_at IS NULL")}, chunk AS (
    DELETE FROM jobs_chunk c USING due WHERE c.job_id = due.id
), said AS (
    DELETE FROM jobs_receipt r USING due WHERE r.job_id = due.id
), payload AS (
    DELETE FROM jobs_payload p USING due WHERE p.job_id = due.id
), job AS (
    UPDATE jobs_job j SET payload_gone_at = clock_timestamp() FROM due WHERE j.id = due.id
)
SELECT count(*) FROM due"""
EVENTS = f"""
{DUE_JOBS.format(still="events_gone_at IS NULL")}, event AS (
    DELETE FROM jobs_event e USING due WHERE e.job_id = due.id RETURNING 1
), job AS (
    UPDATE jobs_job j SET events_gone_at = clock_timestamp() FROM due WHERE j.id = due.id
)
SELECT count(*), (SELECT count(*) FROM event) FROM due"""


def delete_payloads(tenant_id: UUID, before: datetime) -> int:
    with transaction.atomic():
        (jobs,) = sql.one(PAYLOADS, {"tenant": tenant_id, "before": before, "batch": BATCH})
        if jobs:
            tally.count(tally.of_today(tenant_id), payloads=jobs)
    return int(jobs)


def delete_events(tenant_id: UUID, before: datetime) -> int:
    with transaction.atomic():
        jobs, lines = sql.one(EVENTS, {"tenant": tenant_id, "before": before, "batch": BATCH})
        if jobs:
            tally.count(tally.of_today(tenant_id), events=lines)
    return int(jobs)


def delete_assets(tenant_id: UUID, before: datetime) -> int:
    return _forget(tenant_id, created_at__lt=before)


def delete_expired(tenant_id: UUID, before: datetime) -> int:
    return _forget(tenant_id, expires_at__lt=before)


MARK = """
UPDATE jobs_job SET files_gone_at = clock_timestamp() WHERE id IN (
       SELECT id FROM jobs_job WHERE id = ANY (%s) AND files_gone_at IS NULL ORDER BY id FOR NO KEY UPDATE)"""


def mark(jobs: Iterable[UUID | None]) -> None:
    """Before files of theirs are deleted, so that no lock of both is held: from then on their status looks which are
    there."""
    if ids := [job for job in set(jobs) if job]:
        sql.run(MARK, [ids])


def delete_asset(tenant_id: UUID, asset_id: UUID) -> None:
    """On request. Raises Refused: 404, 410."""
    mark(Asset.all_tenants.filter(tenant_id=tenant_id, pk=asset_id).values_list("job_id", flat=True))
    assets.delete(tenant_id, asset_id)


def _forget(tenant_id: UUID, **which: datetime) -> int:
    """Bytes that a job still needs stay until it has ended (rules.md 25)."""
    old = Asset.all_tenants.filter(tenant_id=tenant_id, **which).order_by(*(name[:-4] for name in which))
    due = dict(old.values_list("pk", "job_id")[:BATCH])
    mark(due.values())
    with transaction.atomic():
        found = list(Asset.all_tenants.filter(pk__in=due).select_for_update(skip_locked=True))
        if found:
            receipt = tally.of_today(tenant_id)
            assets.forget(found, receipt)
            tally.count(receipt, assets=len(found))
    return len(found)


@dataclass(frozen=True)
class Kind:
    """due: the tenants that have some, and before when. go: deletes one batch of a tenant's, and says how many."""

    name: str
    due: str
    days: str
    go: Callable[[UUID, datetime], int]


def _older(days: str, table: str, at: str, still: str = "true") -> str:
    return OLDER.format(days=days, table=table, at=at, still=still)


KINDS = (
    Kind("files", _older("asset_days", "storage_asset", "created_at"), "ASSET_DAYS", delete_assets),
    Kind("expired files", EXPIRED, "", delete_expired),
    Kind(
        "payloads",
        _older("payload_days", "jobs_job", "finished_at", "payload_gone_at IS NULL"),
        "PAYLOAD_DAYS",
        delete_payloads,
    ),
    Kind(
        "timelines",
        _older("event_days", "jobs_job", "finished_at", "events_gone_at IS NULL"),
        "EVENT_DAYS",
        delete_events,
    ),
)


def due() -> bool:
    """Whether something's days are over."""
    return any(_tenants(kind) for kind in KINDS)


def _tenants(kind: Kind) -> list[sql.Row]:
    return sql.rows(kind.due, {"days": getattr(settings, kind.days)} if kind.days else {})


def retain(within_s: float = WITHIN_S) -> int:
    """Delete what is due, until nothing is or the time is over; how much it was. Tenants take turns, batch by batch."""
    ends, total = time.monotonic() + within_s, 0
    for kind in KINDS:
        gone = 0
        while (tenants := _tenants(kind)) and time.monotonic() < ends:
            now = sum(kind.go(tenant, before) for tenant, before in tenants)
            gone += now
            if not now:
                break  # somebody else is at them
        if gone:
            log.info("retention: %d %s deleted", gone, kind.name)
        total += gone
    return total
