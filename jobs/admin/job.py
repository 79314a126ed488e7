"""Jobs: found by id, worker, state, endpoint, tenant or time; to read, cancel and retry."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RangeDateTimeFilter
from unfold.forms import BaseDialogForm
from unfold.utils import parse_datetime_str
from unfold.widgets import UnfoldAdminTextareaWidget

from accounts.admin.pages import Admin, BigTable, ReadOnly, RelatedFilter, asking, change_url, leave, uuid_in
from accounts.admin.scope import DEVELOPER, Members
from accounts.errors import Refused, counted
from jobs import again
from jobs.admin.job_page import STATES, clock, job_page, label, unbroken
from jobs.admin.shown import duration
from jobs.deletion import delete_job
from jobs.lifecycle import cancel_job, retry_job
from jobs.models import Delivery, Job, Worker
from jobs.states import State
from jobs.webhooks.register import ENDED, replay_of

CLOCKS_DIFFER = timedelta(hours=1)  # between the process that made an id and the database, at most
WORKERS_SEARCHED = 100
DONE = {State.CANCELLED: "cancelled", State.IN_QUEUE: "queued again"}
WHEN = {"cancel": (State.IN_QUEUE, State.IN_PROGRESS), "retry": (State.FAILED, State.TIMED_OUT), "erase": tuple(State)}
WHEN["again"] = tuple(State)
Verb = Callable[[UUID, str], State]
FACTS = ("state_label", "tenant", "endpoint", "api_key", "ran")
WORK = ("worker_name", "current", "delay", "execution")
TIMES = ("created_at", "queued_at", "started_at", "finished_at")
RULES = ("priority", "ttl", "timeout", "deadline_at")
COUNTS = ("retries", "losses", "free_losses", "bucket")
GONE = ("payload_gone_at", "events_gone_at")


def id_at(moment: datetime, slack: timedelta) -> UUID:
    """The least UUIDv7 of that millisecond."""
    ms = int((moment.timestamp() + slack.total_seconds()) * 1000)
    return UUID(int=min(max(ms, 0), 2**48 - 1) << 80)


class Created(RangeDateTimeFilter):  # type: ignore[misc]
    """By created_at, which has no index; the ids, which have one, begin with the same time."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        since, until = self.bound("from"), self.bound("to")
        if since:
            queryset = queryset.filter(created_at__gte=since, id__gte=id_at(since, -CLOCKS_DIFFER))
        if until:
            queryset = queryset.filter(created_at__lte=until, id__lte=id_at(until, CLOCKS_DIFFER))
        return queryset

    def bound(self, end: str) -> datetime | None:
        """A date without a time is that day's beginning or end."""
        day = self.used_parameters.get(f"created_at_{end}_0")
        time = self.used_parameters.get(f"created_at_{end}_1") or ("00:00:00" if end == "from" else "23:59:59")
        found: datetime | None = parse_datetime_str(f"{day} {time}") if day else None
        return found and found.replace(tzinfo=UTC)


