"""A job's output files: upload slots for the attempt that runs, and which of its files are kept when it ends."""

import re
import secrets
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.utils import timezone

from accounts.models import uuid7
from accounts.sealed import Sealed
from storage.models import Asset, Blob, Bucket, preview_key
from storage.places import Place, full_key, operators_place, request_bucket, sign_get, sign_put, tenants_place
from worker.wire import SMALL_TYPE, Slot, Upload


def place_of(bucket: Bucket | None, request: Sealed | None) -> Place:
    """Where a job's files go: the bucket its request named, else the tenant's, else the operator's S3."""
    if request is not None:
        return request_bucket(orjson.loads(request.unseal()))
    return operators_place() if bucket is None else tenants_place(bucket)


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def plain_name(name: str) -> str:
    """A file's name as it may stand in a key."""
    return _UNSAFE.sub("_", name.rsplit("/", 1)[-1])[-100:] or "file"


def key_of(place: Place, tenant_id: UUID, job: UUID, number: int, name: str) -> str:
    """`<prefix>/<tenant>/<job>/a<N>/<random>-<name>`: unguessable, and told apart by attempt (rules.md 12)."""
    return full_key(place, f"{tenant_id}/{job}/a{number}/{secrets.token_hex(8)}-{plain_name(name)}")


def open_slots(
    tenant_id: UUID,
    job: UUID,
    number: int,
    bucket: Bucket | None,
    request: Sealed | None,
    uploads: Sequence[Upload],
    parts: bool,
) -> list[Slot]:
    """A signed PUT for each file; large ones go in parts, if the worker can. Each is a PENDING blob until the attempt
    ends."""
    place = place_of(bucket, request)
    blobs = [
        Blob(
            id=uuid7(),
            tenant_id=tenant_id,
            bucket=bucket if request is None else None,
            of_request=request is not None,
            key=key_of(place, tenant_id, job, number, upload.name),
            bytes=upload.bytes,
            sha256=upload.sha256,
            content_type=upload.content_type,
            part_bytes=part_bytes(upload.bytes) if parts else 0,
            job_id=job,
            attempt=number,
        )
        for upload in uploads
    ]
    Blob.all_tenants.bulk_create(blobs)
    return [_slot(place, blob) for blob in blobs]


MIB, MOST_PARTS = 1024**2, 1000


