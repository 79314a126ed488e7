"""/api/v1/keys: a tenant's API keys, for one with the scope `manage`. A key's text is shown once, where it is made."""

from datetime import timedelta
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import issuing
from accounts.models import ApiKey, Key
from jobs.api import shapes
from jobs.api.access import MANAGE
from jobs.api.requests import Paged, checked, page_of
from jobs.granted import checked_endpoints
from storage.assets import when

OVERLAP_S = (0, 30 * 24 * 3600)


class Limits(serializers.Serializer):  # type: ignore[misc]
    """null: none of the key's own."""

    max_queued = serializers.IntegerField(min_value=0, max_value=2**31 - 1, allow_null=True, required=False)
    max_running = serializers.IntegerField(min_value=0, max_value=2**31 - 1, allow_null=True, required=False)
    requests_per_10s = serializers.IntegerField(min_value=0, max_value=2**31 - 1, allow_null=True, required=False)
    gpu_s_a_month = serializers.IntegerField(min_value=0, max_value=2**63 - 1, allow_null=True, required=False)
    cost_a_month = serializers.DecimalField(14, 2, min_value=0, allow_null=True, required=False)


class Changed(Limits):
    name = serializers.CharField(max_length=100, required=False, allow_blank=True)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(ApiKey.Scope.values), required=False, allow_empty=False
    )
    endpoints = serializers.ListField(
        child=serializers.CharField(max_length=63),
        required=False,
        max_length=1000,
        help_text="The key is good for these alone; empty: for all that you may use.",
    )
    expires_at = serializers.DateTimeField(allow_null=True, required=False)

    def validate_scopes(self, value: list[str]) -> list[str]:
        return sorted(set(value))


class New(Changed):
    scopes = serializers.ListField(child=serializers.ChoiceField(ApiKey.Scope.values), allow_empty=False)


class Rolled(serializers.Serializer):  # type: ignore[misc]
    overlap_s = serializers.IntegerField(min_value=OVERLAP_S[0], max_value=OVERLAP_S[1], default=24 * 3600)


class Managed(APIView):  # type: ignore[misc]
    scope = MANAGE


class Keys(Managed):
    @shapes.answers("API keys, newest first", shapes.page(shapes.AKey), query=Paged, errors=(404,), name="keys_list")
    def get(self, request: Request) -> Response:
        keys = ApiKey.all_tenants.filter(tenant_id=request.user.tenant_id).select_related("tenant")
        return page_of(keys, request, shown)

    @shapes.answers("Make a key", shapes.NewKey, 201, given=New, errors=(400, 409, 415))
    def post(self, request: Request) -> Response:
        key, text = issuing.issue(request.user.tenant_id, **_given(New, request))
        return Response(shown(key) | {"key": text}, 201)


class OneKey(Managed):
    @shapes.answers("A key", shapes.AKey, errors=(404,))
    def get(self, request: Request, prefix: str) -> Response:
        return Response(shown(issuing.one(request.user.tenant_id, prefix)))

    @shapes.answers("Change a key", shapes.AKey, given=Changed, errors=(400, 404, 415))
    def patch(self, request: Request, prefix: str) -> Response:
        return Response(shown(issuing.change(request.user.tenant_id, prefix, **_given(Changed, request))))

    @shapes.answers("Revoke a key", None, 204, errors=(404,))
    def delete(self, request: Request, prefix: str) -> Response:
        """It is revoked; jobs that it submitted go on."""
        issuing.revoke(request.user.tenant_id, prefix)
        return Response(status=204)


class Roll(Managed):
    @shapes.answers("A new key in place of this one", shapes.NewKey, 201, given=Rolled, errors=(400, 404, 409, 415))
    def post(self, request: Request, prefix: str) -> Response:
        overlap = timedelta(seconds=checked(Rolled, request.data)["overlap_s"])
        key, text = issuing.roll(request.user.tenant_id, prefix, overlap)
        return Response(shown(key) | {"key": text}, 201)


def _given(form: type[Changed], request: Request) -> dict[str, Any]:
    fields = checked(form, request.data)
    if "endpoints" in fields:
        fields["endpoints"] = checked_endpoints(request.user.tenant_id, fields["endpoints"])
    return fields


def shown(key: ApiKey) -> dict[str, Any]:
    dates = ("created_at", "last_used_at", "expires_at", "revoked_at")
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": key.scopes,
        "endpoints": key.endpoints,
        "state": key.state,
        "good": key.state == Key.ACTIVE,
        **limits(key),
        **{name: when(getattr(key, name)) for name in dates},
    }


def limits(of: Any) -> dict[str, Any]:
    """Of a tenant or a key."""
    cost = of.cost_a_month
    return {name: getattr(of, name) for name in issuing.LIMITS} | {"cost_a_month": None if cost is None else str(cost)}
