"""/api/v1/workflows: a tenant's stored workflows, their versions, and the JSON Schema of their parameters."""

import re
from typing import Any

import orjson
from django.db.models import Count
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers as s
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import ApiKey
from jobs.api import shapes
from jobs.api.access import MANAGE
from jobs.api.requests import Paged, checked, page_of
from jobs.api.schema import WORKFLOW
from jobs.granted import READ
from jobs.models import WorkflowVersion
from jobs.workflows import catalogues, stored
from jobs.workflows.definition import LONGEST_DESCRIPTION, LONGEST_TITLE, read_graph
from jobs.workflows.parameters import Type
from jobs.workflows.propose import propose
from jobs.workflows.run import read_parameters
from jobs.workflows.schema import schema
from storage.assets import when

PARAMETER = {"name": "width", "type": "integer", "paths": ["1.inputs.width"], "min": 16, "max": 2048, "default": 512}


class AParameter(s.Serializer):  # type: ignore[misc]
    """What of a workflow each job may set. Which of `min` … `choices` there are depends on the type; `step` is for who
    draws a form."""

    name = s.CharField(max_length=63)
    type = s.ChoiceField([type.value for type in Type])
    paths = s.ListField(child=s.CharField(), help_text="Inputs in the graph that it sets: `6.inputs.text`.")
    title = s.CharField(required=False)
    description = s.CharField(required=False)
    required = s.BooleanField(default=False)
    default = s.JSONField(required=False, help_text="Left out: what stands in the graph. A seed is drawn.")
    min = s.FloatField(required=False)
    max = s.FloatField(required=False)
    step = s.FloatField(required=False)
    multiple = s.IntegerField(required=False)
    max_length = s.IntegerField(required=False)
    choices = s.ListField(child=s.JSONField(), required=False)


class AWorkflow(s.Serializer):  # type: ignore[misc]
    """A stored workflow; its name alone means its current version."""

    name = s.CharField()
    title = s.CharField(allow_blank=True)
    description = s.CharField(allow_blank=True)
    current = s.IntegerField()
    versions = s.IntegerField(help_text="How many there are.")
    created_at = s.DateTimeField()
    archived_at = s.DateTimeField(allow_null=True)


class AVersion(s.Serializer):  # type: ignore[misc]
    """A version, which does not change."""

    number = s.IntegerField()
    current = s.BooleanField()
    note = s.CharField(allow_blank=True)
    made_by = s.CharField()
    created_at = s.DateTimeField()
    parameters = AParameter(many=True)


class OneVersion(AVersion):
    """With its graph."""

    workflow = s.DictField(help_text="ComfyUI's API format.")


class ProposedParameters(s.Serializer):  # type: ignore[misc]
    parameters = AParameter(many=True)


@extend_schema_field({"oneOf": [{"type": "object", "additionalProperties": {}}, {"type": "string"}]})
class GraphField(s.JSONField):  # type: ignore[misc]
    """Looked at by the verb, as parameters are."""


@extend_schema_field(AParameter(many=True))
class ParametersField(s.JSONField):  # type: ignore[misc]
    pass


class Defined(s.Serializer):  # type: ignore[misc]
    """A graph with its parameters."""

    workflow = GraphField(help_text="ComfyUI's API format, as an object or as JSON text.")
    parameters = ParametersField(required=False)
    note = s.CharField(max_length=500, required=False, allow_blank=True, help_text="What is new in it.")


@extend_schema_serializer(
    examples=[OpenApiExample("A version", {"workflow": WORKFLOW, "parameters": [PARAMETER], "current": False})]
)
class NewVersion(Defined):
    current = s.BooleanField(default=True, help_text="Whether the name means it from now on.")


class About(s.Serializer):  # type: ignore[misc]
    title = s.CharField(max_length=LONGEST_TITLE, required=False, allow_blank=True)
    description = s.CharField(max_length=LONGEST_DESCRIPTION, required=False, allow_blank=True)


@extend_schema_serializer(
    examples=[OpenApiExample("A workflow", {"name": "blank", "workflow": WORKFLOW, "parameters": [PARAMETER]})]
)
class NewWorkflow(About, Defined):
    name = s.CharField(max_length=63)


@extend_schema_serializer(
    examples=[OpenApiExample("Roll back", {"current": 2}), OpenApiExample("Put away", {"archived": True})]
)
class ChangedWorkflow(About):
    name = s.CharField(max_length=63, required=False)
    current = s.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    archived = s.BooleanField(required=False, help_text="True: it is not run, and listed only if asked for.")


@extend_schema_serializer(examples=[OpenApiExample("A graph", {"workflow": WORKFLOW})])
class AGraph(s.Serializer):  # type: ignore[misc]
    workflow = GraphField(help_text="ComfyUI's API format, as an object or as JSON text.")
    endpoint = s.CharField(max_length=63, required=False, help_text="Whose choices and bounds. Else any of yours.")


class OfList(Paged):
    archived = s.BooleanField(default=False, help_text="True: those that are put away, and only those.")


class OfSchema(s.Serializer):  # type: ignore[misc]
    version = s.IntegerField(min_value=1, max_value=2**31 - 1, required=False, help_text="Else the current one.")


