"""A tenant's members: invited, given a role, removed. An owner does it for his tenant, an operator for all.

Whom an owner invites is a user of that tenant alone, by a name that ends in it (bob@acme): so no tenant learns by a
name that is taken who the others' users are, and no owner reaches a user who has a place elsewhere.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from accounts.errors import Refused
from accounts.models import Member, Tenant, User

LAST_OWNER = "It would leave the tenant without an owner: make somebody else an owner first."


class SetPassword(PasswordResetTokenGenerator):
    """Of a link by which a user sets a password: once, in PASSWORD_RESET_TIMEOUT, while his tenants are the same."""

    key_salt = "accounts.membership.SetPassword"

    def _make_hash_value(self, user: Any, timestamp: int) -> str:
        tenants = sorted(str(tenant) for tenant in user.memberships.values_list("tenant", flat=True))
        return f"{super()._make_hash_value(user, timestamp)}{tenants}{user.is_staff}{user.is_superuser}"


set_password = SetPassword()


def password_link(user: User) -> str:
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    return f"{settings.HEARTH_URL}{reverse('admin:set_password', args=[uid, set_password.make_token(user)])}"


def invite(tenant: Tenant, name: str, email: str, role: str) -> Member:
    """A user without a password yet, and his place; one who was removed comes back. Raises Refused(409): there is
    such a member."""
    username = f"{name}@{tenant.name}"
    taken = Refused(409, "name_taken", f"There is a user {username} already: choose another name.")
    try:
        with transaction.atomic():
            user = User.objects.filter(username=username).first() or User(username=username)
            if user.pk and (user.is_staff or user.is_superuser or user.memberships.exists()):
                raise taken
            user.email = User.objects.normalize_email(email)
            user.set_unusable_password()
            user.save()
            return Member.all_tenants.create(tenant=tenant, user=user, role=role)
    except IntegrityError as error:
        raise taken from error


def is_of_that_tenant_alone(member: Member) -> bool:
    """Whose password its owners may have set anew."""
    user = member.user
    elsewhere = user.memberships.exclude(tenant_id=member.tenant_id)
    return not (user.is_staff or user.is_superuser or elsewhere.exists())


def change_role(member: Member, role: str) -> None:
    """Raises Refused(409): he is the last owner."""
    with transaction.atomic():
        _keep_an_owner(member, role)
        member.role = role
        member.save(update_fields=["role"])


def remove(member: Member) -> None:
    """Raises Refused(409): he is the last owner. A user who has no other place cannot sign in any more."""
    with transaction.atomic():
        _keep_an_owner(member, None)
        member.delete()


def _keep_an_owner(member: Member, role: str | None) -> None:
    """The tenant's row is locked: two owners cannot remove each other."""
    Tenant.objects.select_for_update(no_key=True).get(pk=member.tenant_id)
    owners = Member.all_tenants.filter(tenant=member.tenant_id, role=Member.Role.OWNER)
    if role != Member.Role.OWNER and [owner.pk for owner in owners] == [member.pk]:
        raise Refused(409, "last_owner", LAST_OWNER)
