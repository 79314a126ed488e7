"""Endpoints, who may use them, and who serves them."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import F, OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RadioFilter
from unfold.utils import display_for_label

from accounts.admin.keys import KeyAdmin, KeyInline
from accounts.admin.pages import Admin, Inline, Labels, ReadOnly, RelatedFilter
from accounts.admin.scope import OPERATORS_ONLY, VIEWER, Members, ScopedList
from jobs.admin.counts import ALIVE, GONE, UNHEALTHY, Rows, load, with_health
from jobs.admin.runpod import EndpointForm, RunpodInline
from jobs.catalogue import classes_in
from jobs.endpoints import set_mode
from jobs.models import Attempt, Catalogue, Endpoint, Grant, Overflow, Worker, WorkerKey
from jobs.states import State
from jobs.wake import wake_endpoint


def link(text: Any, page: str, **query: Any) -> str:
    """A link to a list; `query`: its filters."""
    url = f"{reverse(f'admin:{page}_changelist')}?{urlencode(query)}"
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


class LoadColumns:
    """Columns of what `load` counts, as links to the jobs."""

    jobs_by: str

    @admin.display(description="queued", ordering="queued")
    def queued_jobs(self, row: Any) -> str:
        return self._jobs(row, row.queued, State.IN_QUEUE)

    @admin.display(description="running", ordering="running")
    def running_jobs(self, row: Any) -> str:
        return self._jobs(row, row.running, State.IN_PROGRESS)

    def jobs_filter(self, row: Any) -> dict[str, Any]:
        return {self.jobs_by: row.pk}

    def _jobs(self, row: Any, count: int, state: State) -> str:
        return link(count, "jobs_job", state__exact=state.value, **self.jobs_filter(row)) if count else "0"


class GrantInline(Inline):
    model = Grant
    fields = ("tenant", "endpoint", "weight", "max_running", "price", "created_at")
    readonly_fields = ("tenant", "endpoint", "created_at")

    def get_queryset(self, request: HttpRequest) -> Any:
        own = super().get_queryset(request).filter(overflow_of=None)
        return own.select_related("tenant", "endpoint").order_by("pk")


class OverflowInline(ScopedList, TabularInline):  # type: ignore[misc]
    """Where else its jobs may run."""

    model = Overflow
    extra = 0
    fk_name = "endpoint"
    fields = ("to", "position", "unhealthy", "throttled", "over_budget", "wait_s", "share_percent")
    autocomplete_fields = ("to",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("to")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None and bool(super().has_add_permission(request, obj))


class WorkerKeyInline(KeyInline):
    model = WorkerKey


MODES: Labels = {"open": "success", "paused": "warning", "draining": "info", "closed": "danger"}


@admin.register(Endpoint)
class EndpointAdmin(LoadColumns, Admin):
    open_to = Members("", view=None, choose=VIEWER)
    form = EndpointForm
    list_display = (
        "name",
        "mode_label",
        "backend",
        "dialect",
        "queued_jobs",
        "running_jobs",
        "live_workers",
        "granted",
        "created_at",
    )
    list_filter = (
        ("mode", ChoicesDropdownFilter),
        ("backend", ChoicesDropdownFilter),
        ("dialect", ChoicesDropdownFilter),
    )
    search_fields = ("name",)
    ordering = ("name",)
    jobs_by = "grant__endpoint__id__exact"
    inlines = (RunpodInline, OverflowInline, GrantInline, WorkerKeyInline)
    actions = ("open_selected", "pause_selected", "drain_selected")

    def get_queryset(self, request: HttpRequest) -> Any:
        alive = with_health(Worker.objects.filter(endpoint=OuterRef("pk"))).filter(health=ALIVE)
        grants = Grant.all_tenants.filter(endpoint=OuterRef("pk"), overflow_of=None)
        counts = {"alive": Rows(alive), "grant_count": Rows(grants)}
        return super().get_queryset(request).annotate(**load("grant__endpoint"), **counts)

    def of_tenants(self, rows: QuerySet[Any], tenants: list[UUID]) -> QuerySet[Any]:
        """Those that they have grants for: to be chosen by their names, since the rest is the operator's."""
        return rows.filter(pk__in=Grant.all_tenants.filter(tenant__in=tenants, overflow_of=None).values("endpoint"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """The name is in the URLs of clients and workers."""
        return (
            ("name", "created_at", "queued_jobs", "running_jobs", "live_workers", "drained", "spent_at") if obj else ()
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        settings: list[Any] = ["name", ("backend", "dialect", "prefetch")]
        now = ("queued_jobs", "running_jobs", "live_workers", "created_at")
        budget = ("gpu_s_a_month", "cost_a_month", *(["spent_at"] if obj else []))
        return (
            (None, {"fields": [*([now] if obj else []), *settings]}),
            ("Mode", {"fields": [("mode", "message"), *(["drained"] if obj else [])]}),
            ("Limits and price", {"fields": [("max_running", "max_queued", "price"), budget]}),
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        wake_endpoint(obj.pk, obj.backend)  # it may hand out what it did not before

    @admin.action(description="Open the selected endpoints", permissions=["change"])
    def open_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set(request, queryset, Endpoint.Mode.OPEN)

    @admin.action(description="Pause the selected endpoints", permissions=["change"])
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set(request, queryset, Endpoint.Mode.PAUSED)

    @admin.action(description="Drain the selected endpoints", permissions=["change"])
    def drain_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._set(request, queryset, Endpoint.Mode.DRAINING)

    def _set(self, request: HttpRequest, queryset: QuerySet[Endpoint], mode: Endpoint.Mode) -> None:
        for endpoint in queryset:
            set_mode(endpoint.name, mode)
        messages.success(request, f"Now {mode.value}: {', '.join(str(endpoint) for endpoint in queryset)}.")

    @admin.display(description="mode", ordering="mode")
    def mode_label(self, endpoint: Endpoint) -> str:
        return str(display_for_label(endpoint.mode, "-", MODES))

    @admin.display(description="drained")
    def drained(self, endpoint: Any) -> str:
        left = f"{endpoint.queued} queued, {endpoint.running} running"
        return "yes: nothing is queued or running" if not endpoint.queued + endpoint.running else f"no: {left}"

    @admin.display(description="workers alive", ordering="alive")
    def live_workers(self, endpoint: Any) -> str:
        return link(endpoint.alive, "jobs_worker", endpoint__id__exact=endpoint.pk, health=ALIVE)

    @admin.display(description="grants", ordering="grant_count")
    def granted(self, endpoint: Any) -> str:
        return link(endpoint.grant_count, "jobs_grant", endpoint__id__exact=endpoint.pk)


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        bucket, tenant = given.get("bucket"), given.get("tenant") or getattr(self.instance, "tenant", None)
        if bucket and tenant and bucket.tenant_id != tenant.pk:
            raise ValidationError({"bucket": f"{bucket} is another tenant's: choose one of {tenant}."})
        return given


@admin.register(Grant)
class GrantAdmin(LoadColumns, Admin):
    open_to = Members("tenant")
    form = GrantForm
    list_display = ("tenant", "endpoint", "weight", "max_running", "price", "queued_jobs", "running_jobs", "created_at")
    list_filter = (("tenant", RelatedFilter), ("endpoint", RelatedFilter))
    list_select_related = ("tenant", "endpoint")
    search_fields = ("tenant__name", "endpoint__name")
    autocomplete_fields = ("tenant", "endpoint", "bucket")
    fields = ("tenant", "endpoint", "bucket", ("weight", "max_running", "price"), "created_at")
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(overflow_of=None).annotate(**load("grant"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("created_at", "tenant", "endpoint") if obj else ("created_at",)

    def jobs_filter(self, row: Any) -> dict[str, Any]:
        return {"tenant__id__exact": row.tenant_id, "endpoint__id__exact": row.endpoint_id}


@admin.register(WorkerKey)
class WorkerKeyAdmin(KeyAdmin):
    open_to = OPERATORS_ONLY
    owner = "endpoint"
    list_display = ("shown", "name", "endpoint", "state", "last_used_at", "expires_at", "created_at")
    list_filter = (*KeyAdmin.list_filter, ("endpoint", RelatedFilter))
    list_select_related = ("endpoint",)
    search_fields = ("prefix__startswith", "name", "endpoint__name")
    autocomplete_fields = ("endpoint",)


HEALTH: Labels = {ALIVE: "success", GONE: "", UNHEALTHY: "danger"}


class Health(RadioFilter):  # type: ignore[misc]
    title = "health"
    parameter_name = "health"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(health, health) for health in HEALTH]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(health=self.value()) if self.value() in HEALTH else queryset


class HeldInline(ReadOnly, Inline):
    model = Attempt
    verbose_name_plural = "Attempts it holds"
    fields = readonly_fields = ("job", "number", "handed_at", "confirmed_at", "started_at", "ended_at")
    show_change_link = False

    def get_queryset(self, request: HttpRequest) -> Any:
        held = super().get_queryset(request).filter(released_at=None)
        return held.select_related("job").order_by("handed_at")


@admin.register(Worker)
class WorkerAdmin(ReadOnly, Admin):
    open_to = OPERATORS_ONLY
    list_display = (
        "name",
        "endpoint",
        "health",
        "holds",
        "last_seen",
        "version",
        "nodes",
        "first_seen_at",
        "unhealthy",
    )
    list_filter = (Health, ("endpoint", RelatedFilter))
    list_select_related = ("endpoint",)
    search_fields = ("name__startswith", "version")
    search_help_text = "The beginning of its name, or its version"
    fields = (
        ("name", "endpoint", "health", "version", "nodes"),
        ("first_seen_at", "take_at", "stop_at", "ping_at"),
        ("stops_in_job", "unhealthy", "all_jobs"),
    )
    inlines = (HeldInline,)

    def get_queryset(self, request: HttpRequest) -> Any:
        held = Attempt.objects.filter(worker=OuterRef("pk"), released_at=None)
        hash = F("catalogue__sha256")
        return with_health(super().get_queryset(request)).annotate(held=Rows(held), catalogue_hash=hash)

    def get_ordering(self, request: HttpRequest) -> Any:
        return (F("seen_at").desc(nulls_last=True),)

    @admin.display(description="health", ordering="health")
    def health(self, worker: Any) -> str:
        return str(display_for_label(worker.health, "-", HEALTH))

    @admin.display(description="holds", ordering="held")
    def holds(self, worker: Any) -> int:
        return int(worker.held)

    @admin.display(description="last seen", ordering="seen_at")
    def last_seen(self, worker: Any) -> Any:
        return worker.seen_at

    @admin.display(description="node catalogue", ordering="catalogue_hash")
    def nodes(self, worker: Any) -> str:
        if worker.catalogue_id is None:
            return "-"
        url = reverse("admin:jobs_catalogue_change", args=[worker.catalogue_id])
        return format_html('<a class="text-link" href="{}">{}</a>', url, worker.catalogue_hash[:12])

    @admin.display(description="jobs")
    def all_jobs(self, worker: Worker) -> str:
        return link("all jobs it held last", "jobs_job", q=worker.name)


@admin.register(Catalogue)
class CatalogueAdmin(ReadOnly, Admin):
    open_to = OPERATORS_ONLY
    list_display = ("__str__", "endpoint", "its_workers", "created_at")
    list_filter = (("endpoint", RelatedFilter),)
    list_select_related = ("endpoint",)
    search_fields = ("sha256__startswith", "endpoint__name", "workers__name__startswith")
    fields = ("sha256", ("endpoint", "its_workers", "classes", "created_at"))
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> Any:
        workers = Worker.objects.filter(catalogue=OuterRef("pk"))
        return super().get_queryset(request).annotate(worker_count=Rows(workers)).defer("body")

    @admin.display(description="workers", ordering="worker_count")
    def its_workers(self, catalogue: Any) -> int:
        return int(catalogue.worker_count)

    @admin.display(description="node classes")
    def classes(self, catalogue: Catalogue) -> int:
        return classes_in(bytes(catalogue.body))
