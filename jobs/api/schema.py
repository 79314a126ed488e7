"""/api/schema/: the OpenAPI document of all that clients call, the wire API under /v2 too; /api/docs/ shows it."""

import threading
from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerView
from rest_framework.request import Request

from jobs.states import State
from jobs.wire import metadata

SECURITY: list[dict[str, list[str]]] = [{"apiKey": []}]
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "jobs.api.access.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return build_bearer_security_scheme_object(
            header_name="Authorization", token_prefix="Bearer", bearer_format="hth_…"
        )


_making = threading.Lock()


@cache
def _document() -> bytes:
    made = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    rendered: bytes = OpenApiJsonRenderer2().render(made, renderer_context={})
    return rendered


class Schema(SpectacularJSONAPIView):
    authentication_classes = ()

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        """Made once: that takes a third of a second, and fails if two threads do it at a time."""
        with _making:
            document = _document()
        return HttpResponse(document, content_type="application/vnd.oai.openapi+json")


class Docs(SpectacularSwaggerView):
    authentication_classes = ()
    http_method_names = ("get", "head")  # its renderer fails at OPTIONS
    url_name = "schema"


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Any, description: str = "", example: Any = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"description": description, "content": {"application/json": media}}


MS = {"type": "integer", "minimum": 0, "description": "Milliseconds."}
METADATA = {
    "type": "object",
    "description": "Yours: jobs are found by it, and lists and webhooks have it. At most 8 KiB.",
    "maxProperties": metadata.MOST,
    "additionalProperties": {
        "oneOf": [{"type": "string", "maxLength": metadata.CHARS}, {"type": "number"}, {"type": "boolean"}]
    },
    "example": {"customer": 42, "kind": "portrait"},
}
SUBMISSION: dict[str, Any] = {
    "type": "object",
    "description": "As RunPod takes it. Fields that are not here are ignored.",
    "required": ["input"],
    "properties": {
        "input": {
            "description": "For ComfyUI an object with `workflow`: a graph, or the name of one that you have stored, "
            "`portrait` or `portrait@3`, with its `params`. For an endpoint of dialect raw anything."
        },
        "webhook": {"type": "string", "format": "uri", "description": "Told of the job's end."},
        "policy": {
            "type": "object",
            "properties": {"executionTimeout": MS, "ttl": MS, "lowPriority": {"type": "boolean"}},
        },
        "s3Config": {"type": "object", "description": "Where this job's files go."},
        "storage": {"type": "string", "description": "The name of the bucket of yours where they go."},
        "metadata": METADATA,
    },
}
SUBMISSIONS = {
    "graph": {"summary": "A graph", "value": {"input": {"workflow": WORKFLOW}}},
    "stored": {
        "summary": "A stored workflow",
        "value": {"input": {"workflow": "portrait@3", "params": {"prompt": "a cat", "steps": 20}}},
    },
}
CHANGES = {
    "type": "object",
    "description": "A JSON merge patch (RFC 7396) of the job's request: null removes, objects are merged.",
    "properties": {
        "input": {"description": "Of any part of it, as an input of a node."},
        **{name: SUBMISSION["properties"][name] for name in ("webhook", "policy", "s3Config", "storage", "metadata")},
    },
    "additionalProperties": False,
    "example": {"input": {"workflow": {"1": {"inputs": {"color": 255}}}}, "metadata": {"trial": 2}},
}
STATUS = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string"},
        "status": {"type": "string", "enum": list(State)},
        "delayTime": MS,
        "executionTime": MS,
        "output": {"description": "As the worker gave it; of ComfyUI `files`, `datas`, `assets`."},
        "error": {"description": "What went wrong."},
        "workerId": {"type": "string"},
        "queue": _ref("Waits"),
    },
    "example": {"id": "01a20f1c-…-e1", "status": "COMPLETED", "delayTime": 12, "executionTime": 2140, "output": {}},
}
COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
HEALTH = {"type": "object", "required": ["jobs", "workers"], "properties": {"jobs": COUNTS, "workers": COUNTS}}
STREAM = {
    "allOf": [_ref("JobStatus")],
    "required": ["stream"],
    "properties": {"stream": {"type": "array", "items": {"type": "object", "properties": {"output": {}}}}},
}
REQUESTS = {
    "type": "object",
    "required": ["requests"],
    "properties": {"requests": {"type": "array", "items": _ref("JobStatus")}},
}
PURGED = {
    "type": "object",
    "required": ["removed", "status"],
    "properties": {"removed": {"type": "integer"}, "status": {"type": "string"}},
}
EVENT = {
    "type": "object",
    "description": "One of the stream. Its data is JSON; docs/api.md has it by event.",
    "required": ["event", "id", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["state", "queue", "progress", "output", "preview", "end"]},
        "id": {"type": "string"},
        "data": {"type": "string"},
    },
}

