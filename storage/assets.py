"""The files that tenants upload, and the references that keep bytes (rules.md 25).

A blob's state changes only under its row's lock. Nothing here holds a transaction while it speaks to S3.
"""

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from accounts import sql
from accounts.errors import Refused, counted, not_found
from accounts.models import Tenant, uuid7
from storage.models import Asset, Blob, Gone
from storage.outputs import plain_name
from storage.places import full_key, measured, operators_place, put_object, sign_put

WHEN = "%Y-%m-%dT%H:%M:%SZ"
SLACK = timedelta(minutes=1)  # between the end of an upload URL's life and the last byte that comes by it


def when(at: datetime | None) -> str | None:
    """As the API tells times. A year has four digits, which strftime forgets before the year 1000."""
    return at.strftime(WHEN).rjust(len("2026-11-25T10:00:00Z"), "0") if at else None


@dataclass(frozen=True, kw_only=True)
class New:
    """A file that comes from a tenant. sha256: 64 hex digits; who made them says whether they are to be trusted."""

    name: str
    content_type: str
    bytes: int
    sha256: str
    lives: timedelta | None = None


def pending(tenant_id: UUID, new: New) -> Blob:
    """A place for its bytes in the operator's S3. Deleted in a while unless `keep` is called."""
    key = f"{tenant_id}/uploads/{secrets.token_hex(8)}-{plain_name(new.name)}"
    return Blob.all_tenants.create(
        id=uuid7(),
        tenant_id=tenant_id,
        key=full_key(operators_place(), key),
        bytes=new.bytes,
        sha256=new.sha256,
        content_type=new.content_type,
    )


def upload(tenant_id: UUID, new: New, body: IO[bytes]) -> Blob:
    """A blob of these bytes, whose hash Hearth has made itself: one that is kept already, or a new one that is to be
    kept soon. Raises botocore's errors."""
    if (blob := known(tenant_id, new.sha256)) is not None:
        return blob
    blob = pending(tenant_id, new)
    put_object(operators_place(public=False), blob.key, body, content_type=new.content_type)
    return blob


def known(tenant_id: UUID, sha256: str) -> Blob | None:
    return Blob.all_tenants.filter(_uploaded(tenant_id, sha256)).first()


def _uploaded(tenant_id: UUID, sha256: str) -> Q:
    return Q(tenant_id=tenant_id, sha256=sha256, state=Blob.State.KEPT, job_id=None)


class Lost(Exception):
    """The blob is no longer there to be kept: it was deleted meanwhile. Its bytes must be uploaded again."""


def keep(ours: Blob) -> Blob:
    """In a transaction: the one KEPT blob of these bytes, locked until its end, so that it can be named or held.

    That is `ours`, or if the tenant has another of the same hash, that one, and `ours` is DYING. Raises Lost.
    """
    while True:
        kept = Blob.all_tenants.filter(_uploaded(ours.tenant_id, ours.sha256)).select_for_update().first()
        if kept is not None:
            if kept.pk != ours.pk:
                Blob.all_tenants.filter(pk=ours.pk, state=Blob.State.PENDING).update(state=Blob.State.DYING)
            return kept
        try:
            with transaction.atomic():
                mine = Blob.all_tenants.filter(pk=ours.pk, state=Blob.State.PENDING)
                if not mine.update(state=Blob.State.KEPT):
                    raise Lost
                return ours
        except IntegrityError:
            continue  # somebody else has kept the same bytes just now


def put(tenant_id: UUID, new: New, body: IO[bytes]) -> Asset:
    """The asset of bytes that Hearth has seen. Raises Refused: 413, 429; botocore's errors."""
    check_room(tenant_id, new)
    while True:
        blob = upload(tenant_id, new, body)
        try:
            with transaction.atomic():
                return _asset(keep(blob), new)
        except Lost:
            body.seek(0)  # the blob that was there went between the two


def _asset(blob: Blob, new: New) -> Asset:
    made = Asset(id=uuid7(), tenant_id=blob.tenant_id, blob=blob, source=Asset.Source.UPLOAD, name=new.name)
    if new.lives is not None:
        made.expires_at = Now() + new.lives
    made.save(force_insert=True)
    made.refresh_from_db(fields=["created_at", "expires_at"])
    return made


