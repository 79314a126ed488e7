"""The form of a stored workflow's graph and parameters: both are JSON, the parameters with a table to edit them in
(static/jobs/parameters.js)."""

from typing import Any

import orjson
from django import forms
from django.core.exceptions import ValidationError
from django.urls import reverse_lazy
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from accounts.errors import Refused
from jobs.models import Workflow, WorkflowVersion
from jobs.workflows import stored
from jobs.workflows.definition import define
from jobs.workflows.parameters import Type

NEW_NOTE = "What is new in it."


class ParametersWidget(UnfoldAdminTextareaWidget):  # type: ignore[misc]
    class Media:
        js = ("jobs/parameters.js",)


class Defining(forms.ModelForm):  # type: ignore[type-arg]
    """Whatever is wrong with the parameters is told at their field, by name."""

    graph = forms.CharField(
        label="Workflow",
        strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 12, "spellcheck": "false", "class": "font-mono text-xs"}),
        help_text="JSON, as ComfyUI's menu saves it by Export (API).",
    )
    parameters = forms.CharField(
        required=False,
        widget=ParametersWidget(
            attrs={
                "rows": 6,
                "spellcheck": "false",
                "class": "font-mono text-xs",
                "data-types": " ".join(Type),
                "data-propose": reverse_lazy("admin:jobs_workflow_propose"),
            }
        ),
        help_text="As JSON. The table above writes it, and reads it when you change it here.",
    )
    note = forms.CharField(max_length=500, required=False, widget=UnfoldAdminTextInputWidget, help_text=NEW_NOTE)

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        if "graph" in given and "parameters" in given:
            try:
                given["parameters"] = orjson.loads(given["parameters"] or "[]")
                define(given["graph"], given["parameters"])
            except orjson.JSONDecodeError as error:
                self.add_error("parameters", f"This is not valid JSON: {error}.")
            except Refused as refused:
                self.add_error("graph" if refused.code == "invalid_workflow" else "parameters", _told(refused))
        return given


def _told(refused: Refused) -> ValidationError:
    """A line for each fault."""
    params = refused.more.get("params", {})
    lines = [f"{name}: {fault['message']}" for name, faults in params.items() for fault in faults]
    return ValidationError(lines or [refused.error])


class Named(forms.ModelForm):  # type: ignore[type-arg]
    """A name that is new is one that the workflow may have."""

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        tenant = given.get("tenant") or getattr(self.instance, "tenant", None)
        if tenant and "name" in given and given["name"] != self.initial.get("name"):
            try:
                stored.check_name(tenant.pk, given["name"])
            except Refused as refused:
                self.add_error("name", refused.error)
        return given


class NewWorkflowForm(Named, Defining):
    class Meta:
        model = Workflow
        fields = ("tenant", "name", "title", "description")


class WorkflowForm(Named):
    """Of one that is there: its versions are made on pages of their own."""

    archived = forms.BooleanField(
        required=False, widget=UnfoldBooleanSwitchWidget, help_text="It is not run any more, and kept out of lists."
    )

    class Meta:
        model = Workflow
        fields = ("name", "title", "description")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "archived" in self.fields:
            self.fields["archived"].initial = self.instance.archived_at is not None


class VersionForm(Defining):
    make_current = forms.BooleanField(
        required=False, initial=True, widget=UnfoldBooleanSwitchWidget, help_text="Its name means it from now on."
    )

    class Meta:
        model = WorkflowVersion
        fields = ("workflow", "note")
