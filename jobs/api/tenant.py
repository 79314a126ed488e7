"""/api/v1/me, /endpoints, /usage: who the caller is, what it may use, and what it used."""

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import ApiKey, Tenant
from jobs import history, report
from jobs.api import shapes
from jobs.api.assets import checked
from jobs.api.keys import limits, shown
from jobs.granted import grants_of, no_endpoint
from jobs.models import Grant


class Me(APIView):  # type: ignore[misc]
    @shapes.answers("The tenant and the key", shapes.Me)
    def get(self, request: Request) -> Response:
        tenant = Tenant.objects.get(pk=request.user.tenant_id)
        return Response(
            {
                "tenant": {"id": str(tenant.pk), "name": tenant.name}
                | limits(tenant)
                | {"max_stored_bytes": tenant.max_stored_bytes},
                "key": shown(ApiKey.all_tenants.get(pk=request.user.key_id)),
            }
        )


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
