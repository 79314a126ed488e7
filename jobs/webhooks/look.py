"""Webhooks and deliveries as people look at them: where each goes to, how it stands, what its last try came to."""

from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import JSONObject

from accounts.errors import not_found
from jobs.models import Delivery, DeliveryTry, Webhook
from jobs.models.webhook import address, parse_message_id

ENABLED, FAILING, OFF, DISABLED = "enabled", "failing", "switched off", "disabled"


def state_of(webhook: Webhook) -> str:
    """failing: the last tries were; disabled: by Hearth; switched off: by a person."""
    if webhook.enabled:
        return FAILING if webhook.failing_since else ENABLED
    return DISABLED if webhook.disabled_at else OFF


IN_STATE = {
    ENABLED: Q(enabled=True, failing_since=None),
    FAILING: Q(enabled=True, failing_since__isnull=False),
    OFF: Q(enabled=False, disabled_at=None),
    DISABLED: Q(enabled=False, disabled_at__isnull=False),
}


def with_last_try(deliveries: QuerySet[Delivery]) -> QuerySet[Any]:
    """Each with `own_url`, that of its job's request, and `last`: {status, ms, answer, error} of its last try, or None.
    One query, without payloads."""
    fields = {name: name for name in ("status", "ms", "answer", "error")}
    tries = DeliveryTry.all_tenants.filter(delivery=OuterRef("pk")).order_by("-id")
    last = Subquery(tries.values(last=JSONObject(**fields))[:1])
    found = deliveries.select_related("tenant", "webhook__tenant", "job")
    return found.annotate(own_url=F("job__payload__webhook"), last=last)


def goes_to(delivery: Any) -> str:
    """Of with_last_try: the URL, without what may be secret in it."""
    return address(delivery.webhook.url if delivery.webhook else delivery.own_url or "")


def outcome(status: int | None, ms: int, answer: str, error: str) -> str:
    """Of a try, in a line."""
    if status is None:
        return f"no answer in {ms} ms: {error}"
    return f"{status} in {ms} ms" + (f": {answer}" if answer else "")


def last_outcome(delivery: Any) -> str:
    """Of with_last_try; "" before the first try."""
    return outcome(**delivery.last) if delivery.last else ""


def find_webhook(text: str) -> Webhook:
    """By its id, whoever's it is. Raises Refused(404)."""
    try:
        found = Webhook.all_tenants.select_related("tenant").filter(pk=UUID(text)).first()
    except ValueError:
        found = None
    if found is None:
        raise not_found(f"There is no webhook {text!r}.")
    return found


def find_delivery(text: str) -> Delivery:
    """By its webhook-id, whoever's it is. Raises Refused(404)."""
    message = parse_message_id(text)
    found = Delivery.all_tenants.select_related("tenant").filter(message=message).first() if message else None
    if found is None:
        raise not_found(f"There is no delivery {text!r}.")
    return found


def tries(delivery: Delivery) -> QuerySet[DeliveryTry]:
    """The oldest first."""
    return DeliveryTry.all_tenants.filter(delivery=delivery).order_by("id")