class Stored(APIView):  # type: ignore[misc]
    @property
    def scope(self) -> str:
        """To read `read`, all else `manage`: a workflow is what all keys of the tenant run."""
        return READ if self.request.method in ("GET", "HEAD") else MANAGE


class Workflows(Stored):
    @shapes.answers(
        "Stored workflows, newest first", shapes.page(AWorkflow), query=OfList, errors=(400, 404), name="workflows_list"
    )
    def get(self, request: Request) -> Response:
        archived = checked(OfList, request.query_params)["archived"]
        found = stored.of_tenant(request.user.tenant_id).filter(archived_at__isnull=not archived)
        return page_of(found.annotate(count=Count("versions")), request, shown)

    @shapes.answers("Store a workflow", AWorkflow, 201, given=NewWorkflow, errors=(400, 409, 410, 415))
    def post(self, request: Request) -> Response:
        """As its version 1."""
        given = checked(NewWorkflow, request.data)
        graph, parameters = given.pop("workflow"), given.pop("parameters", [])
        name = given.pop("name")
        made = stored.create(request.user.tenant_id, name, graph, parameters, _by(request), **given)
        return Response(shown(made), 201)


class Propose(Stored):
    @shapes.answers("Parameters that a graph may have", ProposedParameters, given=AGraph, errors=(400, 404, 415))
    def post(self, request: Request) -> Response:
        """Nothing is stored: prompts, sizes, steps, seeds, files and what else is usual, for you to choose from."""
        given = checked(AGraph, request.data)
        known = catalogues.of(request.user.tenant_id, given.get("endpoint"))
        return Response({"parameters": [one.told() for one in propose(read_graph(given["workflow"]), known)]})


class OneWorkflow(Stored):
    @shapes.answers("A stored workflow", AWorkflow, errors=(404,))
    def get(self, request: Request, name: str) -> Response:
        return Response(shown(stored.one(request.user.tenant_id, name)))

    @shapes.answers(
        "Rename, archive, or make another version current",
        AWorkflow,
        given=ChangedWorkflow,
        errors=(400, 404, 409, 410, 415),
    )
    def patch(self, request: Request, name: str) -> Response:
        given = checked(ChangedWorkflow, request.data)
        new_name = given.pop("name", None)
        return Response(shown(stored.change(request.user.tenant_id, name, new_name=new_name, **given)))

    @shapes.answers("Delete a stored workflow", None, 204, errors=(404,))
    def delete(self, request: Request, name: str) -> Response:
        """With its versions; jobs that ran it stay, and still say so."""
        stored.remove(request.user.tenant_id, name)
        return Response(status=204)


class Versions(Stored):
    @shapes.answers(
        "Versions, newest first", shapes.page(AVersion), query=Paged, errors=(404,), name="workflow_versions_list"
    )
    def get(self, request: Request, name: str) -> Response:
        versions = stored.of_workflow(stored.one(request.user.tenant_id, name)).defer("graph")
        return page_of(versions, request, _version)

    @shapes.answers("Add a version", OneVersion, 201, given=NewVersion, errors=(400, 404, 409, 415))
    def post(self, request: Request, name: str) -> Response:
        given = checked(NewVersion, request.data)
        graph, parameters = given.pop("workflow"), given.pop("parameters", [])
        made = stored.add_version(request.user.tenant_id, name, graph, parameters, _by(request), **given)
        return Response(_whole(made), 201)


class Version(Stored):
    @shapes.answers("A version with its graph", OneVersion, errors=(404,))
    def get(self, request: Request, name: str, number: str) -> Response:
        wanted = int(number) if re.fullmatch("[0-9]{1,9}", number) else 0
        return Response(_whole(stored.version(stored.one(request.user.tenant_id, name), wanted)))


class Schema(Stored):
    @shapes.answers("JSON Schema of a job's `params`", OpenApiTypes.OBJECT, query=OfSchema, errors=(400, 404))
    def get(self, request: Request, name: str) -> Response:
        """2020-12; what begins with `x-` is for who draws a form."""
        number = checked(OfSchema, request.query_params).get("version")
        version = stored.version(stored.one(request.user.tenant_id, name), number)
        workflow = version.workflow
        title = workflow.title or str(version)
        return Response(schema(read_parameters(version.parameters), title, workflow.description))


def _by(request: Request) -> str:
    return str(ApiKey.all_tenants.get(pk=request.user.key_id))


def shown(workflow: Any) -> dict[str, Any]:
    """`count`: of its versions, if it was counted with it."""
    count = workflow.count if hasattr(workflow, "count") else stored.of_workflow(workflow).count()
    return {
        "name": workflow.name,
        "title": workflow.title,
        "description": workflow.description,
        "current": workflow.current,
        "versions": count,
        "created_at": when(workflow.created_at),
        "archived_at": when(workflow.archived_at),
    }


def _version(version: WorkflowVersion) -> dict[str, Any]:
    return {
        "number": version.number,
        "current": version.number == version.workflow.current,
        "note": version.note,
        "made_by": version.made_by,
        "created_at": when(version.created_at),
        "parameters": [one.told() for one in read_parameters(version.parameters)],
    }


def _whole(version: WorkflowVersion) -> dict[str, Any]:
    return _version(version) | {"workflow": orjson.loads(version.graph)}
