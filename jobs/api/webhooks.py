"""/api/v1/webhooks: URLs that hear of all jobs of a tenant, and the secrets that sign; for the scope `manage`."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Tenant
from jobs.api import owned, shapes
from jobs.api.deliveries import told
from jobs.api.keys import Managed, Rolled
from jobs.api.requests import Paged, checked, nothing_said, page_of
from jobs.models import Webhook, WebhookSecret
from jobs.models.webhook import address
from jobs.states import News
from jobs.webhooks import look, register
from storage.assets import when


class WebhookChanges(serializers.Serializer):  # type: ignore[misc]
    """What is not given stays."""

    url = serializers.CharField(max_length=2048, required=False, help_text="https, at a public address.")
    kinds = serializers.ListField(
        child=serializers.ChoiceField(News.values), required=False, allow_empty=False, help_text="Of news."
    )
    enabled = serializers.BooleanField(required=False, help_text="false pauses it; true begins with a clean record.")


class GivenWebhook(serializers.Serializer):  # type: ignore[misc]
    url = serializers.CharField(max_length=2048, help_text="https, at a public address.")
    kinds = serializers.ListField(
        child=serializers.ChoiceField(News.values), default=register.ENDS, allow_empty=False, help_text="Of news."
    )


class Webhooks(Managed):
    @shapes.answers(
        "Webhooks, newest first", shapes.page(owned.AWebhook), query=Paged, errors=(404,), name="webhooks_list"
    )
    def get(self, request: Request) -> Response:
        return page_of(Webhook.all_tenants.filter(tenant_id=request.user.tenant_id), request, shown)

    @shapes.answers("Register a webhook", owned.NewWebhook, 201, given=GivenWebhook, errors=(400, 409, 410, 415))
    def post(self, request: Request) -> Response:
        """The tenant's first comes with the secret that signs, which is shown this once."""
        made = register.register(_tenant(request), **checked(GivenWebhook, request.data))
        return Response(shown(made.webhook) | {"secret": made.secret or None}, 201)


class OneWebhook(Managed):
    @shapes.answers("A webhook", owned.AWebhook, errors=(404,))
    def get(self, request: Request, webhook: UUID) -> Response:
        return Response(shown(register.find(_tenant(request), webhook)))

    @shapes.answers(
        "Change, pause or resume a webhook", owned.AWebhook, given=WebhookChanges, errors=(400, 404, 410, 415)
    )
    def patch(self, request: Request, webhook: UUID) -> Response:
        return Response(shown(register.change(_tenant(request), webhook, **checked(WebhookChanges, request.data))))

    @shapes.answers("Forget a webhook with its deliveries", None, 204, errors=(404,))
    def delete(self, request: Request, webhook: UUID) -> Response:
        register.remove(_tenant(request), webhook)
        return Response(status=204)


class SendTest(Managed):
    @shapes.answers("Send a webhook a sample", owned.OneDelivery, 202, errors=(404, 415))
    def post(self, request: Request, webhook: UUID) -> Response:
        """Signed, once, to a paused one too; what the receiver answers is then told with the delivery."""
        nothing_said(request)
        return Response(told(register.send_test(_tenant(request), webhook)), 202)


class Secrets(Managed):
    @shapes.answers("The secrets that sign now", owned.Secrets, name="webhooks_secrets_list")
    def get(self, request: Request) -> Response:
        """When they were made and until when they hold; never their text."""
        found = register.signing(_tenant(request))
        return Response({"results": [_secret(secret) for secret in found]})

    @shapes.answers("Roll the secret", owned.NewSecret, 201, given=Rolled, errors=(400, 409, 410, 415))
    def post(self, request: Request) -> Response:
        """A new one; those before it sign beside it for `overlap_s`, and not longer."""
        tenant, overlap_s = _tenant(request), checked(Rolled, request.data)["overlap_s"]
        text = register.roll_secret(tenant, timedelta(seconds=overlap_s))
        return Response({"secret": text}, 201)


def _tenant(request: Request) -> Tenant:
    return Tenant.objects.get(pk=request.user.tenant_id)


def shown(webhook: Webhook) -> dict[str, Any]:
    """Without what may be secret in its URL."""
    return {
        "id": str(webhook.pk),
        "url": address(webhook.url),
        "kinds": webhook.kinds,
        "enabled": webhook.enabled,
        "state": look.state_of(webhook),
        "disabled_why": webhook.disabled_why or None,
        "disabled_at": when(webhook.disabled_at),
        "failing_since": when(webhook.failing_since),
        "created_at": when(webhook.created_at),
    }


def _secret(secret: WebhookSecret) -> dict[str, Any]:
    return {"created_at": when(secret.created_at), "expires_at": when(secret.expires_at)}
