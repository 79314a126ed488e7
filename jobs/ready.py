"""What a running attempt has to show before its end: files that are stored, and the newest preview (worker/wire.py)."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

from accounts import sql
from accounts.sealed import SealBroken, Sealed
from jobs.ids import AttemptId
from jobs.live import announce, news_key
from jobs.models import Payload
from jobs.models.job import Event
from jobs.states import lock
from storage.models import Asset, Blob, preview_key
from storage.outputs import sign_for_request, signer
from storage.places import BucketRefused

STORED = """
SELECT b.id, b.key FROM jobs_job j JOIN jobs_attempt a ON a.job_id = j.id AND a.number = j.attempt
  LEFT JOIN storage_blob b ON b.job_id = j.id AND b.attempt = a.number AND b.id = ANY (%(ids)s)
                          AND b.state = 'pending' AND b.stored_at IS NOT NULL
 WHERE j.id = %(job)s AND a.number = %(number)s AND a.ended_at IS NULL"""
Urls = Mapping[str, Mapping[str, str | None]]
LINE = """
INSERT INTO jobs_event (job_id, attempt, kind, at, text, assets)
VALUES (%(job)s, %(number)s, %(kind)s, clock_timestamp(), %(text)s, %(assets)s)"""


def outputs(attempt: AttemptId, assets: Sequence[dict[str, Any]]) -> bool:
    """Files that are in their bucket though the job still runs: a line of its timeline. False: the attempt has ended.

    They stay PENDING until it wins. What is no slot of this attempt, or was not found in S3, is left out.
    """
    params: dict[str, Any] = {"job": attempt.job, "number": attempt.number}
    with transaction.atomic():
        lock(attempt.job)
        found = sql.rows(STORED, params | {"ids": [asset["id"] for asset in assets]})
        if not found:
            return False
        known = {str(id): key for id, key in found}
        kept = [asset for asset in assets if known.get(asset["id"]) == asset["key"]]
        if kept:
            params |= {"kind": Event.Kind.OUTPUT.value, "text": _said(kept), "assets": orjson.dumps(kept).decode()}
            sql.run(LINE, params)
            announce(news_key(attempt.job))
    return True


def _said(assets: Sequence[dict[str, Any]]) -> str:
    more = f" and {len(assets) - 1} more" if len(assets) > 1 else ""
    return f"{assets[0]['name']} of node {assets[0]['node']}{more}"


def urls(job: UUID, ids: Sequence[str], *, running: bool) -> Urls:
    """Of such files and their small pictures, by id, as far as they are there: while the job runs whatever is stored,
    then what has won. A file is left out, too, if its URL cannot be signed: not by now, or not any more."""
    there = (Blob.State.PENDING, Blob.State.KEPT) if running else (Blob.State.KEPT,)
    found = Blob.all_tenants.filter(id__in=ids, job_id=job, state__in=there).select_related("bucket")
    blobs = {str(blob.pk): blob for blob in found}
    own = {id: blob for id, blob in blobs.items() if blob.of_request}
    signed = {id: _signed(blob) for id, blob in blobs.items() if id not in own} | (_own_urls(job, own) if own else {})
    return {id: {"url": url, "preview": _small(blobs[id])} for id, url in signed.items() if url}


def _small(blob: Blob) -> str | None:
    return signer.url(blob.bucket, preview_key(blob.key)) if blob.preview_bytes else None


def _own_urls(job: UUID, blobs: Mapping[str, Blob]) -> dict[str, str]:
    """In the request's own bucket: those of its result; before that by its secret, which goes at the end."""
    payload = Payload.objects.only("request_bucket").filter(job=job).first()
    bucket = payload.request_bucket if payload else None
    lasting = {str(pk): url for pk, url in Asset.all_tenants.filter(pk__in=blobs).values_list("pk", "url")}
    return {id: lasting.get(id) or (_signed(blob, bucket) if bucket else "") for id, blob in blobs.items()}


def _signed(blob: Blob, own: Sealed | None = None) -> str:
    try:
        return sign_for_request(blob, own) if own else signer.url(blob.bucket, blob.key)
    except (SealBroken, BucketRefused):
        return ""


def shown(assets: Sequence[dict[str, Any]], urls: Urls) -> list[dict[str, Any]]:
    """The assets of such a line as clients see them: by URL, where there is one."""
    return [_shown(asset, urls[asset["id"]]) for asset in assets if asset["id"] in urls]


def _shown(asset: Mapping[str, Any], urls: Mapping[str, str | None]) -> dict[str, Any]:
    told = {**asset, "url": urls["url"], "preview": urls["preview"] if asset.get("preview") else None}
    return {name: value for name, value in told.items() if name != "key"}


PREVIEW = """
WITH current AS (
    SELECT a.job_id, a.number FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id AND j.attempt = a.number
     WHERE a.job_id = %(job)s AND a.number = %(number)s AND a.ended_at IS NULL
)
INSERT INTO jobs_preview AS p (job_id, attempt, node, content_type, body, at)
SELECT job_id, number, %(node)s, %(content_type)s, %(body)s::bytea, clock_timestamp() FROM current
    ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, node = excluded.node,
       content_type = excluded.content_type, body = excluded.body, at = excluded.at
RETURNING job_id"""


def preview(attempt: AttemptId, node: str, content_type: str, body: bytes) -> bool:
    """The newest picture of the running attempt, in place of the one before. False: the attempt has ended."""
    params = {"job": attempt.job, "number": attempt.number, "node": node, "content_type": content_type, "body": body}
    if sql.first(PREVIEW, params) is None:
        return False
    announce(news_key(attempt.job))
    return True


FORGET = """
DELETE FROM jobs_preview p WHERE NOT EXISTS (
       SELECT 1 FROM jobs_job j WHERE j.id = p.job_id AND j.attempt = p.attempt AND j.state = 'IN_PROGRESS')"""


def forget_previews() -> int:
    """Of attempts that have ended."""
    return sql.run(FORGET)
