"""Every URL of the admin leads who is not signed in as staff to its login, whatever row it names, and changes nothing.
What members and operators may see there is tests/admin's."""

from typing import Any

import httpx
import pytest
from django.contrib import admin
from django.test import Client as Browser

from accounts.models import User
from tests.admin.rows import Rows, newest
from tests.cast import unique
from tests.walk.routes import Walked, every_route
from tests.walk.rows import difference, written

ROUTES = [route for route in every_route() if route.path.startswith("/admin/")]
PAGES = [route for route in ROUTES if route.is_django]
LOGIN, LOGOUT = "/admin/login/", "/admin/logout/"
SET_PASSWORD = "/admin/set-password/"  # for who has a link
ROW = {"object_id", "id"}
OTHERS = {"content_type_id": "1", "app_label": "jobs", "url": "nothing", "uidb64": "MQ", "token": "nothing"}
MODELS = {model._meta.label_lower: model for model in admin.site._registry}


@pytest.fixture(scope="module")
def rows(database: str) -> Rows:
    made = Rows()
    made.add(1)
    return made


def value(route: Walked, parameter: str) -> str:
    """Of a row, the newest one of the model whose pages these are."""
    name = parameter.partition("{")[2][:-1]
    if name in ROW:
        app, model, *_ = route.path.removeprefix("/admin/").split("/")
        return str(newest(MODELS[f"{app}.{model}"]).pk) if f"{app}.{model}" in MODELS else "1"
    assert name in OTHERS, f"{parameter!r} of a page of the admin is new: say in OTHERS what it is."
    return OTHERS[name]


@pytest.fixture(scope="module")
def urls(rows: Rows) -> dict[str, Walked]:
    return {page.url({parameter: value(page, parameter) for parameter in page.parameters}): page for page in PAGES}


def is_login(response: Any) -> bool:
    return response.status_code == 302 and response["Location"].startswith(LOGIN)


@pytest.mark.parametrize("who", ["nobody", "a user who is no staff"])
def test_every_page_leads_to_the_login(rows: Rows, urls: dict[str, Walked], who: str) -> None:
    browser = Browser(SERVER_NAME="localhost")
    if who != "nobody":
        browser.force_login(User.objects.create_user(unique("nostaff")))
    before = written(rows.tenant, rows.place.endpoint)
    shown = []
    for url, page in urls.items():
        for method in page.methods:
            response = browser.generic(method, url)
            if not is_login(response) and not page.path.startswith((LOGIN, LOGOUT, SET_PASSWORD)):
                shown.append(f"{method} {url}: {response.status_code}")
    assert shown == []
    assert difference(before, written(rows.tenant, rows.place.endpoint)) == []


def test_streams_beside_the_admins_pages_are_for_who_is_signed_in(rows: Rows, http: httpx.Client) -> None:
    streams = [route for route in ROUTES if not route.is_django]
    assert streams
    assert rows.job
    for stream in streams:
        url = stream.url(dict.fromkeys(stream.parameters, str(rows.job.pk)))
        assert {http.get(url, headers=headers).status_code for headers in ({}, rows.acme.headers)} == {403}
