"""What a tenant does with its API keys: makes, changes, rolls and revokes them (the admin does it by forms)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from accounts import tenants
from accounts.errors import Refused, bad_request, not_found
from accounts.models import LIMITED_MANAGES, ApiKey, Key, Limited, is_unused

LIMITS = tuple(field.name for field in Limited._meta.fields)
MOST_KEYS = 1000  # of a tenant that are neither revoked nor expired


def issue(tenant_id: UUID, **fields: Any) -> tuple[ApiKey, str]:
    """A new key, and its text, which is shown this once. Raises Refused: 400, 409 if there are too many, 410 for a
    tenant that is deleted."""
    _check(fields)
    with transaction.atomic():
        tenants.hold(tenant_id)
        known = ApiKey.all_tenants.filter(tenant_id=tenant_id, revoked_at=None).exclude(expires_at__lte=timezone.now())
        if known.exclude(is_unused()).count() >= MOST_KEYS:
            raise Refused(409, "too_many_keys", f"You have {MOST_KEYS} keys, which is the limit: revoke some.")
        return ApiKey.issue(tenant_id=tenant_id, **fields)


def one(tenant_id: UUID, prefix: str, *, lock: bool = False) -> ApiKey:
    """Raises Refused(404)."""
    keys = ApiKey.all_tenants.select_for_update(of=("self",)) if lock else ApiKey.all_tenants
    key = keys.select_related("tenant").filter(tenant_id=tenant_id, prefix=prefix).first()
    if key is None:
        raise not_found(f"There is no API key hth_{prefix}_… of yours.")
    return key


def change(tenant_id: UUID, prefix: str, **fields: Any) -> ApiKey:
    """Raises Refused: 400, 404."""
    with transaction.atomic():
        key = one(tenant_id, prefix, lock=True)
        for name, value in fields.items():
            setattr(key, name, value)
        _check(vars(key))
        key.save(update_fields=list(fields))
    return key


def _check(fields: Mapping[str, Any]) -> None:
    if fields.get("endpoints") and ApiKey.Scope.MANAGE in fields["scopes"]:
        raise bad_request(LIMITED_MANAGES)


def roll(tenant_id: UUID, prefix: str, overlap: timedelta) -> tuple[ApiKey, str]:
    """A new key like the old one, which goes on for `overlap`. Raises Refused: 404, 409 if that is over."""
    with transaction.atomic():
        tenants.hold(tenant_id)  # before the key, as who deletes the tenant has it
        old = one(tenant_id, prefix, lock=True)
        if old.state != Key.ACTIVE:
            raise Refused(409, "key_over", "This key was revoked or has expired. Make a new one.")
        same = {name: getattr(old, name) for name in ("name", "scopes", "endpoints", "expires_at", *LIMITS)}
        new = issue(tenant_id, **same)
        _end(old, timezone.now() + overlap)
        return new


def _end(key: ApiKey, at: datetime) -> None:
    key.expires_at = min(key.expires_at or at, at)
    key.save(update_fields=["expires_at"])


def revoke(tenant_id: UUID, prefix: str) -> None:
    """From now on; twice is as good as once. Raises Refused(404)."""
    one(tenant_id, prefix).revoke()
