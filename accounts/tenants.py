"""A tenant's row: held while something new is made for it, and what the tenant itself may set in it."""

from uuid import UUID

from django.db import transaction

from accounts.errors import Refused
from accounts.models import Tenant


def hold(tenant_id: UUID) -> Tenant:
    """To the end of the transaction it is not deleted, and whoever else makes something for it waits: so what it has
    can be counted. Raises Refused(410) for a deleted one."""
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
    if tenant.deleted_at:
        raise Refused(410, "gone", f"The tenant {tenant.name!r} was deleted at {tenant.deleted_at:%Y-%m-%dT%H:%M:%SZ}.")
    return tenant


def endpoints_of(tenant_id: UUID) -> list[str]:
    """The names of those that it is granted."""
    own = {"grants__isnull": False, "grants__overflow_of": None}
    return sorted(Tenant.objects.filter(pk=tenant_id, **own).values_list("grants__endpoint__name", flat=True))


def set_unused_key_days(tenant_id: UUID, days: int | None) -> None:
    """After how many days without use its API keys expire; None: none does. It holds at once, for all of them: those
    that it ends work again once the number is raised. Raises Refused(410)."""
    with transaction.atomic():
        tenant = hold(tenant_id)
        tenant.unused_key_days = days
        tenant.save(update_fields=["unused_key_days"])