JOB = {"name": "job", "in": "path", "required": True, "schema": {"type": "string"}}
ENDPOINT = {"name": "endpoint", "in": "path", "required": True, "schema": {"type": "string"}}
ONCE = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
PREVIEWS = {"name": "preview", "in": "query", "schema": {"type": "boolean", "default": True}}
LAST_ID = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "To go on from there."}
WAIT = {"name": "wait", "in": "query", "schema": {"type": "integer", "minimum": 1000, "maximum": 300_000}}

FORMAT = {"name": "format", "in": "query", "schema": {"type": "string", "enum": ["csv", "jsonl"], "default": "csv"}}
ROWS = {"type": "string", "description": "A job a line, newest first; CSV begins with the names of its columns."}
AT = {
    "name": "endpoint",
    "in": "query",
    "schema": {"type": "string"},
    "description": "Else where the job was addressed.",
}
AGAIN_REFUSALS = (400, 404, 409, 410, 413, 422)

# (method, path under /v2/{endpoint}, summary, parameters, whether a submission is sent, answer, further refusals)
WIRE: list[tuple[str, str, str, list[dict[str, Any]], bool, dict[str, Any], tuple[int, ...]]] = [
    ("post", "run", "Queue a job", [ONCE], True, _ref("Moved"), (400, 404, 409, 413, 422)),
    ("post", "runsync", "Queue a job and wait", [ONCE, WAIT], True, _ref("JobStatus"), (400, 404, 409, 413, 422)),
    ("get", "status/{job}", "A job's state and result", [JOB], False, _ref("JobStatus"), (404, 410)),
    ("get", "status-sync/{job}", "The same, once it has ended", [JOB, WAIT], False, _ref("JobStatus"), (400, 404, 410)),
    ("get", "stream/{job}", "What it yielded since the last read", [JOB], False, STREAM, (404, 410)),
    ("post", "cancel/{job}", "End a job", [JOB], False, _ref("Moved"), (404, 410)),
    ("post", "retry/{job}", "Queue a job that failed again", [JOB], False, _ref("Moved"), (404, 409, 410)),
    ("post", "purge-queue", "Cancel all queued jobs", [], False, PURGED, (404,)),
    ("get", "health", "Jobs and workers, counted", [], False, HEALTH, (404,)),
    ("get", "requests", "The latest 100 jobs", [], False, REQUESTS, (404,)),
]


def with_wire(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The document, with what Starlette serves beside Django."""
    result["components"]["schemas"] |= {"Submission": SUBMISSION, "Changes": CHANGES, "JobStatus": STATUS}
    for method, path, summary, parameters, submits, answer, refusals in WIRE:
        operation = _operation(f"v2_{path.split('/')[0]}", summary, ["RunPod"], answer, refusals)
        operation["parameters"] = [ENDPOINT, *parameters]
        if submits:
            body = {"schema": _ref("Submission"), "examples": SUBMISSIONS}
            operation["requestBody"] = {"required": True, "content": {"application/json": body}}
        result["paths"].setdefault(f"/v2/{{endpoint}}/{path}", {})[method] = operation
    events = _operation("jobs_events", "A job's news as it happens", ["jobs"], EVENT, (400, 404, 410))
    events["responses"]["200"]["content"] = {"text/event-stream": {"schema": EVENT}}
    events["responses"]["204"] = {"description": "The job has ended, and all of it was told before `Last-Event-ID`."}
    result["paths"]["/api/v1/jobs/{job}/events"] = {"get": events | {"parameters": [JOB, PREVIEWS, LAST_ID]}}
    result["paths"]["/api/v1/jobs/export"] = {"get": _export(result["paths"]["/api/v1/jobs"]["get"]["parameters"])}
    again = _operation("jobs_run_again", "Run a job's request again", ["jobs"], _ref("Moved"), AGAIN_REFUSALS)
    again |= {"parameters": [JOB, AT, ONCE], "requestBody": _json(_ref("Changes"))}
    result["paths"]["/api/v1/jobs/{job}/run-again"] = {"post": again}
    return result


def _export(of_list: list[dict[str, Any]]) -> dict[str, Any]:
    """The list's filters hold for it."""
    export = _operation("jobs_export", "All jobs that are found, as a file", ["jobs"], ROWS, (400,))
    types = ("text/csv", "application/x-ndjson")
    export["responses"]["200"]["content"] = {kind: {"schema": ROWS} for kind in types}
    filters = [each for each in of_list if each["name"] not in ("cursor", "limit")]
    return export | {"parameters": [FORMAT, *filters]}


def _operation(name: str, summary: str, tags: list[str], answer: Any, refusals: tuple[int, ...]) -> dict[str, Any]:
    errors = {str(status): _json(_ref("Error")) for status in sorted({401, 403, 429, 503, *refusals})}
    return {
        "operationId": name,
        "summary": summary,
        "tags": tags,
        "security": SECURITY,
        "responses": {"200": _json(answer), **errors},
    }
