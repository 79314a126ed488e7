"""What a tenant does with its buckets: makes, changes and removes them (the admin does it by forms)."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts import sql, tenants
from accounts.errors import Refused, bad_request, not_found
from accounts.models import Tenant
from accounts.relations import protectors
from accounts.sealed import Sealed
from storage.models import Blob, Bucket

MOST_BUCKETS = 100  # of a tenant
BY_ENDPOINT = {"region": "", "addressing": ""}  # of a new one, unless they are given
MOVED = "Files of earlier jobs are now looked for there: copy them with their keys, or their URLs lead nowhere."
SETTINGS = (*Bucket.PLACE, *Bucket.URLS)


def make(tenant_id: UUID, secret: str, **fields: Any) -> Bucket:
    """With `is_default` it is that in place of the one before. Raises Refused: 400 for settings that cannot work, 409
    if there is one of that name, or too many."""
    with transaction.atomic():
        tenant = tenants.hold(tenant_id)
        if Bucket.objects.of(tenant).count() >= MOST_BUCKETS:
            error = f"You have {MOST_BUCKETS} buckets, which is the limit: delete one."
            raise Refused(409, "too_many_buckets", error)
        bucket = Bucket(tenant=tenant, **BY_ENDPOINT | fields)
        _clean(bucket)
        enter(bucket, secret, SETTINGS)
        _save(tenant, bucket)
    bucket.refresh_from_db()
    return bucket


def one(tenant_id: UUID, name: str, *, lock: bool = False) -> Bucket:
    """Raises Refused(404)."""
    rows = Bucket.all_tenants.select_for_update(of=("self",)) if lock else Bucket.all_tenants
    bucket = rows.select_related("tenant").filter(tenant_id=tenant_id, name=name).first()
    if bucket is None:
        raise not_found(f"There is no bucket {name!r} of yours.")
    return bucket


def change(tenant_id: UUID, name: str, /, secret: str = "", **fields: Any) -> tuple[Bucket, str]:
    """What is not given stays, the secret too. Also says what a person should know of the change, or "". Raises
    Refused: 400, 404, 409."""
    with transaction.atomic():
        tenant = tenants.hold(tenant_id)
        bucket = one(tenant_id, name, lock=True)
        before = {setting: getattr(bucket, setting) for setting in SETTINGS}
        for field, value in fields.items():
            setattr(bucket, field, value)
        _clean(bucket)
        changed = {setting for setting in SETTINGS if getattr(bucket, setting) != before[setting]}
        enter(bucket, secret, changed)
        _save(tenant, bucket)
    return bucket, warning(bucket, changed)


def enter(bucket: Bucket, secret: str, changed: Collection[str]) -> None:
    """Before it is saved: a new secret is sealed, and what was found out about other settings is forgotten."""
    if secret:
        bucket.secret_access_key = Sealed.seal(secret)
    if secret or {*SETTINGS} & set(changed):
        bucket.verified_at, bucket.verify_fault = None, ""


def warning(bucket: Bucket, changed: Iterable[str]) -> str:
    """What a change of these settings means for files that are there; "" if nothing."""
    moved = {"endpoint_url", "s3_bucket"} & set(changed)
    return MOVED if moved and Blob.objects.of(bucket.tenant).filter(bucket=bucket).exists() else ""


def _save(tenant: Tenant, bucket: Bucket) -> None:
    """With the tenant held."""
    others = Bucket.objects.of(tenant).exclude(pk=bucket.pk)
    if others.filter(name=bucket.name).exists():
        raise Refused(409, "exists", f"You have a bucket {bucket.name!r} already.")
    if bucket.is_default:
        others.filter(is_default=True).update(is_default=False)
    bucket.save()


def _clean(bucket: Bucket) -> None:
    """Raises Refused(400) by the name of the field."""
    try:
        bucket.full_clean(exclude=["tenant", "secret_access_key"], validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        faults = (f"`{field}`: {' '.join(said)}" for field, said in error.message_dict.items())
        raise bad_request(" ".join(faults), "invalid_bucket") from error


def remove(tenant_id: UUID, name: str) -> None:
    """Its settings; the S3 bucket stays as it is. Raises Refused: 404, 409 while something names it."""
    try:
        with transaction.atomic():
            bucket = one(tenant_id, name, lock=True)
            if kinds := sorted(set(protectors(bucket))):
                raise _in_use(name, f"These name it: {', '.join(kinds)}.")
            sql.run("DELETE FROM storage_bucket WHERE id = %s", [bucket.pk])
    except IntegrityError as error:
        raise _in_use(name, "A job has just begun to use it.") from error


def _in_use(name: str, why: str) -> Refused:
    what = "Delete those first; or leave it, and let another be the default."
    return Refused(409, "bucket_in_use", f"The bucket {name!r} is in use. {why} {what}")
