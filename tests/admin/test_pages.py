"""Every page of every model answers an operator, and nobody else."""

import pytest
from django.contrib import admin
from django.core.checks import run_checks
from django.db import models
from django.test import Client as Browser

from accounts.models import User
from tests.admin.rows import MODELS, Rows, get, list_url, newest, page_url
from tests.cast import unique

HARMLESS = (
    "zzz",
    "' OR 1=1 --",
    "%_\\",
    "é…🔥",
    "-e1",
    "hth_",
    "a" * 5000,
    "{{ 7*7 }}",
    "<b>x</b>",
    "01a2093a-d5ca-7234",
)
of_every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)


def test_django_finds_nothing_wrong_with_them() -> None:
    assert run_checks() == []


@of_every_model
def test_its_pages_answer_an_operator(browser: Browser, rows: Rows, model: type[models.Model]) -> None:
    row = newest(model)
    assert str(row.pk) in get(browser, f"{list_url(model)}?{model._meta.pk.name}__exact={row.pk}")
    get(browser, page_url(row))
    get(browser, page_url(row, "history"))


@of_every_model
def test_its_add_page_answers_where_rows_are_made_by_hand(browser: Browser, model: type[models.Model]) -> None:
    made_by_hand = {"tenant", "user", "member", "apikey", "bucket", "endpoint", "grant", "workerkey"}
    made_by_hand |= {"webhook", "webhooksecret", "workflow", "workflowversion"}
    status = 200 if model._meta.model_name in made_by_hand else 403
    get(browser, f"{list_url(model)}add/", status)


@of_every_model
def test_its_delete_page_never_fails(browser: Browser, rows: Rows, model: type[models.Model]) -> None:
    assert browser.get(page_url(newest(model), "delete")).status_code in (200, 403)


@of_every_model
def test_strangers_and_users_who_are_no_staff_are_sent_to_the_login(rows: Rows, model: type[models.Model]) -> None:
    stranger, member = Browser(SERVER_NAME="localhost"), Browser(SERVER_NAME="localhost")
    member.force_login(User.objects.create_user(unique("member")))
    for browser in (stranger, member):
        for url in (list_url(model), page_url(newest(model)), f"{list_url(model)}add/"):
            response = browser.get(url)
            assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/admin/login/")


@of_every_model
def test_staff_without_rights_is_refused(rows: Rows, model: type[models.Model]) -> None:
    staff = Browser(SERVER_NAME="localhost")
    staff.force_login(User.objects.create_user(unique("staff"), is_staff=True))
    for url in (list_url(model), page_url(newest(model)), f"{list_url(model)}add/"):
        get(staff, url, 403)


@of_every_model
def test_no_search_text_does_harm(browser: Browser, model: type[models.Model]) -> None:
    if not admin.site._registry[model].search_fields:
        return
    for text in HARMLESS:
        response = browser.get(list_url(model), {"q": text})
        assert response.status_code == 200
        assert b"<b>x</b>" not in response.content
    assert browser.get(list_url(model), {"q": "nul\0"}).status_code == 200


@of_every_model
def test_no_query_string_does_harm(browser: Browser, model: type[models.Model]) -> None:
    wrong = {
        "p": ["x", "-1", "99999"],
        "o": ["x", "99"],
        "tenant__id__exact": ["x", "0"],
        "endpoint__id__exact": ["x", "0"],
        "state__exact": ["x"],
        "key_state": ["x"],
        "webhook_state": ["x"],
        "webhook__id__exact": ["x", "0"],
        "overdue": ["x"],
        "archived": ["x"],
        "workflow__id__exact": ["x", "0"],
        "health": ["x"],
        "created_at_from_0": ["x", "0001-01-01", "9999-12-31"],
        "created_at_to_0": ["x", "0001-01-01", "9999-12-31"],
        "_facets": ["1"],
        "no_such": ["1"],
    }
    for name, values in wrong.items():
        for value in values:
            assert browser.get(list_url(model), {name: value, "q": "no such row"}).status_code in (200, 302)


@of_every_model
def test_a_row_that_is_not_there_leads_home(browser: Browser, model: type[models.Model]) -> None:
    for pk in ("nothing", "999999999", "01a2093a-d5ca-7234-b16e-9e33650c0a44"):
        assert browser.get(f"{list_url(model)}{pk}/change/").status_code == 302


def test_the_home_page_and_its_sidebar_lead_everywhere(browser: Browser) -> None:
    home = get(browser, "/admin/")
    assert "<title> " in home
    assert "Hearth" in home
    for model in MODELS:
        assert list_url(model) in home


def test_a_page_of_the_operators_own_password(browser: Browser, operator: User) -> None:
    get(browser, f"/admin/accounts/user/{operator.pk}/password/")
    get(browser, "/admin/password_change/")
    assert browser.get(f"/admin/accounts/user/{operator.pk}/set_password/").status_code == 302
