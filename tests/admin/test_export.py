"""Below the list of jobs is that list as a file: with its filters, on all its pages, for who may see it."""

import csv
from collections.abc import Iterator
from io import StringIO
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client as Browser

from accounts.models import User
from jobs.models import Job
from jobs.states import State
from tests.admin.rows import Rows, get, list_url
from tests.admin.walk import member, signed_in
from tests.cast import new_client, new_place, row, unique
from tests.wire.api import check_refusal

EXPORT = "/admin/jobs/job/export"


@pytest.fixture(scope="module")
def http(web: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=30) as http:
        yield http


def cookie(browser: Browser) -> dict[str, str]:
    return {"Cookie": f"{settings.SESSION_COOKIE_NAME}={browser.cookies[settings.SESSION_COOKIE_NAME].value}"}


def exported(http: httpx.Client, browser: Browser, query: str) -> list[dict[str, str]]:
    answered = http.get(f"{EXPORT}?{query}", headers=cookie(browser))
    assert answered.status_code == 200, answered.text
    return list(csv.DictReader(StringIO(answered.text, newline="")))


def test_the_list_leads_to_itself_as_a_file(browser: Browser, rows: Rows) -> None:
    text = get(browser, f"{list_url(Job)}?state__exact=FAILED&tenant__id__exact={rows.tenant.pk}")
    assert f'href="export?state__exact=FAILED&amp;tenant__id__exact={rows.tenant.pk}&amp;format=csv"' in text
    assert 'href="export?&amp;format=jsonl"' in get(browser, list_url(Job))


def test_it_has_the_lists_filters_and_search_and_names_tenants(
    http: httpx.Client, browser: Browser, rows: Rows
) -> None:
    failed, other = rows.add_job(State.FAILED), row(new_client(new_place()).submit({}))
    of_tenant = f"tenant__id__exact={rows.tenant.pk}"
    found = exported(http, browser, f"{of_tenant}&state__exact=FAILED&format=csv")
    assert [(each["tenant"], each["id"], each["status"]) for each in found] == [
        (rows.tenant.name, failed.public_id, "FAILED")
    ]
    assert len(exported(http, browser, of_tenant)) == Job.objects.of(rows.tenant).count() == 2
    assert [each["id"] for each in exported(http, browser, f"q={other.pk}")] == [other.public_id]
    lines = http.get(f"{EXPORT}?q={other.pk}&format=jsonl", headers=cookie(browser))
    assert lines.json()["tenant"] == other.tenant.name


@pytest.mark.parametrize("query", ["format=xls", "secret__id=1", "state__exact__x=1"])
def test_what_the_list_has_no_filter_for_is_refused(http: httpx.Client, browser: Browser, query: str) -> None:
    check_refusal(http.get(f"{EXPORT}?{query}", headers=cookie(browser)), 400, "bad_request")


def test_it_is_for_who_may_see_jobs(http: httpx.Client, rows: Rows) -> None:
    check_refusal(http.get(EXPORT), 403, "forbidden")
    staff, browser = User.objects.create_user(unique("staff"), is_staff=True), Browser(SERVER_NAME="localhost")
    browser.force_login(staff)
    check_refusal(http.get(EXPORT, headers=cookie(browser)), 403, "forbidden")
    staff.user_permissions.add(Permission.objects.get(codename="view_job"))
    assert exported(http, browser, f"tenant__id__exact={rows.tenant.pk}")


def test_a_member_gets_the_jobs_of_his_tenant_alone(http: httpx.Client, rows: Rows) -> None:
    other, browser = Rows(), signed_in(member(rows.tenant, "viewer"))
    other.add(1)
    assert {each["tenant"] for each in exported(http, browser, "")} == {rows.tenant.name}
    of_other = http.get(f"{EXPORT}?tenant__id__exact={other.tenant.pk}", headers=cookie(browser))
    assert of_other.status_code == 400 or list(csv.DictReader(StringIO(of_other.text, newline=""))) == []
