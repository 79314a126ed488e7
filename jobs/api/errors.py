"""The one shape of errors (design.md) for whatever goes wrong in the management API."""

import logging
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.errors import Refused, bad_request, database_away, not_found

log = logging.getLogger("hearth.web")
CODES: dict[type[Exception], str] = {
    exceptions.ParseError: "invalid_body",
    exceptions.NotFound: "not_found",
}


def answer(error: Exception, context: dict[str, Any]) -> Response:
    """What an exception in a view is answered with."""
    refused = _refusal(error, context["request"])
    if refused.status == 500:
        log.error("%s %s failed", context["request"].method, context["request"].path, exc_info=error)
    headers = refused.all_headers()
    if isinstance(error, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    return Response(refused.body(), refused.status, headers=headers)


def _refusal(error: Exception, request: Request) -> Refused:
    match error:
        case Refused():
            return error
        case exceptions.MethodNotAllowed():
            return Refused(405, "method_not_allowed", f"{request.method} is not allowed here.")
        case exceptions.UnsupportedMediaType():
            return _wrong_type(request)
        case exceptions.ValidationError():
            return invalid(error)
        case exceptions.APIException():
            code = next((code for kind, code in CODES.items() if isinstance(error, kind)), "bad_request")
            return Refused(error.status_code, code, str(error.detail))
        case RecursionError():
            return bad_request("The body is nested too deeply to be read.", "invalid_body")
        case Http404():
            return not_found(f"There is nothing at {request.path}.")
        case DataError() if "\0" in request.path:  # no name has it, and PostgreSQL does not even look
            return not_found(f"There is nothing at {request.path}.")
        case SuspiciousOperation() | ValidationError():
            return bad_request(f"The request is not sound: {error}.")
        case OperationalError() | InterfaceError():
            return database_away()
        case BotoCoreError() | ClientError():
            return Refused(503, "storage_unavailable", f"S3 cannot be used now: {_told(error)}.", retry_after_s=5)
    return Refused(500, "internal", "Hearth failed on this request; it is logged.")


def invalid(error: exceptions.ValidationError) -> Refused:
    """What a serializer found."""
    return bad_request(" ".join(_faults(error.detail, "")))


def _wrong_type(request: Request) -> Refused:
    given = f"of type {request.content_type[:100]!r}" if request.content_type else "without a Content-Type"
    taken = ["the file's own" if parser.media_type == "*/*" else parser.media_type for parser in request.parsers]
    error = f"A body {given} is not taken here. Its Content-Type must be {' or '.join(taken)}."
    return Refused(415, "unsupported_media_type", error)


def _faults(detail: Any, field: str) -> Iterator[str]:
    """A serializer's errors as sentences that name the field."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            own = name if isinstance(name, str) else field  # an int: where it is in a list
            yield from _faults(inner, own if own != "non_field_errors" else "")
    elif isinstance(detail, list):
        for inner in detail:
            yield from _faults(inner, field)
    else:
        yield f"`{field}`: {detail}" if field else str(detail)


def _told(error: Exception) -> str:
    """Without what a message of botocore's may hold of URLs and keys."""
    code = error.response["Error"].get("Code", "?") if isinstance(error, ClientError) else type(error).__name__
    return f"it answers {code}" if isinstance(error, ClientError) else code


class Nowhere(APIView):  # type: ignore[misc]
    """Every path that is none of the API's."""

    authentication_classes = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise Http404