STORED_S = 60
STORED = """
SELECT coalesce(sum(bytes), 0)::bigint FROM storage_blob
 WHERE tenant_id = %s AND state = 'kept' AND bucket_id IS NULL AND NOT of_request"""


def stored_bytes(tenant_id: UUID) -> int:
    """Of the tenant's files in the operator's S3."""
    return int(sql.one(STORED, [tenant_id])[0])


def check_room(tenant_id: UUID, new: New) -> None:
    """Raises Refused: 413 for a file larger than any may be, 429 for one that the tenant has no room for."""
    if new.bytes > settings.ASSET_MAX_BYTES:
        error = f"The file has {new.bytes} bytes; at most {settings.ASSET_MAX_BYTES} are taken."
        raise Refused(413, "too_large", error)
    tenant = Tenant.objects.get(pk=tenant_id)
    if tenant.max_stored_bytes is None:
        return
    stored = stored_bytes(tenant_id)
    if stored + new.bytes > tenant.max_stored_bytes:
        error = (
            f"Tenant {tenant.name!r} has {counted(stored, 'byte')} of files here, and its limit is"
            f" {tenant.max_stored_bytes}: there is no room for {new.bytes} more. Delete some."
        )
        raise Refused(429, "storage_full", error, retry_after_s=STORED_S)


def open_upload(tenant_id: UUID, new: New) -> tuple[Asset, str, dict[str, str]]:
    """An asset that is not there yet, and where its bytes are to be PUT, with which headers; then `complete` it."""
    check_room(tenant_id, new)
    with transaction.atomic():
        blob = pending(tenant_id, new)
        asset = _asset(blob, new)
    url, headers = sign_put(
        operators_place(), blob.key, content_type=new.content_type, size=new.bytes, sha256=new.sha256
    )
    return asset, url, headers


def complete(tenant_id: UUID, asset_id: UUID) -> Asset:
    """The bytes are where they were to be put: the asset is there from now on. Twice is as good as once.

    Raises Refused: 404, 409 while nothing has been put, 410, 422 for other bytes than were said; botocore's errors.
    """
    asset = Asset.all_tenants.filter(tenant_id=tenant_id, pk=asset_id).select_related("blob").first()
    if asset is None:
        raise no_asset(tenant_id, asset_id)
    blob = asset.blob
    if blob.state != Blob.State.PENDING:
        return asset
    found = measured(operators_place(public=False), blob.key)
    if found is None:
        raise Refused(409, "not_uploaded", f"Nothing has been put to the upload URL of asset '{asset_id}' yet.")
    if found != (blob.bytes, blob.sha256):
        delete(tenant_id, asset_id)
        error = f"{found[0]} bytes of SHA-256 {found[1]} were put; {blob.bytes} of {blob.sha256} were said. Begin anew."
        raise Refused(422, "wrong_bytes", error)
    try:
        with transaction.atomic():
            if not Asset.all_tenants.select_for_update().filter(pk=asset_id).exists():
                raise no_asset(tenant_id, asset_id)  # its row first, as whoever deletes it does
            Asset.all_tenants.filter(pk=asset_id).update(blob=keep(blob))
    except Lost:
        raise no_asset(tenant_id, asset_id) from None
    return Asset.all_tenants.select_related("blob__bucket").get(pk=asset_id)


def of_tenant(tenant_id: UUID) -> QuerySet[Asset]:
    """The assets that are there to be used: uploaded, and not expired."""
    there = ~Q(blob__state=Blob.State.PENDING) & (Q(expires_at=None) | Q(expires_at__gt=Now()))
    return Asset.all_tenants.filter(there, tenant_id=tenant_id)


def days_kept(tenant_id: UUID) -> int:
    """How many days the tenant's files are kept at most; 0: for ever."""
    days = Tenant.objects.values_list("asset_days", flat=True).get(pk=tenant_id)
    return int(settings.ASSET_DAYS if days is None else days)


