"""/api/v1/jobs: a tenant's job history, on whichever endpoint; a job of it can be cancelled, retried, deleted."""

from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs import absent, search
from jobs.api import shapes
from jobs.api.errors import invalid
from jobs.api.requests import Paged, checked, page_of, words_of
from jobs.deletion import delete_job
from jobs.ids import JobId, parse_job_id
from jobs.lifecycle import cancel_job, retry_job
from jobs.models import Deletion, Job
from jobs.states import State
from jobs.wire.metadata import asked_for
from jobs.workflows.run import NAMED
from storage.assets import when

BY = "by the client"


class Filters(serializers.Serializer):  # type: ignore[misc]
    """Of the list, as query parameters."""

    status = serializers.CharField(required=False, help_text="One or several, with commas between.")
    endpoint = serializers.CharField(required=False, max_length=63)
    key = serializers.RegexField("^[0-9a-f]{12}$", required=False, help_text="An API key's prefix.")
    workflow = serializers.CharField(
        required=False, help_text="A stored workflow, `portrait`, or a version of it, `portrait@3`."
    )
    since = serializers.DateTimeField(required=False, help_text="ISO 8601; without a time zone it is UTC.")
    until = serializers.DateTimeField(required=False, help_text="Not itself.")
    error = serializers.CharField(required=False, max_length=200, help_text="A part of what went wrong.")

    def validate_workflow(self, value: str) -> str:
        if not NAMED.fullmatch(value):
            raise serializers.ValidationError(f"must be a name or name@version, not {value[:80]!r}.")
        return value

    def validate_status(self, value: str) -> list[str]:
        return words_of(State.values, value.upper())


class OfOne(serializers.Serializer):  # type: ignore[misc]
    input = serializers.BooleanField(default=False, help_text="Whether the input comes with it, which may be large.")


class OfList(Paged, Filters):
    """All that the list takes."""


class Jobs(APIView):  # type: ignore[misc]
    @shapes.answers(
        "Jobs, newest first",
        shapes.page(shapes.ListedJob),
        query=(OfList, shapes.OF_METADATA),
        errors=(400, 404),
        name="jobs_list",
    )
    def get(self, request: Request) -> Response:
        return page_of(search.found(request.user, wanted(request.query_params)), request, search.shown)


def wanted(query: QueryDict) -> search.Search:
    """What the query asks for. Raises Refused(400)."""
    try:
        given = checked(Filters, query)
    except serializers.ValidationError as error:
        raise invalid(error) from error
    metadata = asked_for((name, value) for name, values in query.lists() for value in values)
    return search.Search(states=given.pop("status", ()), metadata=metadata, **given)


class OneJob(APIView):  # type: ignore[misc]
    @shapes.answers("A job with all that was kept of it", shapes.OneJob, query=OfOne, errors=(400, 404, 410))
    def get(self, request: Request, job: str) -> Response:
        found = _found(request, job)
        return Response(search.told(request.user, found, with_input=checked(OfOne, request.query_params)["input"]))

    @shapes.answers("Delete a job, and all that is its own", shapes.Receipt, 202, errors=(404, 410))
    def delete(self, request: Request, job: str) -> Response:
        """202: it cannot be read any more; the receipt says how far its deletion is."""
        found = _own(request, job)
        return Response(_shown(delete_job(found.uuid, "by its tenant")), 202)


class Cancel(APIView):  # type: ignore[misc]
    @shapes.answers("End a job", shapes.Moved, errors=(404, 410))
    def post(self, request: Request, job: str) -> Response:
        found = _found(request, job)
        return Response({"id": found.public_id, "status": cancel_job(found.pk, BY)})


class Retry(APIView):  # type: ignore[misc]
    @shapes.answers("Queue a job that failed again", shapes.Moved, errors=(404, 409, 410))
    def post(self, request: Request, job: str) -> Response:
        found = _found(request, job)
        return Response({"id": found.public_id, "status": retry_job(found.pk, BY)})


def _found(request: Request, job: str) -> Job:
    return search.one(request.user, job)


def _own(request: Request, text: str) -> JobId:
    """Raises Refused(404)."""
    job = parse_job_id(text)
    if job is None:
        raise absent.no_job(text, where="")
    there = Job.all_tenants.filter(pk=job.uuid, tenant_id=request.user.tenant_id)
    known = Deletion.all_tenants.filter(job_id=job.uuid, tenant_id=request.user.tenant_id)
    own = there.filter(request.user.sees("endpoint__name"), sync=job.sync)
    if not own.exists() and (there.exists() or not known.exists()):
        raise absent.no_job(text, where="")
    return job


def _shown(receipt: Deletion) -> dict[str, Any]:
    numbers = ("payloads", "events", "assets", "files", "bytes", "out_of_reach")
    return {
        "receipt": str(receipt.pk),
        "asked_at": when(receipt.asked_at),
        "done_at": when(receipt.done_at),
        **{name: getattr(receipt, name) for name in numbers},
    }
