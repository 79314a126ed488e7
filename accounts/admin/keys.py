"""Keys: of tenants here, of workers in jobs."""

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.contrib.filters.admin import RadioFilter
from unfold.utils import display_for_label
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from accounts import tenants
from accounts.admin.pages import Admin, Inline, Labels, RelatedFilter, asking, change_url, leave, shown_once
from accounts.admin.scope import OWNER, Members
from accounts.keys import new_key
from accounts.models import ApiKey, Key, Limited, is_unused

_KEY = re.compile(r"(?:hth|hwk)_([0-9a-f]{1,12})")
KEY_STATES: Labels = {Key.ACTIVE: "success", Key.EXPIRED: "warning", Key.UNUSED: "warning", Key.REVOKED: "danger"}


class KeyState(RadioFilter):  # type: ignore[misc]
    title = "state"
    parameter_name = "key_state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        never = () if model_admin.model is ApiKey else (Key.UNUSED,)
        return [(state, state) for state in KEY_STATES if state not in never]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        good, expired = Q(revoked_at=None), Q(expires_at__isnull=False, expires_at__lte=Now())
        unused = is_unused() if queryset.model is ApiKey else Q(pk__in=())
        states = {Key.ACTIVE: good & ~expired & ~unused, Key.EXPIRED: good & expired}
        states |= {Key.UNUSED: good & ~expired & unused, Key.REVOKED: ~good}
        return queryset.filter(states.get(self.value(), Q()))


class KeyAdmin(Admin):
    """API keys and worker keys: made and shown once here, then renamed, bounded or revoked, but never deleted."""

    owner: str
    date_fields = ("created_at", "last_used_at", "revoked_at")
    ordering = ("-pk",)
    actions = ["revoke_selected"]
    actions_detail = ["revoke"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("shown", "state", *self.date_fields, *([self.owner] if obj else []))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        own = [field for field in ("name", "scopes", "endpoints", "expires_at") if hasattr(self.model, field)]
        limits = [("max_queued", "max_running", "requests_per_10s"), ("gpu_s_a_month", "cost_a_month")]
        limited = (("Limits", {"fields": limits}),) if issubclass(self.model, Limited) else ()
        if obj is None:
            return ((None, {"fields": [self.owner, *own]}), *limited)
        return (
            (None, {"fields": [("shown", "state", self.owner), *own]}),
            *limited,
            ("Dates", {"fields": [self.date_fields]}),
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        found = _KEY.match(search_term.strip())
        return super().get_search_results(request, queryset, found[1] if found else search_term)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            key = new_key(obj.kind)
            obj.prefix, obj.digest, obj.text_once = key.prefix, key.digest, key.text
        super().save_model(request, obj, form, change)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("add"):
            context |= {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return shown_once(self, request, obj, change_url(obj), "accounts/key_made.html")

    @admin.display(description="key", ordering="prefix")
    def shown(self, key: Key) -> str:
        return f"{key.kind}_{key.prefix}_…"

    @admin.display(description="state")
    def state(self, key: Key) -> str:
        return str(display_for_label(key.state, "-", KEY_STATES))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        key = self.get_object(request, str(object_id))
        return super().get_actions_detail(request, object_id) if key and not key.revoked_at else []

    @asking("Revoke", "block", "Whoever uses this key is refused from now on.", permission="change", danger=True)
    def revoke(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        key = self.get_object(request, object_id)
        if key is None:
            return leave(request, reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))
        key.revoke()
        messages.success(request, f"{key} is revoked.")
        return leave(request, change_url(key))

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        keys = list(queryset.filter(revoked_at=None))
        for key in keys:
            key.revoke()
        messages.success(request, f"Revoked: {len(keys)} of the selected keys.")


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    scopes = forms.MultipleChoiceField(
        choices=ApiKey.Scope.choices,
        initial=[scope.value for scope in ApiKey.Scope],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    endpoints = SimpleArrayField(
        forms.CharField(max_length=63),
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text=ApiKey._meta.get_field("endpoints").help_text,
    )

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        tenant, names = given.get("tenant") or getattr(self.instance, "tenant", None), given.get("endpoints")
        if tenant and names and "endpoints" in self.changed_data:
            granted = tenants.endpoints_of(tenant.pk)
            given["endpoints"] = sorted({*names})
            if unknown := sorted({*names} - {*granted}):
                yours = f"It may use {', '.join(granted)}." if granted else "It may use none."
                raise ValidationError({"endpoints": f"{tenant} may not use {unknown[0]!r}. {yours}"})
        return given


@admin.register(ApiKey)
class ApiKeyAdmin(KeyAdmin):
    open_to = Members("tenant", add=OWNER, change=OWNER)
    owner = "tenant"
    form = ApiKeyForm
    list_display = (
        "shown",
        "name",
        "tenant",
        "state",
        "scope_names",
        "only_at",
        "last_used_at",
        "expires_at",
        "created_at",
    )
    list_filter = (KeyState, ("tenant", RelatedFilter))
    list_select_related = ("tenant",)
    search_fields = ("prefix__startswith", "name", "tenant__name")
    autocomplete_fields = ("tenant",)

    @admin.display(description="scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="only at")
    def only_at(self, key: ApiKey) -> str:
        return ", ".join(key.endpoints)


class KeyInline(Inline):
    """An owner's keys, to read."""

    fields: tuple[str, ...] = ("state", "last_used_at", "expires_at", "created_at")
    ordering = ("-pk",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    state = KeyAdmin.state

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields


class ApiKeyInline(KeyInline):
    model = ApiKey
    fields = ("scopes", "endpoints", *KeyInline.fields)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("tenant")
