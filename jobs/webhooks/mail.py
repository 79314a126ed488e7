"""Mails about webhooks that were disabled: to the tenant's owners, else to the operator (ADMINS)."""

import logging
from smtplib import SMTPException
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import send_mail
from django.db.models import QuerySet
from django.utils import timezone

from accounts.errors import counted
from accounts.models import Member, Tenant
from jobs.models import Webhook

log = logging.getLogger("hearth.webhooks")
TEXT = """The webhook {id} of tenant {tenant}, to {host}, gets no more news:

    {why}

When the receiver is well again, enable the webhook. What could not be delivered is kept for {days} and can be
sent again: {url}
"""


def untold() -> QuerySet[Webhook]:
    """Disabled by Hearth, and no mail has said so yet."""
    return Webhook.all_tenants.filter(enabled=False, disabled_at__isnull=False, told_at=None)


def tell_disabled() -> int:
    """Mail about each; returns how many. A mail that cannot be sent is tried again when this is next called; one may
    come twice if this process dies at it."""
    told = 0
    for webhook in untold().select_related("tenant"):
        try:
            _mail(webhook)
        except (SMTPException, OSError) as error:
            log.warning("no mail about the disabled %s: %s", webhook, error)
            continue
        untold().filter(pk=webhook.pk, disabled_at=webhook.disabled_at).update(told_at=timezone.now())
        told += 1
    return told


def _mail(webhook: Webhook) -> None:
    to = recipients(webhook.tenant)
    if not to:
        log.warning("%s of %s was disabled, and there is nobody to tell it", webhook, webhook.tenant)
        return
    host = urlsplit(webhook.url).hostname  # not the whole URL, which may hold a token
    text = TEXT.format(
        id=webhook.pk,
        tenant=webhook.tenant,
        host=host,
        why=webhook.disabled_why,
        days=counted(settings.DELIVERY_DAYS, "day"),
        url=settings.HEARTH_URL,
    )
    send_mail(f"Hearth: the webhook to {host} is disabled", text, None, to)


def recipients(tenant: Tenant) -> list[str]:
    owners = Member.objects.of(tenant).filter(role=Member.Role.OWNER, user__is_active=True).exclude(user__email="")
    return sorted(set(owners.values_list("user__email", flat=True))) or [address for _, address in settings.ADMINS]
