"""Upload slots for the worker that holds an attempt, and the end of files that no attempt won (rules.md 4, 12)."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.db import transaction

from accounts import sql
from accounts.errors import Refused
from accounts.sealed import SealBroken, Sealed
from jobs import tally
from jobs.ids import AttemptId
from jobs.models import Payload
from storage import assets, objects
from storage.faults import DELETE, S3Fault, told
from storage.models import Blob, Bucket, Hold
from storage.objects import Wanted
from storage.outputs import open_slots, place_of, preview_slot
from storage.places import BucketRefused, Place, delete_objects, operators_place
from worker.wire import Slot, Upload

log = logging.getLogger("hearth.uploads")
TOKEN_SALT, TOKEN_LIFE_S = "hearth.worker", 8 * 24 * 3600  # longer than the longest time-out


class _Signer(signing.TimestampSigner):
    def __init__(self, at: datetime | None) -> None:
        super().__init__(salt=TOKEN_SALT)
        self._at = at

    def timestamp(self) -> str:
        return signing.b62_encode(int(self._at.timestamp())) if self._at else super().timestamp()


def worker_token(job: UUID, number: int, at: datetime | None = None) -> str:
    """The right of one attempt's worker to /hooks/worker/<token>/…, and to nothing else. The same for the same `at`,
    by default now."""
    return _Signer(at).sign_object([job.hex, number])


def read_token(token: str) -> AttemptId | None:
    try:
        job, number = signing.loads(token, salt=TOKEN_SALT, max_age=TOKEN_LIFE_S)
        return AttemptId(UUID(job), int(number))
    except (signing.BadSignature, ValueError, TypeError):
        return None


CURRENT = """
SELECT j.tenant_id, j.bucket_id, p.request_bucket
  FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id AND j.attempt = a.number JOIN jobs_payload p ON p.job_id = j.id
 WHERE a.job_id = %s AND a.number = %s AND a.ended_at IS NULL"""


def slots(attempt: AttemptId, uploads: Sequence[Upload], *, parts: bool = False) -> list[Slot] | None:
    """A slot for each file, of large ones in `parts` if the worker can; None if the attempt is no longer current.
    Refused(503): a bucket of no use."""
    with transaction.atomic():
        row = sql.first(CURRENT, [attempt.job, attempt.number])
        if row is None:
            return None
        tenant_id, bucket_id, request = row
        bucket = Bucket.all_tenants.get(pk=bucket_id) if bucket_id else None
        try:
            own = request and Sealed(request)
            return open_slots(tenant_id, attempt.job, attempt.number, bucket, own, uploads, parts)
        except (SealBroken, BucketRefused) as error:
            raise _unusable(error) from error


# The objects of a blob are deleted when the URLs that were signed at its `created_at` have expired: this one is newer.
SMALL = """
UPDATE storage_blob b SET preview_bytes = s.bytes, created_at = clock_timestamp()
  FROM unnest(%(ids)s::uuid[], %(sizes)s::int[]) s (id, bytes)
 WHERE b.id = s.id AND b.job_id = %(job)s AND b.attempt = %(number)s AND b.state = 'pending' AND NOT b.of_request
RETURNING b.id"""


def preview_slots(attempt: AttemptId, sizes: Mapping[UUID, int]) -> list[Slot] | None:
    """Where to put small pictures of so many bytes beside the files of these slots, unless in a request's own bucket;
    None if the attempt is no longer current. Refused(503): a bucket of no use."""
    with transaction.atomic():
        if sql.first(CURRENT, [attempt.job, attempt.number]) is None:
            return None
        given = {"ids": list(sizes), "sizes": list(sizes.values()), "job": attempt.job, "number": attempt.number}
        ids = [id for (id,) in sql.rows(SMALL, given)]
        blobs = Blob.all_tenants.filter(id__in=ids).select_related("bucket")
        try:
            return [preview_slot(blob) for blob in blobs]
        except SealBroken as error:
            raise _unusable(error) from error


def _unusable(error: Exception) -> Refused:
    return Refused(503, "bucket_unusable", f"The job's bucket: {error}.", retry_after_s=5)


def wanted(attempt: AttemptId, ids: Sequence[UUID]) -> list[Wanted] | None:
    """How S3 is to be asked about these slots' files; None if the attempt is no longer current."""
    if sql.first(CURRENT, [attempt.job, attempt.number]) is None:
        return None
    found = Blob.all_tenants.filter(id__in=ids, job_id=attempt.job, attempt=attempt.number).select_related("bucket")
    return [_wanted(blob) for blob in found]


