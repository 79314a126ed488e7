"""Who may follow a job on its page: the stream of its news is outside of Django (jobs/wire/news.py), the session and
the permission are the admin's."""

from collections.abc import Mapping
from uuid import UUID

from django.contrib import admin
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse

from accounts.errors import Refused, not_found
from jobs.models import Job


def check_watcher(cookies: Mapping[str, str], job: UUID) -> None:
    """Raises Refused: 403 unless the cookies are of somebody who may see jobs in the admin, 404."""
    request = HttpRequest()
    request.COOKIES = dict(cookies)
    for middleware in (SessionMiddleware, AuthenticationMiddleware):
        middleware(lambda _: HttpResponse()).process_request(request)
    pages = admin.site.get_model_admin(Job)
    if not (admin.site.has_permission(request) and pages.has_view_permission(request)):
        raise Refused(403, "forbidden", "Log in to the admin as somebody who may see jobs.")
    if not Job.all_tenants.filter(pk=job).exists():
        raise not_found(f"There is no job {job}.")
