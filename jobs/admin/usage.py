"""What tenants used: a list by day, a chart of it, and a month as CSV."""

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RangeDateFilter

from accounts.admin.pages import Admin, ReadOnly, going
from accounts.models import Tenant
from jobs.admin.shown import duration
from jobs.models import Usage
from jobs.report import month_before, report

DAYS = 31
COLOURS = ("#9333ea", "#0ea5e9", "#22c55e", "#f59e0b", "#ef4444", "#64748b", "#14b8a6", "#ec4899")


def today() -> date:
    return datetime.now(UTC).date()


def csv_file(month: date, tenant: Tenant | None = None) -> HttpResponse:
    name = f"usage-{tenant.name + '-' if tenant else ''}{month:%Y-%m}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(report(month, tenant), content_type="text/csv; charset=utf-8", headers=headers)


def chart(usage: QuerySet[Usage]) -> dict[str, Any]:
    """GPU seconds of the last 31 days, by endpoint: `data` for Chart.js, and `rows` of a table that says the same."""
    days = [today() - timedelta(days=before) for before in reversed(range(DAYS))]
    recent = usage.filter(day__gte=days[0]).order_by().values("endpoint__name", "day").annotate(ms=Sum("gpu_ms"))
    found: defaultdict[str, dict[date, float]] = defaultdict(dict)
    for row in recent:
        found[row["endpoint__name"]][row["day"]] = row["ms"] / 1000
    sets = [
        {"label": name, "data": [by_day.get(day, 0) for day in days], "backgroundColor": colour, "stack": "gpu"}
        for (name, by_day), colour in zip(
            sorted(found.items()), COLOURS * (len(found) // len(COLOURS) + 1), strict=False
        )
    ]
    stacked = {"stacked": True, "grid": {"display": False}}
    options = {
        "animation": False,
        "barPercentage": 0.8,
        "maintainAspectRatio": False,
        "plugins": {"legend": {"display": True, "position": "top"}},
        "scales": {"x": stacked, "y": {"stacked": True, "beginAtZero": True, "title": {"display": True, "text": "s"}}},
    }
    return {
        "data": json.dumps({"labels": [f"{day:%b %d}" for day in days], "datasets": sets}),
        "options": json.dumps(options),
        "days": DAYS,
        "totals": {name: duration(1000 * sum(by_day.values())) for name, by_day in sorted(found.items())},
    }


@admin.register(Usage)
class UsageAdmin(ReadOnly, Admin):
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
        ("tenant", AutocompleteSelectFilter),
        ("endpoint", AutocompleteSelectFilter),
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
        return csv_file(today().replace(day=1))

    @going("CSV of last month", "download")
    def last_month(self, request: HttpRequest) -> HttpResponse:
        return csv_file(month_before(today()))

    @admin.display(description="GPU time", ordering="gpu_ms")
    def gpu(self, usage: Usage) -> str:
        return duration(usage.gpu_ms)

    @admin.display(description="not billed", ordering="unbilled_gpu_ms")
    def unbilled(self, usage: Usage) -> str:
        return duration(usage.unbilled_gpu_ms) if usage.unbilled_gpu_ms else "-"

    @admin.display(description="cost", ordering="cost")
    def amount(self, usage: Usage) -> str:
        return f"{usage.cost:.2f} {settings.CURRENCY}".rstrip() if usage.cost else "-"
