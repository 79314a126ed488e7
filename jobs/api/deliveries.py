"""/api/v1/deliveries: what was sent to a tenant's receivers and what they answered; to be sent again."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import not_found
from accounts.models import Tenant
from jobs.api import owned, shapes
from jobs.api.keys import Managed
from jobs.api.requests import Paged, checked, nothing_said, page_of, words_of
from jobs.ids import parse_job_id
from jobs.models import Delivery
from jobs.models.webhook import parse_message_id
from jobs.webhooks import look, register
from storage.assets import when


class Filters(serializers.Serializer):  # type: ignore[misc]
    """Of the list, as query parameters."""

    webhook = serializers.UUIDField(required=False)
    job = serializers.CharField(required=False, max_length=100)
    state = serializers.CharField(required=False, help_text="One or several, with commas between.")
    kind = serializers.CharField(required=False, help_text="One or several, with commas between.")
    since = serializers.DateTimeField(required=False, help_text="ISO 8601; without a time zone it is UTC.")
    until = serializers.DateTimeField(required=False, help_text="Not itself.")

    def validate_state(self, value: str) -> list[str]:
        return words_of(Delivery.State.values, value)

    def validate_kind(self, value: str) -> list[str]:
        return words_of(Delivery.Kind.values, value)


class OfList(Paged, Filters):
    """All that the list takes."""


class Failed(serializers.Serializer):  # type: ignore[misc]
    failed_since = serializers.DateTimeField(help_text="ISO 8601; without a time zone it is UTC.")
    webhook = serializers.UUIDField(required=False, help_text="Only of this one.")


class Deliveries(Managed):
    @shapes.answers(
        "Deliveries, newest first",
        shapes.page(owned.ADelivery),
        query=OfList,
        errors=(400, 404),
        name="deliveries_list",
    )
    def get(self, request: Request) -> Response:
        found = _found(request.user.tenant_id, **checked(Filters, request.query_params))
        return page_of(look.with_last_try(found), request, _listed)


class OneDelivery(Managed):
    @shapes.answers("A delivery with its tries", owned.OneDelivery, errors=(404,))
    def get(self, request: Request, delivery: str) -> Response:
        return Response(told(_own(request, delivery)))


class Replay(Managed):
    @shapes.answers("Send a delivery again", owned.OneDelivery, 202, errors=(404, 409, 415))
    def post(self, request: Request, delivery: str) -> Response:
        """Under its id, delivered or not, with a day of tries."""
        nothing_said(request)
        found = _own(request, delivery)
        register.replay(found.tenant, found.pk)
        return Response(told(_own(request, delivery)), 202)


class ReplayFailed(Managed):
    @shapes.answers(
        "Send all that failed again",
        owned.SentAgain,
        given=Failed,
        errors=(400, 404, 415),
        name="deliveries_replay_failed",
    )
    def post(self, request: Request) -> Response:
        """Since a time; not to paused or disabled webhooks, and no tests."""
        given = checked(Failed, request.data)
        tenant = Tenant.objects.get(pk=request.user.tenant_id)
        webhook = register.find(tenant, given["webhook"]) if "webhook" in given else None
        return Response({"sent_again": register.replay_failed(given["failed_since"], tenant, webhook)})


def _found(tenant_id: Any, **given: Any) -> QuerySet[Delivery]:
    found = Delivery.all_tenants.filter(tenant_id=tenant_id)
    named = {"webhook": "webhook_id", "state": "state__in", "kind": "kind__in"}
    named |= {"since": "created_at__gte", "until": "created_at__lt"}
    if "job" in given:
        job = parse_job_id(given.pop("job"))
        found = found.filter(job_id=job.uuid, job__sync=job.sync) if job else found.none()
    return found.filter(**{named[name]: value for name, value in given.items()})


def _own(request: Request, text: str) -> Delivery:
    """Raises Refused(404)."""
    message = parse_message_id(text)
    own = Delivery.all_tenants.filter(tenant_id=request.user.tenant_id, message=message) if message else None
    found = look.with_last_try(own).first() if own is not None else None
    if found is None:
        raise not_found(f"There is no delivery {text!r} of yours.")
    one: Delivery = found
    return one


def _shown(delivery: Any) -> dict[str, Any]:
    return {
        "id": delivery.message_id,
        "webhook": delivery.webhook_id and str(delivery.webhook_id),
        "job": delivery.job and delivery.job.public_id,
        "kind": delivery.kind,
        "state": delivery.state,
        "url": look.goes_to(delivery),
        "try_count": delivery.tries,
        "created_at": when(delivery.created_at),
        "next_at": when(delivery.next_at),
        "ended_at": when(delivery.ended_at),
    }


def _listed(delivery: Any) -> dict[str, Any]:
    """Of look.with_last_try."""
    return _shown(delivery) | {"last_try": delivery.last}


def told(delivery: Any) -> dict[str, Any]:
    """With each of its tries, the oldest first."""
    tries = [
        {"at": when(each.at)} | {name: getattr(each, name) for name in ("status", "ms", "answer", "error")}
        for each in look.tries(delivery)
    ]
    return _shown(delivery) | {"tries": tries}