class Place(RelatedFilter):
    """Where it waits, runs or ran last: another endpoint's workers, if it was moved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "endpoint where it runs"


class Changes(BaseDialogForm):  # type: ignore[misc]
    changes = forms.JSONField(
        label="Changes",
        required=False,
        help_text='A JSON merge patch of its request: {"input": {"workflow": {"6": {"inputs": {"text": "a dog"}}}}}',
        widget=UnfoldAdminTextareaWidget,
    )

    def clean_changes(self) -> dict[str, Any]:
        changes = self.cleaned_data["changes"] or {}
        if not isinstance(changes, dict):
            raise ValidationError("The changes must be a JSON object.")
        return changes


@admin.register(Job)
class JobAdmin(BigTable, ReadOnly, Admin):
    open_to = Members("tenant", operate=DEVELOPER)
    list_display = (
        "public_id",
        "tenant",
        "endpoint",
        "state_label",
        "attempt",
        "delay",
        "execution",
        "worker",
        "created",
    )
    list_filter = (
        ("state", ChoicesCheckboxFilter),
        ("endpoint", RelatedFilter),
        ("grant__endpoint", Place),
        ("tenant", RelatedFilter),
        ("workflow", RelatedFilter),
        ("created_at", Created),
    )
    list_fullwidth = True
    list_after_template = "jobs/export.html"
    sortable_by = ("created",)
    search_fields = ("id",)
    search_help_text = "A job's id, or the beginning of a worker's name"
    fieldsets = (
        (None, {"fields": (FACTS, WORK, TIMES)}),
        ("Rules", {"fields": (RULES, COUNTS, GONE), "classes": ("collapse",)}),
    )
    change_form_after_template = "jobs/job_page.html"
    actions = ("cancel_selected", "retry_selected")
    actions_detail = ("cancel", "retry", "again", "resend", "erase")

    def get_queryset(self, request: HttpRequest) -> Any:
        found = super().get_queryset(request)
        return found.select_related("tenant", "endpoint", "api_key", "bucket__tenant", "workflow")

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        text = search_term.strip()
        if uuid := uuid_in(text):
            return queryset.filter(pk=uuid), False
        if text:
            names = Worker.objects.filter(name__startswith=text).order_by("-pk").values_list("name", flat=True)
            queryset = queryset.filter(worker_name__in=set(names[:WORKERS_SEARCHED]))
        return queryset, False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if job := kwargs.get("obj"):
            context |= {"page": job_page(job)}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="id")
    def public_id(self, job: Job) -> str:
        return format_html('<span class="whitespace-nowrap text-xs">{}</span>', job.public_id)

    @admin.display(description="state")
    def state_label(self, job: Job) -> str:
        return label(job.state, job.state, STATES)

    @admin.display(description="stored workflow")
    def ran(self, job: Job) -> str:
        return job.ran or "-"

    @admin.display(description="delay")
    def delay(self, job: Job) -> str:
        return duration(job.delay_ms)

    @admin.display(description="execution")
    def execution(self, job: Job) -> str:
        return duration(job.execution_ms)

    @admin.display(description="worker")
    def worker(self, job: Job) -> str:
        return unbroken(job.worker_name or "-")

    @admin.display(description="created", ordering="id")
    def created(self, job: Job) -> str:
        return clock(job.created_at)

    @admin.display(description="attempt")
    def current(self, job: Job) -> int:
        return job.attempt

    @admin.display(description="ttl")
    def ttl(self, job: Job) -> str:
        return duration(job.ttl_ms)

    @admin.display(description="execution time-out")
    def timeout(self, job: Job) -> str:
        return duration(job.execution_timeout_ms)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what makes sense in the job's state; the verbs look again."""
        job = self.get_object(request, str(object_id))
        names = [name for name, states in WHEN.items() if job and job.state in states]
        names += ["resend"] if job and Delivery.all_tenants.filter(job=job, state__in=ENDED).exists() else []
        found = super().get_actions_detail(request, object_id)
        return [each for each in found if each.action_name.rpartition("_")[2] in names]

    @asking("Cancel the job", "cancel", "It ends now; its worker is told to stop.", permission="operate", danger=True)
    def cancel(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._on_page(request, object_id, cancel_job, State.CANCELLED)

    @asking("Retry the job", "replay", "It is queued again; output and error are cleared.", permission="operate")
    def retry(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._on_page(request, object_id, retry_job, State.IN_QUEUE)

    @asking(
        "Run again", "restart_alt", "A new job of the same request, for its tenant.", permission="operate", form=Changes
    )
    def again(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            return leave(request, reverse("admin:jobs_job_changelist"))
        try:
            made = Job.all_tenants.get(pk=again.in_admin(job.pk, form.cleaned_data["changes"]).uuid)
        except Refused as refused:
            messages.error(request, refused.error)
            return leave(request, change_url(job))
        self.log_change(request, job, f"Run again as {made}.")
        messages.success(request, f"It is run again: this is the new job. It was {job}.")
        return leave(request, change_url(made))

    @asking(
        "Send its webhooks again",
        "outbox",
        "All that were delivered or failed, under their webhook-ids; not to disabled webhooks.",
        permission="operate",
    )
    def resend(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            return leave(request, reverse("admin:jobs_job_changelist"))
        if found := replay_of(job.tenant, job.pk):
            self.log_change(request, job, f"{counted(found, 'webhook')} sent again.")
            messages.success(request, f"{counted(found, 'webhook')} sent again.")
        else:
            messages.error(request, "Nothing was sent: each is on its way, outdated, or to a disabled webhook.")
        return leave(request, change_url(job))

    @asking(
        "Delete the job",
        "delete_forever",
        "It ends now, and goes with its input, output, timeline and files. Nothing comes back; what it used stays.",
        permission="operate",
        danger=True,
    )
    def erase(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        try:
            receipt = delete_job(UUID(object_id), f"by {request.user.get_username()} in the admin")
        except (Refused, ValueError):
            return leave(request, reverse("admin:jobs_job_changelist"))
        messages.success(request, "The job is deleted; this says how far it is.")
        return leave(request, change_url(receipt))

    @admin.action(description="Cancel the selected jobs", permissions=["operate"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, cancel_job, State.CANCELLED)

    @admin.action(description="Retry the selected jobs", permissions=["operate"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._each(request, queryset, retry_job, State.IN_QUEUE)

    def _on_page(self, request: HttpRequest, object_id: str, verb: Verb, to: State) -> HttpResponse:
        job = self.get_object(request, object_id)
        if job is None:
            return leave(request, reverse("admin:jobs_job_changelist"))
        fault = self._do(request, job, verb, to)
        messages.add_message(
            request, messages.ERROR if fault else messages.SUCCESS, fault or f"The job was {DONE[to]}."
        )
        return leave(request, change_url(job))

    def _each(self, request: HttpRequest, jobs: QuerySet[Job], verb: Verb, to: State) -> None:
        faults = [self._do(request, job, verb, to) for job in jobs]
        if done := faults.count(""):
            messages.success(request, f"{counted(done, 'job')} {'was' if done == 1 else 'were'} {DONE[to]}.")
        for fault in sorted({fault for fault in faults if fault}):
            messages.error(request, f"{faults.count(fault)} ×: {fault}")

    def _do(self, request: HttpRequest, job: Job, verb: Verb, to: State) -> str:
        """Why it could not be done; "" if it was."""
        try:
            state = verb(job.pk, f"by {request.user.get_username()} in the admin")
        except Refused as refused:
            return refused.error
        if state != to or job.state == to:
            return f"Nothing was changed: the job is {state}."
        self.log_change(request, job, f"{DONE[to].capitalize()}.")
        return ""
