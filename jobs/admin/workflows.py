"""Stored workflows and their versions: made, looked at, made current, archived; a version is never changed."""

import difflib
from typing import Any

import orjson
from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path, reverse
from unfold.contrib.filters.admin import RadioFilter

from accounts.admin.pages import Admin, Inline, RelatedFilter, asking, change_url, going, leave
from accounts.admin.scope import DEVELOPER, OWNER, Members
from accounts.errors import Refused
from accounts.models import Tenant
from jobs.admin.counts import Rows
from jobs.admin.fleet import link
from jobs.admin.workflow_forms import NewWorkflowForm, VersionForm, WorkflowForm
from jobs.models import Workflow, WorkflowVersion
from jobs.workflows import catalogues, stored
from jobs.workflows.definition import read_graph
from jobs.workflows.propose import propose
from jobs.workflows.run import read_parameters

SHOWN_CHARS = 100_000
DEFINED = ("graph", "parameters", "note")


class Archived(RadioFilter):  # type: ignore[misc]
    title = "archived"
    parameter_name = "archived"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "no"), ("yes", "yes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"no": True, "yes": False}.get(self.value())
        return queryset if wanted is None else queryset.filter(archived_at__isnull=wanted)


class VersionInline(Inline):
    model = WorkflowVersion
    fields = readonly_fields = ("number", "is_current", "note", "made_by", "created_at")
    ordering = ("-number",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("workflow").defer("graph", "parameters")

    @admin.display(description="current", boolean=True)
    def is_current(self, version: WorkflowVersion) -> bool:
        return version.number == version.workflow.current


class Saved(Admin):
    """What the verbs refuse although the form is sound, as when somebody else was first, is told on the form's page."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Refused as refused:
            messages.error(request, refused.error)
            return HttpResponseRedirect(request.get_full_path())


@admin.register(Workflow)
class WorkflowAdmin(Saved):
    open_to = Members("tenant", add=DEVELOPER, change=DEVELOPER, delete=OWNER)
    list_display = ("name", "title", "tenant", "current", "versions", "its_jobs", "archived_at", "created_at")
    list_filter = (Archived, ("tenant", RelatedFilter))
    list_select_related = ("tenant",)
    search_fields = ("name", "title", "tenant__name")
    autocomplete_fields = ("tenant",)
    ordering = ("-pk",)
    actions_detail = ("new_version",)

    def get_queryset(self, request: HttpRequest) -> Any:
        versions = WorkflowVersion.all_tenants.filter(workflow=OuterRef("pk"))
        return super().get_queryset(request).filter(deleted_at=None).annotate(count=Rows(versions))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, form=WorkflowForm if obj else NewWorkflowForm, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return (
                (None, {"fields": ["tenant", ("name", "title"), "description"]}),
                ("Version 1", {"fields": DEFINED}),
            )
        facts = ("tenant", "current", "its_jobs", "created_at")
        given = ["archived"] if self.has_change_permission(request, obj) else ["archived_at"]
        return ((None, {"fields": [facts, ("name", "title"), "description", *given]}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("tenant", "current", "its_jobs", "created_at", "archived_at") if obj else ()

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return (VersionInline,) if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        given = form.cleaned_data
        about = {name: given[name] for name in ("title", "description")}
        if change:
            new = {"new_name": given["name"], "archived": given["archived"]}
            stored.change(obj.tenant_id, form.initial["name"], **new, **about)
            return
        by = request.user.get_username()
        graph, parameters, note = (given[name] for name in DEFINED)
        obj.pk = stored.create(obj.tenant_id, obj.name, graph, parameters, by, note=note, **about).pk

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return ([f"{workflow}, with its versions" for workflow in objs], {}, set(), [])

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        stored.remove(obj.tenant_id, obj.name)

    def get_urls(self) -> Any:
        view = self.admin_site.admin_view(self.propose)
        return [path("propose/", view, name="jobs_workflow_propose"), *super().get_urls()]

    def propose(self, request: HttpRequest) -> HttpResponse:
        """What the table's button asks for: `graph`, and whose `workflow` or `tenant` it is."""
        if not self.has_add_permission(request):
            return JsonResponse({"error": "You may not store workflows."}, status=403)
        try:
            graph = read_graph(request.POST.get("graph", ""))
        except Refused as refused:
            return JsonResponse(refused.body(), status=refused.status)
        tenant = self._tenant(request)
        found = propose(graph, catalogues.of(tenant.pk, None) if tenant else [])
        return JsonResponse({"parameters": [one.told() for one in found]})

    def _tenant(self, request: HttpRequest) -> Tenant | None:
        """Of those whom the user may see."""
        workflow, tenant = (request.POST.get(name, "") for name in ("workflow", "tenant"))
        if workflow:
            own = self.get_object(request, workflow)
            return own.tenant if own else None
        found: Tenant | None = self.admin_site.get_model_admin(Tenant).get_object(request, tenant) if tenant else None
        return found

    @admin.display(description="versions", ordering="count")
    def versions(self, workflow: Any) -> int:
        return int(workflow.count)

    @admin.display(description="jobs")
    def its_jobs(self, workflow: Workflow) -> str:
        return link("its jobs", "jobs_job", workflow__id__exact=workflow.pk)

    @going("New version", "add")
    def new_version(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:jobs_workflowversion_add')}?workflow={object_id}")


@admin.register(WorkflowVersion)
class WorkflowVersionAdmin(Saved):
    open_to = Members("tenant", add=DEVELOPER, operate=DEVELOPER)
    form = VersionForm
    list_display = ("__str__", "tenant", "note", "made_by", "created_at")
    list_filter = (("workflow", RelatedFilter), ("tenant", RelatedFilter))
    list_select_related = ("workflow", "tenant")
    search_fields = ("workflow__name", "tenant__name", "note")
    autocomplete_fields = ("workflow",)
    ordering = ("-pk",)
    actions_detail = ("make_current", "new_version")
    change_form_after_template = "jobs/workflow_version.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("workflow", "tenant")

    def get_field_queryset(self, db: Any, field: Any, request: HttpRequest) -> Any:
        """Of workflows those to which the user may add a version, though he may see others."""
        found = super().get_field_queryset(db, field, request)
        if found is None or field.name != "workflow" or self.operators_may(request, "add"):
            return found
        return found.filter(tenant__in=self.tenants_where(request, "add"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ((None, {"fields": ["workflow", *DEFINED, "make_current"]}),)
        return ((None, {"fields": [("workflow", "number", "is_current"), ("made_by", "created_at"), "note"]}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("workflow", "number", "is_current", "made_by", "created_at", "note") if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """As the version that it is made from: `version`, else the current one of `workflow`."""
        initial: dict[str, Any] = super().get_changeform_initial_data(request)
        if old := self._from(request):
            told = orjson.dumps(orjson.loads(old.parameters), option=orjson.OPT_INDENT_2).decode()
            initial |= {"workflow": old.workflow_id, "graph": pretty(old.graph), "parameters": told}
        return initial

    def _from(self, request: HttpRequest) -> WorkflowVersion | None:
        given = request.GET
        if version := given.get("version"):
            found: WorkflowVersion | None = self.get_object(request, version)
            return found
        workflow = self.admin_site.get_model_admin(Workflow).get_object(request, given.get("workflow") or "-")
        return stored.version(workflow) if workflow else None

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        given, workflow = form.cleaned_data, obj.workflow
        made = stored.add_version(
            workflow.tenant_id,
            workflow.name,
            given["graph"],
            given["parameters"],
            request.user.get_username(),
            note=given["note"],
            current=given["make_current"],
        )
        obj.pk, obj.number, obj.tenant_id = made.pk, made.number, made.tenant_id

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if version := kwargs.get("obj"):
            context |= {"page": version_page(version)}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="current", boolean=True)
    def is_current(self, version: WorkflowVersion) -> bool:
        return version.number == version.workflow.current

    @asking("Make it current", "check", "Its name means this version from now on.", permission="operate")
    def make_current(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        version = self.get_object(request, object_id)
        if version is None:
            return leave(request, reverse("admin:jobs_workflow_changelist"))
        workflow = stored.change(version.tenant_id, version.workflow.name, current=version.number)
        self.log_change(request, workflow, f"Made version {version.number} current.")
        messages.success(request, f"{workflow.name} means version {version.number} now.")
        return leave(request, change_url(version))

    @going("New version from this", "add")
    def new_version(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:jobs_workflowversion_add')}?version={object_id}")


def pretty(graph: str) -> str:
    return orjson.dumps(orjson.loads(graph), option=orjson.OPT_INDENT_2).decode()


def version_page(version: WorkflowVersion) -> dict[str, Any]:
    """Its parameters, what it changed, and its graph."""
    parameters = read_parameters(version.parameters)
    rows = [
        (one.name, one.type, ", ".join(one.paths), _left_out(one), one.allowed, one.title or "-") for one in parameters
    ]
    headers = ["Name", "Type", "Sets", "Left out", "Must be", "Title"]
    before = stored.of_workflow(version.workflow).filter(number=version.number - 1).first()
    return {
        "parameters": {"headers": headers, "rows": rows},
        "graph": pretty(version.graph)[:SHOWN_CHARS],
        "before": before,
        "changes": "\n".join(_changes(before, version))[:SHOWN_CHARS] if before else "",
    }


def _left_out(one: Any) -> str:
    if one.required:
        return "required"
    return orjson.dumps(one.default).decode() if one.default is not None else "drawn" if one.type == "seed" else "stays"


def _changes(before: WorkflowVersion, after: WorkflowVersion) -> list[str]:
    old, new = (f"{pretty(one.parameters)}\n{pretty(one.graph)}".splitlines() for one in (before, after))
    return list(difflib.unified_diff(old, new, str(before), str(after), lineterm=""))