def part_bytes(size: int) -> int:
    """How large the parts of such a file are; 0: it is put as a whole."""
    if size <= 4 * settings.UPLOAD_PART_BYTES:
        return 0
    return max(int(settings.UPLOAD_PART_BYTES), -(-size // (MOST_PARTS * MIB)) * MIB)


def _slot(place: Place, blob: Blob) -> Slot:
    if blob.part_bytes:
        put: tuple[str, dict[str, str]] = "", {}
    else:
        put = sign_put(place, blob.key, content_type=blob.content_type, size=blob.bytes)
    about: dict[str, Any] = {"trusted": place.trusted, "part_bytes": blob.part_bytes}
    return Slot(id=str(blob.id), key=blob.key, url=put[0], headers=put[1], **about)


def preview_slot(blob: Blob) -> Slot:
    """A signed PUT for the small picture beside a blob's file. Raises SealBroken."""
    place, key = place_of(blob.bucket, None), preview_key(blob.key)
    url, headers = sign_put(place, key, content_type=SMALL_TYPE, size=blob.preview_bytes)
    return Slot(id=str(blob.pk), key=key, url=url, headers=headers, trusted=place.trusted)


class NotLookedAt(Exception):
    """Files of these blobs' ids are reported of which nobody knows whether they are in S3."""

    def __init__(self, blobs: Sequence[UUID]) -> None:
        super().__init__(f"{len(blobs)} files were not looked at")
        self.blobs = blobs


@dataclass(frozen=True, kw_only=True)
class Kept:
    """`files` and `assets` as they are stored; `lost`: names of files that were reported and are not in S3."""

    files: list[Any]
    assets: list[dict[str, Any]]
    lost: list[str]


def keep_outputs(
    tenant_id: UUID,
    job: UUID,
    number: int,
    output: Mapping[str, Any],
    request: Sealed | None,
    absent: Collection[UUID] | None = None,
) -> Kept:
    """Record the assets a worker reports whose keys are slots of this very attempt, and keep their blobs.

    They are stored by key, or for files in the request's own bucket by a URL signed for as long as SigV4 allows, since
    its secret goes. What names a key that was not given out is left out, and so is what is not in S3: `absent` are
    those that were looked for in vain; None, before anybody looked, raises NotLookedAt if there is need to.
    """
    blobs = {blob.key: blob for blob in Blob.all_tenants.filter(tenant_id=tenant_id, job_id=job, attempt=number)}
    files = output.get("files")
    kept_files: list[Any] = []
    kept_assets: list[dict[str, Any]] = []
    rows: list[Asset] = []
    lost: list[str] = []
    unknown = {blob.pk for blob in blobs.values() if blob.stored_at is None}
    if absent is None and (missed := [pk for pk in _reported(output, blobs) if pk in unknown]):
        raise NotLookedAt(missed)
    for position, asset in enumerate(output["assets"]):
        key = asset.get("key") if isinstance(asset, dict) else ""
        blob = blobs.pop(key, None) if isinstance(key, str) else None
        if blob is not None and blob.pk in unknown and blob.pk in (absent or ()):
            lost.append(str(asset.get("name")))
        elif blob is not None:
            url = _sign_once(blob, request)
            rows.append(_asset(blob, position, asset, url))
            kept_files.append(url or key)
            kept_assets.append(asset | {"preview": rows[-1].preview or None} | ({"url": url} if url else {}))
        elif key is None and isinstance(files, list) and position < len(files):
            kept_files.append(files[position])
            kept_assets.append(asset)
    won = Blob.all_tenants.filter(id__in=[row.blob_id for row in rows], state=Blob.State.PENDING)
    won.update(state=Blob.State.KEPT)
    Asset.all_tenants.bulk_create(rows)
    return Kept(files=kept_files, assets=kept_assets, lost=lost)


def _reported(output: Mapping[str, Any], blobs: Mapping[str, Blob]) -> list[UUID]:
    keys = [asset.get("key") for asset in output["assets"] if isinstance(asset, dict)]
    return [blobs[key].pk for key in keys if isinstance(key, str) and key in blobs]


def _sign_once(blob: Blob, request: Sealed | None) -> str:
    """The URL of a file in the request's own bucket; "" for others, whose URLs are signed when they are read."""
    return sign_for_request(blob, request) if blob.of_request and request is not None else ""


def sign_for_request(blob: Blob, request: Sealed) -> str:
    """Raises SealBroken, BucketRefused."""
    return sign_get(place_of(None, request), blob.key, settings.REQUEST_BUCKET_URL_LIFETIME)


def _asset(blob: Blob, position: int, reported: Mapping[str, Any], url: str) -> Asset:
    def text(name: str, most: int) -> str:
        return str(reported.get(name) or "").replace("\0", "")[:most]

    def number(name: str) -> int | None:
        value = reported.get(name)
        return value if type(value) is int and 0 <= value < 2**31 else None

    return Asset(
        id=blob.id,
        tenant_id=blob.tenant_id,
        blob=blob,
        job_id=blob.job_id,
        position=position,
        node=text("node", 100),
        kind=text("kind", 50),
        name=text("name", 300),
        width=number("width"),
        height=number("height"),
        duration_ms=number("duration_ms"),
        preview=reported.get("preview") is True and blob.preview_bytes > 0,
        url=url,
    )


class Signer:
    """Signs the URLs of a job's files when they are read, and keeps them until half of their life is over.

    Kept by all that a URL is made of: settings that were changed, as a secret that was replaced, hold at once.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, str], tuple[str, Any]] = {}

    def url(self, bucket: Bucket | None, key: str) -> str:
        """Raises SealBroken."""
        now, life = timezone.now(), bucket.url_lifetime if bucket else settings.OUTPUT_URL_LIFETIME
        kept = self._kept.get(name := (bucket and bucket.place_fields(), key))
        if kept and kept[1] > now:
            return kept[0]
        if len(self._kept) > 50_000:
            self._kept.clear()
        url = sign_get(place_of(bucket, None), key, life)
        self._kept[name] = (url, now + life / 2)
        return url


signer = Signer()  # of this process
