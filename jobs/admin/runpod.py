"""An endpoint's page: where its jobs go if that is an endpoint of RunPod's."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.admin import StackedInline
from unfold.widgets import UnfoldAdminPasswordWidget

from accounts.admin.scope import ScopedList
from accounts.sealed import Sealed
from jobs.models import Endpoint, RunpodEndpoint
from jobs.models.runpod import api_key


class RunpodForm(forms.ModelForm):  # type: ignore[type-arg]
    key = forms.CharField(
        label="API key",
        validators=[api_key],
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Kept sealed and never shown.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "key" in self.fields:
            self.fields["key"].required = False
            self.fields["key"].help_text = "Leave empty to keep the key as it is."

    def save(self, commit: bool = True) -> Any:
        if self.cleaned_data.get("key"):
            self.instance.api_key = Sealed.seal(self.cleaned_data["key"])
        return super().save(commit)


class RunpodInline(ScopedList, StackedInline):  # type: ignore[misc]
    model = RunpodEndpoint
    form = RunpodForm
    extra = 0
    max_num = 1
    can_delete = False
    verbose_name_plural = "RunPod"
    fields = (("remote_id", "key"), ("wait_s", "keeps_keys"), ("trouble", "rest_until", "throttled"))
    readonly_fields = ("trouble", "rest_until", "throttled")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None and bool(super().has_add_permission(request, obj))


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_backend(self) -> str:
        backend: str = self.cleaned_data["backend"]
        if backend == Endpoint.Backend.RUNPOD and not RunpodEndpoint.objects.filter(endpoint=self.instance.pk).exists():
            raise ValidationError(
                "It has no endpoint at RunPod yet: save one below first, or use manage.py add_runpod_endpoint."
            )
        return backend
