"""What a request to /api/v1 gives and asks for: a body or query that is checked, words, the page of a list."""

from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response


class Pages(CursorPagination):  # type: ignore[misc]
    ordering = "-id"
    page_size = 50
    max_page_size = 500
    page_size_query_param = "limit"

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """A cursor that somebody has made himself may stand at what is no id."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, ValidationError) as error:
            raise NotFound(self.invalid_cursor_message) from error


class Paged(serializers.Serializer):  # type: ignore[misc]
    """What every list takes."""

    cursor = serializers.CharField(required=False, help_text="As in `next`.")
    limit = serializers.IntegerField(min_value=1, max_value=Pages.max_page_size, default=Pages.page_size)


def page_of(rows: Any, request: Request, shown: Callable[[Any], dict[str, Any]]) -> Response:
    """The page of these rows that the request asks for, newest first."""
    pages = Pages()
    return pages.get_paginated_response([shown(row) for row in pages.paginate_queryset(rows, request)])


def checked(form: type[serializers.Serializer], given: Any) -> dict[str, Any]:
    """Raises ValidationError."""
    serializer = form(data=given)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def words_of(choices: Sequence[str], text: str) -> list[str]:
    """Some of the choices, with commas between. Raises ValidationError."""
    found = text.split(",")
    if unknown := [word for word in found if word not in choices]:
        raise serializers.ValidationError(f"must be of {', '.join(choices)}, not {unknown[0][:50]!r}.")
    return found


def nothing_said(request: Request) -> None:
    """A request that needs no body: one that is there is read all the same, so that what is no JSON is refused."""
    request.data  # noqa: B018
