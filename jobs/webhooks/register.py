"""The verbs on a tenant's webhooks: register, change, remove, secrets, test, replay. Each owns its transaction.

They take the tenant, so that another's webhook or delivery is 404.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts import sql, tenants
from accounts.errors import Refused, bad_request, not_found
from accounts.models import Tenant, uuid7
from accounts.sealed import Sealed
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.states import FINAL, News, announce_deliveries
from worker.wire import UrlRefused, check_url

MOST_WEBHOOKS = 10  # of a tenant
MOST_SECRETS = 5  # of a tenant, that sign at a time: each delivery carries the signatures of all
ENDS = [News(state.value.lower()).value for state in FINAL]  # the kinds that a request's own webhook hears of
OVERLAP = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """secret: the tenant's first, shown this once; "" if it has one already."""

    webhook: Webhook
    secret: str = field(repr=False)


def checked_url(url: str) -> str:
    """Raises Refused(400)."""
    try:
        return check_url(url, settings.URL_ALLOW)
    except UrlRefused as error:
        raise bad_request(f"`url`: {error}.", "invalid_url") from error


def checked_kinds(kinds: Sequence[str]) -> list[str]:
    """In the order of News, each once. Raises Refused(400)."""
    if unknown := [kind for kind in kinds if kind not in News.values]:
        raise bad_request(f"`kinds`: {unknown[0]!r} is none of {', '.join(News.values)}.", "invalid_kinds")
    if not kinds:
        raise bad_request(f"`kinds` must name at least one of {', '.join(News.values)}.", "invalid_kinds")
    return [kind for kind in News.values if kind in kinds]


def register(tenant: Tenant, url: str, kinds: Sequence[str]) -> Registered:
    """Raises Refused: 400 for a bad URL or kind, 409 for too many, 410 for a tenant that is deleted."""
    webhook = Webhook(tenant=tenant, url=checked_url(url), kinds=checked_kinds(kinds))
    with transaction.atomic():
        tenants.hold(tenant.pk)
        if Webhook.objects.of(tenant).count() >= MOST_WEBHOOKS:
            error = f"Tenant {tenant.name!r} has {MOST_WEBHOOKS} webhooks, which is the most. Remove one first."
            raise Refused(409, "too_many_webhooks", error)
        webhook.save(force_insert=True)
        return Registered(webhook=webhook, secret=first_secret(tenant))


def find(tenant: Tenant, id: UUID, *, lock: bool = False) -> Webhook:
    """Raises Refused(404)."""
    rows = Webhook.objects.of(tenant).filter(pk=id)
    found: Webhook | None = (rows.select_for_update(no_key=True) if lock else rows).first()
    if found is None:
        raise not_found(f"There is no webhook {id} of yours.")
    return found


def change(
    tenant: Tenant, id: UUID, *, url: str | None = None, kinds: Sequence[str] | None = None, enabled: bool | None = None
) -> Webhook:
    """What is None stays. Enabled anew it starts with a clean record. Raises Refused: 400, 404, 410."""
    with transaction.atomic():
        if enabled:
            tenants.hold(tenant.pk)
        webhook = find(tenant, id, lock=True)
        if url is not None:
            webhook.url = checked_url(url)
        if kinds is not None:
            webhook.kinds = checked_kinds(kinds)
        if enabled:
            webhook.failing_since, webhook.disabled_at, webhook.disabled_why = None, None, ""
        webhook.enabled = webhook.enabled if enabled is None else enabled
        webhook.save(force_update=True)
    return webhook


REMOVE = """
WITH few AS (
    SELECT id FROM jobs_delivery WHERE webhook_id = %(id)s LIMIT %(batch)s FOR UPDATE
), tries AS (
    DELETE FROM jobs_deliverytry t USING few WHERE t.delivery_id = few.id
)
DELETE FROM jobs_delivery d USING few WHERE d.id = few.id"""
BATCH = 10_000


def remove(tenant: Tenant, id: UUID) -> None:
    """With its deliveries, which may be very many: who ends a job meanwhile waits for the last of them only.
    Raises Refused(404)."""
    change(tenant, id, enabled=False)
    _remove_deliveries(id)
    with transaction.atomic():
        found = Webhook.objects.of(tenant).select_for_update().filter(pk=id).first()
        if found:  # from here on nothing is written for it (jobs.states.delivery_sql)
            _remove_deliveries(id)
            found.delete()


def _remove_deliveries(webhook: UUID) -> None:
    while sql.run(REMOVE, {"id": webhook, "batch": BATCH}):
        pass


def new_secret() -> str:
    """As Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def first_secret(tenant: Tenant) -> str:
    """The text of a tenant's first secret, made now; "" if it has one. Raises Refused(410)."""
    with transaction.atomic():
        tenants.hold(tenant.pk)
        has_one = WebhookSecret.objects.of(tenant).filter(expires_at=None).exists()
        return "" if has_one else _make(tenant)