def _wanted(blob: Blob) -> Wanted:
    return Wanted(
        id=blob.pk,
        place=_reached_if_at_all(blob),
        key=blob.key,
        bytes=blob.bytes,
        content_type=blob.content_type,
        part_bytes=blob.part_bytes,
        upload_id=blob.upload_id,
    )


def begun(wanted: Wanted, upload_id: str) -> Wanted:
    """Its upload in parts has this id, unless somebody else was first."""
    mine = "UPDATE storage_blob SET upload_id = %s WHERE id = %s AND upload_id = ''"
    sql.run(mine, [upload_id, wanted.id])
    return replace(wanted, upload_id=sql.one("SELECT upload_id FROM storage_blob WHERE id = %s", [wanted.id])[0])


def begin_anew(wanted: Wanted) -> None:
    sql.run("UPDATE storage_blob SET upload_id = '' WHERE id = %s", [wanted.id])


def mark_stored(ids: Sequence[UUID]) -> None:
    sql.run("UPDATE storage_blob SET stored_at = clock_timestamp() WHERE id = ANY (%s)", [list(ids)])


# Of attempts that ended without them, and uploads that nobody completed; their upload URLs have expired.
UNWON = """
SELECT b.id FROM storage_blob b LEFT JOIN jobs_attempt a ON a.job_id = b.job_id AND a.number = b.attempt
 WHERE b.state = 'pending' AND b.created_at < clock_timestamp() - %(life)s * interval '1 s'
   AND (a.id IS NULL OR a.ended_at IS NOT NULL)
 ORDER BY b.created_at LIMIT %(batch)s"""
# Assets are locked before their blobs, as by all who lock both.
DOOM = f"""
WITH unwon AS ({UNWON}), asset AS (
    SELECT a.id FROM storage_asset a JOIN unwon ON a.blob_id = unwon.id FOR UPDATE OF a
), blob AS (
    UPDATE storage_blob b SET state = 'dying' FROM unwon
     WHERE b.id = unwon.id AND b.state = 'pending' AND (SELECT count(*) FROM asset) >= 0 RETURNING b.id
)
DELETE FROM storage_asset a USING blob WHERE a.blob_id = blob.id"""


def doom_unwon(batch: int = 200) -> None:
    """Blobs that nobody came to keep are DYING (rules.md 12)."""
    life = settings.UPLOAD_URL_LIFETIME + assets.SLACK
    sql.run(DOOM, {"life": int(life.total_seconds()), "batch": batch})


PLACES_AT_ONCE = 8


def discard(batch: int = 200) -> int:
    """Delete DYING blobs, object first; no transaction is open meanwhile. What fails stays for the next time.

    S3s are asked side by side, each until it fails once, so that one that is away keeps no other's files from going.
    """
    doom_unwon(batch)
    at, gone = _by_place(assets.dying(batch)), 0
    gone += _forget(at.pop(None, []), reached=False)
    with ThreadPoolExecutor(PLACES_AT_ONCE, thread_name_prefix="discard") as pool:
        for done in as_completed([pool.submit(_delete, place, blobs) for place, blobs in at.items() if place]):
            deleted, kept, fault = done.result()
            gone += _forget(deleted)
            _failed(kept, fault)
    return gone


def discard_all(within_s: float = 180) -> int:
    """In batches, until nothing more can be deleted or the time is over."""
    ends, gone = time.monotonic() + within_s, 0
    while (now := discard()) and time.monotonic() < ends:
        gone += now
    return gone + now


def _by_place(blobs: Iterable[Blob]) -> dict[Place | None, list[Blob]]:
    """None: that cannot be reached any more."""
    found: dict[Place | None, list[Blob]] = {}
    for blob in blobs:
        try:
            found.setdefault(_reached_from_here(blob), []).append(blob)
        except (SealBroken, BucketRefused) as error:
            _failed([blob], str(error))
    return found


