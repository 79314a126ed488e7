"""Webhooks of tenants, and the secrets that sign what they are sent."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import RadioFilter
from unfold.utils import display_for_label
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.admin.pages import Admin, Inline, Labels, RelatedFilter, asking, change_url, going, leave, shown_once
from accounts.admin.scope import DEVELOPER, OWNER, Members
from accounts.errors import Refused
from jobs.admin.counts import Rows
from jobs.admin.deliveries import SinceForm, replayed, sent_again
from jobs.admin.fleet import link
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.models.webhook import address
from jobs.states import News
from jobs.webhooks import register as verbs
from jobs.webhooks.look import DISABLED, ENABLED, FAILING, IN_STATE, OFF, state_of

STATES: Labels = {ENABLED: "success", FAILING: "warning", OFF: "", DISABLED: "danger"}
SECRET_MADE = "jobs/secret_made.html"


class WebhookForm(forms.ModelForm):  # type: ignore[type-arg]
    """Its URL is written and never shown: it may hold a token."""

    given_url = forms.CharField(label="URL", max_length=2048, widget=UnfoldAdminTextInputWidget)
    kinds = forms.MultipleChoiceField(
        choices=News.choices, initial=verbs.ENDS, widget=UnfoldAdminCheckboxSelectMultipleWidget, label="Kinds of news"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "given_url" in self.fields:
            self.fields["given_url"].required = False
            self.fields["given_url"].help_text = "Leave empty to keep it as it is."

    def clean_given_url(self) -> str:
        url: str = self.cleaned_data["given_url"]
        try:
            return url and verbs.checked_url(url)
        except Refused as refused:
            raise ValidationError(refused.error) from refused


class State(RadioFilter):  # type: ignore[misc]
    title = "state"
    parameter_name = "webhook_state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in IN_STATE]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(IN_STATE[self.value()]) if self.value() in IN_STATE else queryset


class Columns:
    """What lists and pages show of a webhook."""

    @admin.display(description="receiver", ordering="url")
    def receiver(self, webhook: Webhook) -> str:
        return address(webhook.url)

    @admin.display(description="state")
    def state_label(self, webhook: Webhook) -> str:
        return str(display_for_label(state_of(webhook), "-", STATES))

    @admin.display(description="kinds of news")
    def news(self, webhook: Webhook) -> str:
        return ", ".join(News(kind).label for kind in webhook.kinds)


class Refusing:
    """Mixed in where the verb that adds one may refuse, as when the tenant has as many as it may."""

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().add_view(request, form_url, extra_context)  # type: ignore[misc]
        except Refused as refused:
            messages.error(request, refused.error)
            return HttpResponseRedirect(request.get_full_path())


@admin.register(Webhook)
class WebhookAdmin(Columns, Refusing, Admin):
    open_to = Members("tenant", add=OWNER, change=OWNER, delete=OWNER, operate=DEVELOPER)
    form = WebhookForm
    list_display = ("receiver", "tenant", "state_label", "news", "waiting", "failing_since", "created_at")
    list_filter = (State, ("tenant", RelatedFilter))
    list_select_related = ("tenant",)
    search_fields = ("id", "tenant__name")  # by its URL whoever may not read it would find what it is
    autocomplete_fields = ("tenant",)
    ordering = ("-pk",)
    actions_detail = ("send_test", "replay_failed", "disable", "enable", "roll")

    def get_queryset(self, request: HttpRequest) -> Any:
        pending = Delivery.all_tenants.filter(lane=OuterRef("pk"), state=Delivery.State.PENDING)
        return super().get_queryset(request).annotate(pending=Rows(pending))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ((None, {"fields": ["tenant", "given_url", "kinds"]}),)
        given = ["given_url", "kinds"] if self.has_change_permission(request, obj) else ["news"]
        record = [("failing_since", "disabled_at", "told_at"), "disabled_why"]
        return (
            (None, {"fields": [("receiver", "tenant", "state_label"), ("id", "created_at", "its_deliveries"), *given]}),
            ("Record", {"fields": record}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        shown = ("receiver", "tenant", "state_label", "news", "id", "created_at", "its_deliveries")
        return (*shown, "failing_since", "disabled_at", "told_at", "disabled_why") if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        url, kinds = form.cleaned_data["given_url"], form.cleaned_data["kinds"]
        if change:
            verbs.change(obj.tenant, obj.pk, url=url or None, kinds=kinds)
        else:
            made = verbs.register(obj.tenant, url, kinds)
            obj.pk, obj.text_once = made.webhook.pk, made.secret

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> Any:
        """The tenant's first webhook makes its secret."""
        if obj.text_once:
            return shown_once(self, request, obj, change_url(obj), SECRET_MADE)
        return super().response_add(request, obj, post_url_continue)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Its deliveries, which may be many, are not listed."""
        return ([f"{webhook}, to {address(webhook.url)}, with its deliveries" for webhook in objs], {}, set(), [])

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        verbs.remove(obj.tenant, obj.pk)

    @admin.display(description="waiting", ordering="pending")
    def waiting(self, webhook: Any) -> str:
        query = {"webhook__id__exact": webhook.pk, "state__exact": Delivery.State.PENDING.value}
        return link(webhook.pending, "jobs_delivery", **query) if webhook.pending else "0"

    @admin.display(description="deliveries")
    def its_deliveries(self, webhook: Webhook) -> str:
        return link("all deliveries", "jobs_delivery", webhook__id__exact=webhook.pk)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """To enable what is disabled, or the other way round."""
        webhook = self.get_object(request, str(object_id))
        not_now = "enable" if webhook and webhook.enabled else "disable"
        found = super().get_actions_detail(request, object_id)
        return [each for each in found if not each.action_name.endswith(f"_{not_now}")]

    @asking("Send a test", "send", "The receiver is sent a sample, once.", permission="operate")
    def send_test(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        if webhook is None:
            return self._home(request)
        sent = verbs.send_test(webhook.tenant, webhook.pk)
        self.log_change(request, webhook, "Sent a test.")
        messages.success(request, "A sample is on its way. Look at this page again to see what the receiver answers.")
        return leave(request, change_url(sent))

    @asking(
        "Send again what failed",
        "replay",
        "Each keeps its webhook-id, and has a day of tries anew.",
        permission="operate",
        form=SinceForm,
    )
    def replay_failed(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        if webhook is None:
            return self._home(request)
        found = verbs.replay_failed(form.cleaned_data["since"], webhook.tenant, webhook)
        if found:
            self.log_change(request, webhook, sent_again(found))
        messages.success(request, replayed(found))
        return leave(request, change_url(webhook))

    @asking("Disable", "block", "No more news is sent there.", permission="change", danger=True)
    def disable(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._switch(request, object_id, False)

    @asking("Enable", "check", "News is sent there, from now on; its record begins anew.", permission="change")
    def enable(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._switch(request, object_id, True)

    def _switch(self, request: HttpRequest, object_id: str, enabled: bool) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        if webhook is None:
            return self._home(request)
        verbs.change(webhook.tenant, webhook.pk, enabled=enabled)
        messages.success(request, f"It is {'enabled' if enabled else 'disabled'}.")
        return leave(request, change_url(webhook))

    @going("Roll the secret", "key")
    def roll(self, request: HttpRequest, object_id: str) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        owner = f"?tenant={webhook.tenant_id}" if webhook else ""
        return HttpResponseRedirect(f"{reverse('admin:jobs_webhooksecret_add')}{owner}")

    def _webhook(self, request: HttpRequest, object_id: str) -> Webhook | None:
        found: Webhook | None = self.get_object(request, object_id)
        return found

    def _home(self, request: HttpRequest) -> HttpResponse:
        return leave(request, reverse("admin:jobs_webhook_changelist"))


class WebhookInline(Columns, Inline):
    model = Webhook
    fields = readonly_fields = ("receiver", "state_label", "news", "failing_since")
    ordering = ("-pk",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


SECRETS: Labels = {"newest": "success", "overlapping": "warning", "over": ""}


class RollForm(forms.ModelForm):  # type: ignore[type-arg]
    overlap_hours = forms.DecimalField(
        label="Overlap in hours",
        min_value=0,
        max_value=24 * 366,
        initial=24,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="So long the tenant's secrets before it sign beside it. 0 for one that has leaked.",
    )


@admin.register(WebhookSecret)
class WebhookSecretAdmin(Refusing, Admin):
    """Made, which rolls the one before, and shown once; never changed, and deleted by the sweeper alone."""

    open_to = Members("tenant", add=OWNER)
    form = RollForm
    list_display = ("__str__", "state_label", "created_at", "expires_at")
    list_filter = (("tenant", RelatedFilter),)
    list_select_related = ("tenant",)
    search_fields = ("tenant__name",)
    autocomplete_fields = ("tenant",)
    ordering = ("-pk",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = [("tenant", "state_label"), ("created_at", "expires_at")]
        return ((None, {"fields": shown if obj else ["tenant", "overlap_hours"]}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant", "state_label", "created_at", "expires_at") if obj else ()

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("add"):
            context |= {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        hours = float(form.cleaned_data["overlap_hours"])
        obj.text_once = verbs.roll_secret(obj.tenant, timedelta(hours=hours))
        obj.pk = WebhookSecret.objects.of(obj.tenant).get(expires_at=None).pk

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return shown_once(self, request, obj, change_url(obj), SECRET_MADE)

    @admin.display(description="state")
    def state_label(self, secret: WebhookSecret) -> str:
        over = secret.expires_at and secret.expires_at <= timezone.now()
        state = "over" if over else "overlapping" if secret.expires_at else "newest"
        return str(display_for_label(state, "-", SECRETS))
