"""/api/v1/me, /endpoints, /usage: who the caller is, what it may use, and what it used."""

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import tenants
from accounts.models import UNUSED_DAYS_MOST, ApiKey, Tenant
from jobs import history, report
from jobs.api import shapes
from jobs.api.access import MANAGE
from jobs.api.keys import limits, shown
from jobs.api.requests import checked
from jobs.granted import READ, grants_of, no_endpoint
from jobs.models import Grant


class Own(serializers.Serializer):  # type: ignore[misc]
    """What a tenant may set itself."""

    unused_key_days = serializers.IntegerField(
        min_value=1,
        max_value=UNUSED_DAYS_MOST,
        allow_null=True,
        help_text="A key that was neither made nor used for so long has expired; null: none does by that.",
    )


class Me(APIView):  # type: ignore[misc]
    @property
    def scope(self) -> str:
        return MANAGE if self.request.method == "PATCH" else READ

    @shapes.answers("The tenant and the key", shapes.Me)
    def get(self, request: Request) -> Response:
        return Response(_me(request))

    @shapes.answers("Set what is the tenant's to set", shapes.Me, given=Own, errors=(400, 410, 415))
    def patch(self, request: Request) -> Response:
        """It holds at once, for all keys of the tenant."""
        tenants.set_unused_key_days(request.user.tenant_id, checked(Own, request.data)["unused_key_days"])
        return Response(_me(request))


def _me(request: Request) -> dict[str, Any]:
    key = ApiKey.all_tenants.select_related("tenant").get(pk=request.user.key_id)
    tenant = key.tenant
    own = {name: getattr(tenant, name) for name in ("max_stored_bytes", "unused_key_days")}
    return {"tenant": {"id": str(tenant.pk), "name": tenant.name} | limits(tenant) | own, "key": shown(key)}


def _grants(request: Request) -> Any:
    grants = grants_of(request.user.tenant_id).filter(request.user.sees("endpoint__name"))
    return grants.select_related("endpoint").order_by("endpoint__name")


class Endpoints(APIView):  # type: ignore[misc]
    @shapes.answers("The endpoints that you may use", shapes.Endpoints, name="endpoints_list")
    def get(self, request: Request) -> Response:
        return Response({"results": [endpoint(grant) for grant in _grants(request)]})


class OneEndpoint(APIView):  # type: ignore[misc]
    @shapes.answers("An endpoint with its health", shapes.OneEndpoint, errors=(404,))
    def get(self, request: Request, name: str) -> Response:
        """With its health: the caller's jobs and all workers, counted."""
        grant = _grants(request).filter(endpoint__name=name).first()
        if grant is None:
            raise no_endpoint(name)
        return Response(endpoint(grant) | history.health_of(grant.pk, grant.endpoint_id))


def endpoint(grant: Grant) -> dict[str, Any]:
    at = grant.endpoint
    price = at.price if grant.price is None else grant.price
    return {
        "name": at.name,
        "url": f"{settings.HEARTH_URL}/v2/{at.name}",
        "dialect": at.dialect,
        "mode": at.mode,
        "message": at.message or None,
        "weight": grant.weight,
        "max_running": grant.max_running,
        "price": None if price is None else str(price),
        "currency": settings.CURRENCY or None,
    }


class Asked(serializers.Serializer):  # type: ignore[misc]
    month = serializers.CharField(max_length=7, help_text="2026-10; UTC.")
    daily = serializers.BooleanField(default=False)


class Usage(APIView):  # type: ignore[misc]
    @shapes.answers("What a month used", shapes.UsageOf, query=Asked, errors=(400,))
    def get(self, request: Request) -> Response:
        """Of a month, by endpoint and key, and by day if `daily`: what `usage_report` tells the operator."""
        asked = checked(Asked, request.query_params)
        tenant = Tenant.objects.get(pk=request.user.tenant_id)
        only = request.user.sees("endpoint__name")
        used = report.used(report.month_of(asked["month"]), tenant, only, daily=asked["daily"])
        return Response({"currency": settings.CURRENCY or None, "results": list(used)})