def ends_at(asset: Asset, days: int) -> datetime | None:
    """When it is deleted, if its tenant's are kept for so many days."""
    oldest = asset.created_at + timedelta(days=days) if days else None
    return min((at for at in (asset.expires_at, oldest) if at), default=None)


def no_asset(tenant_id: UUID, asset_id: UUID) -> Refused:
    """Why there is no such asset: 410 with the date if there was one, else 404."""
    if gone := Gone.all_tenants.filter(tenant_id=tenant_id, pk=asset_id).first():
        return Refused(410, "gone", f"The asset '{asset_id}' was deleted at {gone.at:{WHEN}}.")
    if expired := Asset.all_tenants.filter(tenant_id=tenant_id, pk=asset_id, expires_at__lte=Now()).first():
        return Refused(410, "gone", f"The asset '{asset_id}' expired at {expired.expires_at:{WHEN}}.")
    return not_found(f"There is no asset '{asset_id}' of yours.")


def delete(tenant_id: UUID, asset_id: UUID) -> None:
    """The asset is gone now; its bytes go when nothing else needs them. Raises Refused: 404, 410."""
    with transaction.atomic():
        asset = Asset.all_tenants.filter(tenant_id=tenant_id, pk=asset_id).select_for_update().first()
        if asset is None:
            raise no_asset(tenant_id, asset_id)
        forget([asset])


def forget(assets: Collection[Asset], deletion: UUID | None = None) -> None:
    """In a transaction, with their rows locked: delete them, leave word of it, and let go of their bytes, whose end is
    counted in that receipt."""
    words = [Gone(id=asset.pk, tenant_id=asset.tenant_id) for asset in assets]
    Gone.all_tenants.bulk_create(words, ignore_conflicts=True)
    Asset.all_tenants.filter(pk__in=[asset.pk for asset in assets]).delete()
    let_go((asset.blob_id for asset in assets), deletion)


DYING = """
UPDATE storage_blob b SET state = 'dying', deletion_id = coalesce(%(deletion)s::uuid, b.deletion_id)
 WHERE b.id = ANY (%(blobs)s) AND b.state <> 'dying'
   AND NOT EXISTS (SELECT 1 FROM storage_asset a WHERE a.blob_id = b.id)
   AND NOT EXISTS (SELECT 1 FROM storage_hold h WHERE h.blob_id = b.id)"""


def let_go(blobs: Iterable[UUID], deletion: UUID | None = None) -> int:
    """In a transaction that has taken references away: the blobs that have none now are DYING. How many are.

    Locked by a statement of its own: only one that begins after that sees who named them meanwhile.
    """
    ids = list(set(blobs))
    lock(ids)
    return sql.run(DYING, {"blobs": ids, "deletion": deletion})


def lock(blobs: Iterable[UUID]) -> None:
    """In a transaction. All that it comes to lock at once, since that is in one order."""
    sql.rows("SELECT id FROM storage_blob WHERE id = ANY (%s) ORDER BY id FOR UPDATE", [sorted(set(blobs))])


WORDS_BATCH = 10_000
FORGET_WORDS = """
DELETE FROM storage_gone WHERE id IN (
       SELECT id FROM storage_gone WHERE at < (SELECT clock_timestamp() - %(days)s * interval '1 day')
        ORDER BY at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)"""


def forget_words() -> int:
    """What was deleted GONE_DAYS ago is from now on as if it had never been."""
    return sql.run(FORGET_WORDS, {"days": settings.GONE_DAYS, "batch": WORDS_BATCH})


def failed(blobs: Collection[UUID]) -> None:
    """Their objects could not be deleted: others come first the next time."""
    Blob.all_tenants.filter(pk__in=blobs).update(tried_at=Now())


def dying(most: int) -> QuerySet[Blob]:
    """Those whose upload URLs have expired, so that nothing comes after the object's end; the latest failures last."""
    old = Now() - settings.UPLOAD_URL_LIFETIME - SLACK
    found = Blob.all_tenants.filter(state=Blob.State.DYING, created_at__lt=old).select_related("bucket")
    return found.order_by(F("tried_at").asc(nulls_first=True), "id")[:most]