def _delete(place: Place, blobs: Sequence[Blob]) -> tuple[list[Blob], list[Blob], str]:
    """Without the database: what was deleted, what was not, the one that failed last, and why."""
    for number, blob in enumerate(blobs):
        try:
            with told(place, DELETE):
                if blob.part_bytes:
                    objects.drop_parts(place, blob.key, blob.upload_id)
                delete_objects(place, blob.keys)
        except S3Fault as fault:
            return list(blobs[:number]), [*blobs[number + 1 :], blob], str(fault)
    return list(blobs), [], ""


def _failed(blobs: Sequence[Blob], fault: str) -> None:
    """The others of the same place may go before the one that failed, the last, the next time."""
    if not blobs:
        return
    log.warning("could not delete %s (and left %d more): %s", blobs[-1].key, len(blobs) - 1, fault)
    assets.failed([blob.pk for blob in blobs[:-1]])
    assets.failed([blobs[-1].pk])
    tally.blame({blob.deletion_id for blob in blobs if blob.deletion_id}, fault)


FORGET = """
WITH due AS (
    SELECT id FROM storage_blob WHERE id = ANY (%(blobs)s) ORDER BY id FOR UPDATE SKIP LOCKED
), blob AS (
    DELETE FROM storage_blob b USING due WHERE b.id = due.id RETURNING b.deletion_id, b.bytes
), counted AS (
    SELECT deletion_id, count(*) AS n, sum(bytes) AS bytes FROM blob
     WHERE deletion_id IS NOT NULL GROUP BY deletion_id ORDER BY deletion_id
), receipt AS (
    UPDATE jobs_deletion d SET files = d.files + CASE WHEN %(reached)s::bool THEN c.n ELSE 0 END,
           bytes = d.bytes + CASE WHEN %(reached)s::bool THEN c.bytes ELSE 0 END,
           out_of_reach = d.out_of_reach + CASE WHEN %(reached)s::bool THEN 0 ELSE c.n END
      FROM counted c WHERE d.id = c.deletion_id
)
SELECT count(*) FROM blob"""


def _forget(blobs: Sequence[Blob], *, reached: bool = True) -> int:
    """Their rows, each counted in its receipt by whoever takes it away."""
    ids = [blob.pk for blob in blobs]
    return int(sql.one(FORGET, {"blobs": ids, "reached": reached})[0]) if ids else 0


def _reached_from_here(blob: Blob) -> Place | None:
    """Where its object is; None for a request's bucket whose secret is gone: it cannot be reached any more."""
    if not blob.of_request:
        return place_of(blob.bucket, None) if blob.bucket else operators_place(public=False)
    payload = Payload.objects.filter(job=blob.job_id).only("request_bucket").first()
    return place_of(None, payload.request_bucket) if payload and payload.request_bucket else None


def _reached_if_at_all(blob: Blob) -> Place | None:
    try:
        return _reached_from_here(blob)
    except (SealBroken, BucketRefused) as error:
        log.warning("cannot look for %s: %s", blob.key, error)
        return None


# A FAILED job may be retried for a while; by its lock, nobody retries it in the same moment.
UNNEEDED = """
SELECT j.id FROM jobs_job j WHERE j.id IN (SELECT h.job_id FROM storage_hold h)
   AND (j.state IN ('COMPLETED', 'CANCELLED') OR j.finished_at < clock_timestamp() - %(keep)s * interval '1 s')
 ORDER BY j.id LIMIT %(batch)s FOR NO KEY UPDATE OF j SKIP LOCKED"""


def release_holds(batch: int) -> int:
    """Jobs that cannot run again let go of their inputs (rules.md 25). How many did."""
    with transaction.atomic():
        keep = int(settings.REQUEST_BUCKET_KEEP.total_seconds())
        jobs = [job for (job,) in sql.rows(UNNEEDED, {"keep": keep, "batch": batch})]
        held = Hold.objects.filter(job_id__in=jobs)
        blobs = list(held.values_list("blob_id", flat=True))
        held.delete()
        assets.let_go(blobs)
    return len(jobs)
