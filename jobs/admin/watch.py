"""Who may follow a job on its page, and take the list of jobs as a file: both streams are outside of Django
(jobs/wire/news.py, export.py), the session and the permission are the admin's."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict

from accounts.errors import Refused, bad_request, not_found
from jobs.models import Job


def _watcher(cookies: Mapping[str, str]) -> tuple[HttpRequest, Any]:
    """His request, and the pages of jobs. Raises Refused: 403 unless the cookies are of somebody who may see jobs."""
    request = HttpRequest()
    request.method, request.COOKIES = "GET", dict(cookies)
    for middleware in (SessionMiddleware, AuthenticationMiddleware):
        middleware(lambda _: HttpResponse()).process_request(request)
    pages: Any = admin.site.get_model_admin(Job)
    if not (admin.site.has_permission(request) and pages.has_view_permission(request)):
        raise Refused(403, "forbidden", "Log in to the admin as somebody who may see jobs.")
    return request, pages


def listed(cookies: Mapping[str, str], query: QueryDict) -> tuple[str, QuerySet[Job]]:
    """Who it is, and what his list of jobs has with this query, on all its pages. Raises Refused: 400, 403."""
    request, pages = _watcher(cookies)
    request.GET = query  # type: ignore[assignment]
    try:
        found: QuerySet[Job] = pages.get_changelist_instance(request).queryset
    except (IncorrectLookupParameters, DisallowedModelAdminLookup) as error:
        raise bad_request("The list of jobs has no such filter.") from error
    return request.user.get_username(), found


def check_watcher(cookies: Mapping[str, str], job: UUID) -> UUID | None:
    """The job's tenant if a member follows it, None for an operator. Raises Refused: 403 unless the cookies are of
    somebody who may see jobs in the admin, 404 for a job that is not there or not his."""
    request, pages = _watcher(cookies)
    is_operator = pages.operators_may(request, "view")
    own = {} if is_operator else {"tenant__in": pages.tenants_where(request, "view")}
    tenant = Job.all_tenants.filter(pk=job, **own).values_list("tenant", flat=True).first()
    if tenant is None:
        raise not_found(f"There is no job {job}.")
    return None if is_operator else tenant
