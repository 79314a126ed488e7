"""Deliveries: what was sent to whom, each try with its answer, and what is next; to read, and to send again."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesCheckboxFilter, RadioFilter
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.pages import Admin, BigTable, Inline, ReadOnly, RelatedFilter, asking, change_url, leave, uuid_in
from accounts.admin.scope import DEVELOPER, Members
from accounts.errors import Refused
from accounts.models import Tenant
from jobs.admin.job_page import SENT, clock, label
from jobs.models import Delivery, DeliveryTry
from jobs.report import tenant_named
from jobs.webhooks import register as verbs
from jobs.webhooks.deliver import is_overdue
from jobs.webhooks.look import goes_to, last_outcome, with_last_try

SHOWN_CHARS = 80  # of a try in a list


def sent_again(n: int) -> str:
    return f"{n} {'delivery is' if n == 1 else 'deliveries are'} sent again."


def replayed(n: int) -> str:
    return sent_again(n) if n else "None has failed since then, but for those to disabled webhooks."


class SinceForm(BaseDialogForm):  # type: ignore[misc]
    since = forms.DateTimeField(
        label="Failed since (UTC)",
        initial=lambda: f"{timezone.now() - timedelta(days=1):%Y-%m-%dT%H:%M}",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
    )


class OfTenantForm(SinceForm):
    tenant = forms.CharField(
        label="Tenant",
        required=False,
        help_text="Its name; empty: of all.",
        widget=UnfoldAdminTextInputWidget,
    )

    def clean_tenant(self) -> list[Tenant | None]:
        """A member's are those where he may send again; [None]: all tenants."""
        name: str = self.cleaned_data["tenant"]
        page: Any = admin.site.get_model_admin(Delivery)
        is_operator = page.operators_may(self.request, "operate")
        mine = Tenant.objects.filter(pk__in=page.tenants_where(self.request, "operate"))
        try:
            if name:
                return [tenant_named(name, None if is_operator else mine)]
            return [None] if is_operator else [*mine]
        except Refused as refused:
            raise ValidationError(refused.error) from refused


class Overdue(RadioFilter):  # type: ignore[misc]
    title = "overdue"
    parameter_name = "overdue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Due for a minute, and nobody sends them")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(is_overdue()) if self.value() == "yes" else queryset


class TryInline(ReadOnly, Inline):
    open_to = Members("tenant")
    model = DeliveryTry
    verbose_name_plural = "Tries"
    fields = readonly_fields = ("at", "status", "ms", "said")
    ordering = ("-id",)
    show_change_link = False

    def operators_may(self, request: HttpRequest, right: str) -> bool:
        """They are a part of their delivery."""
        return bool(self.admin_site.get_model_admin(Delivery).operators_may(request, right))

    @admin.display(description="the first bytes of the answer, or why there is none")
    def said(self, tried: DeliveryTry) -> str:
        return format_html('<pre class="whitespace-pre-wrap break-all text-xs">{}</pre>', tried.answer or tried.error)


@admin.register(Delivery)
class DeliveryAdmin(BigTable, ReadOnly, Admin):
    open_to = Members("tenant", operate=DEVELOPER)
    list_display = ("created", "tenant", "kind", "state_label", "tries", "receiver", "last_try", "next", "of_job")
    list_filter = (
        ("state", ChoicesCheckboxFilter),
        Overdue,
        ("webhook", RelatedFilter),
        ("tenant", RelatedFilter),
    )
    list_fullwidth = True
    sortable_by = ("created",)
    search_fields = ("message",)
    search_help_text = "A webhook-id (msg_…), or a job's id"
    fields = (
        ("id_sent", "tenant", "kind", "state_label"),
        ("receiver", "its_webhook", "of_job", "attempt"),
        ("tries", "created_at", "next_at", "leased_until", "ended_at"),
    )
    inlines = (TryInline,)
    actions = ("replay_selected",)
    actions_detail = ("replay",)
    actions_list = ("replay_failed",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return with_last_try(super().get_queryset(request))

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        text = search_term.strip()
        if text:
            uuid = uuid_in(text.removeprefix("msg_"))
            queryset = queryset.filter(Q(message=uuid) | Q(job_id=uuid)) if uuid else queryset.none()
        return queryset, False

    @admin.display(description="webhook-id")
    def id_sent(self, delivery: Delivery) -> str:
        return format_html('<span class="whitespace-nowrap text-xs">{}</span>', delivery.message_id)

    @admin.display(description="state")
    def state_label(self, delivery: Delivery) -> str:
        return label(delivery.state, delivery.state, SENT)

    @admin.display(description="receiver")
    def receiver(self, delivery: Any) -> str:
        return goes_to(delivery)

    @admin.display(description="last try")
    def last_try(self, delivery: Any) -> str:
        return last_outcome(delivery)[:SHOWN_CHARS] or "-"

    @admin.display(description="next try")
    def next(self, delivery: Delivery) -> str:
        return clock(delivery.next_at)

    @admin.display(description="created", ordering="id")
    def created(self, delivery: Delivery) -> str:
        return clock(delivery.created_at)

    @admin.display(description="job")
    def of_job(self, delivery: Delivery) -> str:
        return _link(delivery.job, delivery.job and delivery.job.public_id)

    @admin.display(description="webhook")
    def its_webhook(self, delivery: Delivery) -> str:
        return _link(delivery.webhook, "registered") if delivery.webhook else "the request's own"

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """To send again what has ended; the verb looks again."""
        delivery = self.get_object(request, str(object_id))
        return super().get_actions_detail(request, object_id) if delivery and delivery.state in verbs.ENDED else []

    @asking("Send again", "replay", "Under its webhook-id, with a day of tries anew.", permission="operate")
    def replay(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        delivery = self.get_object(request, object_id)
        if delivery is None:
            return leave(request, reverse("admin:jobs_delivery_changelist"))
        fault = self._replay(request, delivery)
        messages.add_message(request, messages.ERROR if fault else messages.SUCCESS, fault or "It is sent again.")
        return leave(request, change_url(delivery))

    @admin.action(description="Send the selected deliveries again", permissions=["operate"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        faults = [self._replay(request, delivery) for delivery in queryset]
        if done := faults.count(""):
            messages.success(request, sent_again(done))
        for fault in sorted({fault for fault in faults if fault}):
            messages.error(request, f"{faults.count(fault)} ×: {fault}")

    @asking("Send again what failed", "replay", "Not to disabled webhooks.", permission="operate", form=OfTenantForm)
    def replay_failed(self, request: HttpRequest, form: Any) -> HttpResponse:
        given = form.cleaned_data
        found = sum(verbs.replay_failed(given["since"], tenant) for tenant in given["tenant"])
        messages.success(request, replayed(found))
        return leave(request, reverse("admin:jobs_delivery_changelist"))

    def _replay(self, request: HttpRequest, delivery: Delivery) -> str:
        """Why it could not be; "" if it is sent again."""
        try:
            verbs.replay(delivery.tenant, delivery.pk)
        except Refused as refused:
            return refused.error
        self.log_change(request, delivery, "Sent again.")
        return ""


def _link(row: Any, text: Any) -> str:
    if row is None:
        return "-"
    return format_html('<a class="text-link whitespace-nowrap text-xs" href="{}">{}</a>', change_url(row), text)
