"""What tenants used: a list by day, a chart of it, and a month as CSV."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import RangeDateFilter

from accounts.admin.pages import Admin, ReadOnly, RelatedFilter, going
from accounts.admin.scope import Members
from accounts.models import Tenant
from jobs.admin.shown import duration
from jobs.models import Usage
from jobs.report import month_before, report

DAYS = 31
COLOURS = ("#9333ea", "#0ea5e9", "#22c55e", "#f59e0b", "#ef4444", "#14b8a6", "#ec4899", "#64748b")
TEXT = "#9ca3af"  # readable on light and on dark
UNITS = {"hours": 3_600_000, "minutes": 60_000, "seconds": 1_000}


def today() -> date:
    return datetime.now(UTC).date()


def csv_file(month: date, tenants: Collection[Tenant | UUID] | None, name: str = "") -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="usage-{name and name + "-"}{month:%Y-%m}.csv"'}
    return HttpResponse(report(month, tenants), content_type="text/csv; charset=utf-8", headers=headers)


def chart(usage: QuerySet[Usage]) -> dict[str, Any]:
    """GPU time of the last 31 days, by endpoint: `data` for Chart.js, in `unit`, and `totals` that say it in words."""
    days = [today() - timedelta(days=before) for before in reversed(range(DAYS))]
    found = _by_endpoint(usage.filter(day__gte=days[0]))
    fullest_ms = max(sum((of_days for of_days in found.values()), Counter[date]()).values(), default=0)
    unit = next((unit for unit, ms in UNITS.items() if fullest_ms >= 3 * ms), "seconds")
    sets = [
        {"label": name, "data": [of_days[day] / UNITS[unit] for day in days], "backgroundColor": colour}
        for (name, of_days), colour in zip(found.items(), COLOURS, strict=False)
    ]
    return {
        "data": json.dumps({"labels": [f"{day:%b %d}" for day in days], "datasets": sets}),
        "options": json.dumps(_options(unit)),
        "unit": unit,
        "days": DAYS,
        "totals": {name: duration(of_days.total()) for name, of_days in found.items()},
    }


def _by_endpoint(usage: QuerySet[Usage]) -> dict[str, Counter[date]]:
    """ms of each day; where there are more endpoints than colours, of those with the least together."""
    found: defaultdict[str, Counter[date]] = defaultdict(Counter)
    for row in usage.order_by().values("endpoint__name", "day").annotate(ms=Sum("gpu_ms")):
        found[row["endpoint__name"]][row["day"]] = row["ms"]
    shown = sorted(found, key=lambda name: -found[name].total())
    others: list[str] = []
    if len(found) > len(COLOURS):
        shown, others = shown[: len(COLOURS) - 1], shown[len(COLOURS) - 1 :]
    rest = {f"{len(others)} others": sum((found[name] for name in others), Counter[date]())} if others else {}
    return {name: found[name] for name in sorted(shown)} | rest


def _options(unit: str) -> dict[str, Any]:
    ticks = {"color": TEXT, "maxRotation": 0, "autoSkipPadding": 12}
    of_y = {"stacked": True, "beginAtZero": True, "ticks": {"color": TEXT}}
    return {
        "animation": False,
        "barPercentage": 0.8,
        "maintainAspectRatio": False,
        "plugins": {"legend": {"position": "top", "labels": {"color": TEXT, "boxWidth": 12}}},
        "scales": {
            "x": {"stacked": True, "grid": {"display": False}, "ticks": ticks},
            "y": of_y | {"title": {"display": True, "text": unit, "color": TEXT}},
        },
    }


@admin.register(Usage)
class UsageAdmin(ReadOnly, Admin):
    open_to = Members("tenant")
    list_display = (
        "day",
        "tenant",
        "endpoint",
        "api_key",
        "gpu",
        "unbilled",
        "amount",
        "completed",
        "failed",
        "cancelled",
        "timed_out",
        "lost",
    )
    list_filter = (
        ("tenant", RelatedFilter),
        ("endpoint", RelatedFilter),
        ("day", RangeDateFilter),
    )
    list_fullwidth = True
    list_select_related = ("tenant", "endpoint", "api_key")
    list_before_template = "jobs/usage_chart.html"
    show_full_result_count = False
    ordering = ("-day", "tenant", "endpoint")
    actions_list = ("this_month", "last_month")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        answer = super().changelist_view(request, extra_context)
        if shown := getattr(answer, "context_data", {}).get("cl"):
            answer.context_data["chart"] = chart(shown.queryset)
        return answer

    @going("CSV of this month", "download")
    def this_month(self, request: HttpRequest) -> HttpResponse:
        return csv_file(today().replace(day=1), self._tenants(request))

    @going("CSV of last month", "download")
    def last_month(self, request: HttpRequest) -> HttpResponse:
        return csv_file(month_before(today()), self._tenants(request))

    def _tenants(self, request: HttpRequest) -> list[UUID] | None:
        return None if self.operators_may(request, "view") else self.tenants_where(request, "view")

    @admin.display(description="GPU time", ordering="gpu_ms")
    def gpu(self, usage: Usage) -> str:
        return duration(usage.gpu_ms)

    @admin.display(description="not billed", ordering="unbilled_gpu_ms")
    def unbilled(self, usage: Usage) -> str:
        return duration(usage.unbilled_gpu_ms) if usage.unbilled_gpu_ms else "-"

    @admin.display(description="cost", ordering="cost")
    def amount(self, usage: Usage) -> str:
        return f"{usage.cost:.2f} {settings.CURRENCY}".rstrip() if usage.cost else "-"
