"""A tenant's row, held while something new is made for it."""

from uuid import UUID

from accounts.errors import Refused
from accounts.models import Tenant


def hold(tenant_id: UUID) -> Tenant:
    """To the end of the transaction it is not deleted, and whoever else makes something for it waits: so what it has
    can be counted. Raises Refused(410) for a deleted one."""
    tenant = Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
    if tenant.deleted_at:
        raise Refused(410, "gone", f"The tenant {tenant.name!r} was deleted at {tenant.deleted_at:%Y-%m-%dT%H:%M:%SZ}.")
    return tenant
