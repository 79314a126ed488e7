"""Ended jobs without their content, and without a trace; both are counted in a receipt (deletion.py)."""

from collections.abc import Collection
from uuid import UUID

from django.db import transaction

from accounts import sql
from jobs import tally
from storage import assets
from storage.models import Asset, Blob, Hold

EMPTY = """
WITH chunk AS (
    DELETE FROM jobs_chunk WHERE job_id = ANY (%(jobs)s)
), preview AS (
    DELETE FROM jobs_preview WHERE job_id = ANY (%(jobs)s)
), metadata AS (
    DELETE FROM jobs_metadata WHERE job_id = ANY (%(jobs)s)
), said AS (
    DELETE FROM jobs_receipt WHERE job_id = ANY (%(jobs)s)
), event AS (
    DELETE FROM jobs_event WHERE job_id = ANY (%(jobs)s) RETURNING 1
), try AS (
    DELETE FROM jobs_deliverytry t USING jobs_delivery d WHERE d.job_id = ANY (%(jobs)s) AND t.delivery_id = d.id
), delivery AS (
    DELETE FROM jobs_delivery WHERE job_id = ANY (%(jobs)s)
), payload AS (
    UPDATE jobs_payload SET input = '', params = NULL, inputs = NULL, webhook = '', policy = NULL, progress = NULL,
           output = NULL, error = NULL WHERE job_id = ANY (%(jobs)s) RETURNING 1
), job AS (
    UPDATE jobs_job SET payload_gone_at = coalesce(payload_gone_at, clock_timestamp()),
           events_gone_at = coalesce(events_gone_at, clock_timestamp()) WHERE id = ANY (%(jobs)s)
)
SELECT (SELECT count(*) FROM payload), (SELECT count(*) FROM event)"""
MARK = "UPDATE storage_blob SET deletion_id = %s WHERE job_id = ANY (%s)"  # also those that another job holds still


def empty(jobs: Collection[UUID], receipt: UUID) -> None:
    """In a transaction that has locked these ended jobs: their content and files go. Rows of payloads stay, empty,
    until the files are gone that only the secrets sealed in them open."""
    ids = list(jobs)
    if not ids:
        return
    payloads, events = sql.one(EMPTY, {"jobs": ids})
    found = list(Asset.all_tenants.filter(job_id__in=ids).select_for_update().order_by("pk"))
    held = list(Hold.objects.filter(job_id__in=ids).values_list("blob", flat=True))
    Hold.objects.filter(job_id__in=ids).delete()
    own = list(Blob.all_tenants.filter(job_id__in=ids).values_list("pk", flat=True))
    assets.lock([*(asset.blob_id for asset in found), *held, *own])
    assets.forget(found, receipt)
    assets.let_go([*held, *own], receipt)
    sql.run(MARK, [receipt, ids])
    tally.count(receipt, payloads=payloads, events=events, assets=len(found))


REMOVABLE = """
SELECT j.id FROM jobs_job j
 WHERE j.id = ANY (%(jobs)s) AND j.payload_gone_at IS NOT NULL AND j.finished_at IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM jobs_attempt a WHERE a.job_id = j.id AND a.released_at IS NULL)
   AND NOT EXISTS (SELECT 1 FROM storage_blob b WHERE b.job_id = j.id)
 ORDER BY j.id FOR UPDATE OF j SKIP LOCKED"""
REMOVE = """
WITH chunk AS (DELETE FROM jobs_chunk WHERE job_id = ANY (%(jobs)s)),
     preview AS (DELETE FROM jobs_preview WHERE job_id = ANY (%(jobs)s)),
     metadata AS (DELETE FROM jobs_metadata WHERE job_id = ANY (%(jobs)s)),
     said AS (DELETE FROM jobs_receipt WHERE job_id = ANY (%(jobs)s)),
     event AS (DELETE FROM jobs_event WHERE job_id = ANY (%(jobs)s) RETURNING 1),
     try AS (DELETE FROM jobs_deliverytry t USING jobs_delivery d
              WHERE d.job_id = ANY (%(jobs)s) AND t.delivery_id = d.id),
     delivery AS (DELETE FROM jobs_delivery WHERE job_id = ANY (%(jobs)s)),
     attempt AS (DELETE FROM jobs_attempt WHERE job_id = ANY (%(jobs)s)),
     payload AS (DELETE FROM jobs_payload WHERE job_id = ANY (%(jobs)s)),
     word AS (INSERT INTO storage_gone (id, tenant_id, at)
              SELECT id, tenant_id, payload_gone_at FROM jobs_job WHERE id = ANY (%(jobs)s) ON CONFLICT DO NOTHING),
     job AS (DELETE FROM jobs_job WHERE id = ANY (%(jobs)s) RETURNING 1)
SELECT (SELECT count(*) FROM job), (SELECT count(*) FROM event)"""


def removable(jobs: Collection[UUID]) -> list[UUID]:
    """Of these, whose workers have let go of them and whose files are gone."""
    return [id for (id,) in sql.rows(REMOVABLE, {"jobs": list(jobs)})]


def remove(jobs: Collection[UUID], receipt: UUID) -> None:
    with transaction.atomic():
        if found := removable(jobs):
            removed, events = sql.one(REMOVE, {"jobs": found})
            tally.count(receipt, jobs=removed, events=events)