def roll_secret(tenant: Tenant, overlap: timedelta = OVERLAP) -> str:
    """The text of a new secret, shown this once; those before it sign beside it for the overlap and not longer. Raises
    Refused: 409 if too many would sign, 410."""
    with transaction.atomic():
        tenants.hold(tenant.pk)
        until = "clock_timestamp() + %(s)s * interval '1 s'"
        sql.run(
            f"UPDATE jobs_webhooksecret SET expires_at = least(expires_at, {until}) WHERE tenant_id = %(tenant)s",
            {"s": overlap.total_seconds(), "tenant": tenant.pk},
        )
        text = _make(tenant)
        if len(signing(tenant)) > MOST_SECRETS:
            error = f"{MOST_SECRETS} secrets sign now, which is the most. Wait until one ends, or roll without overlap."
            raise Refused(409, "too_many_secrets", error)
        return text


def signing(tenant: Tenant) -> list[WebhookSecret]:
    """The secrets that hold now, the newest first."""
    good = Q(expires_at=None) | Q(expires_at__gt=Now())
    return list(WebhookSecret.objects.of(tenant).filter(good).order_by("-pk"))


FORGET_SECRETS = """
DELETE FROM jobs_webhooksecret WHERE id IN (
       SELECT id FROM jobs_webhooksecret WHERE expires_at < clock_timestamp() LIMIT %(batch)s FOR UPDATE SKIP LOCKED)"""


def forget_secrets(batch: int) -> int:
    """Those that were rolled and whose overlap is over: they sign nothing any more."""
    return sql.run(FORGET_SECRETS, {"batch": batch})


def _make(tenant: Tenant) -> str:
    text = new_secret()
    WebhookSecret.all_tenants.create(tenant=tenant, secret=Sealed.seal(text))
    return text


def send_test(tenant: Tenant, id: UUID) -> Delivery:
    """One POST of a sample, to a disabled webhook too. It is tried once, waits behind nothing, and counts for nothing.
    Raises Refused(404)."""
    with transaction.atomic():
        webhook = find(tenant, id)
        made: Delivery = Delivery.all_tenants.create(
            tenant=tenant, webhook=webhook, lane=uuid7(), kind=Delivery.Kind.TEST
        )
        announce_deliveries(True)
    made.refresh_from_db(from_queryset=Delivery.all_tenants.all())
    return made


ENDED = (Delivery.State.DELIVERED, Delivery.State.FAILED)  # what may be sent again
AGAIN = """
UPDATE jobs_delivery d SET state = 'pending', tries = 0, began_at = clock_timestamp(), next_at = clock_timestamp(),
       ended_at = NULL
  FROM jobs_delivery o LEFT JOIN jobs_webhook w ON w.id = o.webhook_id
 WHERE o.id = d.id AND coalesce(w.enabled OR d.kind = 'test', true) AND {which}"""


def replay(tenant: Tenant, delivery_id: int) -> None:
    """Send it again under its webhook-id, delivered or not, with a day of tries. Raises Refused: 404, 409."""
    with transaction.atomic():
        own = Delivery.objects.of(tenant).select_for_update(of=("self",), no_key=True)
        delivery = own.select_related("webhook").filter(pk=delivery_id).first()
        if delivery is None:
            raise not_found(f"There is no delivery {delivery_id} of yours.")
        which = "d.id = %(id)s AND d.state IN ('delivered', 'failed')"
        if not sql.run(AGAIN.format(which=which), {"id": delivery.pk}):
            raise Refused(409, "not_replayable", _why_not(delivery))
        announce_deliveries(True)


def _why_not(delivery: Delivery) -> str:
    if delivery.state == Delivery.State.PENDING:
        return "It is being sent already."
    if delivery.state == Delivery.State.OUTDATED:
        return "The job has moved on since: what this delivery was to say is no longer so."
    return "Its webhook is disabled. Enable it first."


def replay_of(tenant: Tenant, job: UUID) -> int:
    """Send all again that a job's deliveries have said, or failed to say; not to disabled webhooks. How many."""
    which = "d.tenant_id = %(tenant)s AND d.job_id = %(job)s AND d.state IN ('delivered', 'failed')"
    with transaction.atomic():
        found = sql.run(AGAIN.format(which=which), {"tenant": tenant.pk, "job": job})
        announce_deliveries(bool(found))
    return found


def replay_failed(since: datetime, tenant: Tenant | None = None, webhook: Webhook | None = None) -> int:
    """Send again all that failed since then, of a tenant, of a webhook, or all; not to disabled webhooks. How many."""
    which = "d.state = 'failed' AND d.ended_at >= %(since)s AND d.kind <> 'test'"
    which += " AND d.tenant_id = %(tenant)s" if tenant else ""
    which += " AND d.webhook_id = %(webhook)s" if webhook else ""
    with transaction.atomic():
        params = {"since": since, "tenant": tenant and tenant.pk, "webhook": webhook and webhook.pk}
        found = sql.run(AGAIN.format(which=which), params)
        announce_deliveries(bool(found))
    return found
