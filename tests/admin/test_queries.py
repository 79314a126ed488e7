"""Lists and pages ask as many queries for 20 rows as for 1."""

import re
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.db import connection, models, transaction
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django_q.models import Failure, OrmQ, Success

from accounts.models import Tenant, User
from jobs.models import Catalogue, Endpoint, Job, Worker, WorkerKey
from jobs.states import State, end, note
from tests.admin.rows import MODELS, Rows, get, list_url, page_url
from tests.admin.walk import OF_A_TENANT, member, signed_in
from tests.cast import unique

BY_NAME = (AccessAttempt, Tenant, User, Endpoint, WorkerKey, Worker, Catalogue, Failure, Success)
MOST_OF_A_LIST, MOST_OF_A_PAGE = 8, 16


def queries(browser: Browser, url: str) -> tuple[int, str]:
    """How many queries the page asks once Django's own caches are full, and its text."""
    get(browser, url)
    with CaptureQueriesContext(connection) as asked:
        text = get(browser, url)
    return len(asked), text


def measure(browser: Browser, rows: Rows) -> dict[str, tuple[int, str]]:
    """Of every list, cut to the tenant's rows, and of the pages that hold lists: what `queries` says."""
    urls = {"the tenant's page": page_url(rows.tenant), "the endpoint's page": page_url(rows.place.endpoint)}
    for model in MODELS:
        only = f"q={rows.name}" if model in BY_NAME else "" if model is OrmQ else f"tenant__id__exact={rows.tenant.pk}"
        urls[list_url(model)] = f"{list_url(model)}?{only}"
    return {name: queries(browser, url) for name, url in urls.items()}


def as_member(browser: Browser, rows: Rows) -> dict[str, tuple[int, str]]:
    """The same of a member, whose lists are his tenant's anyway."""
    urls = {f"a member's {list_url(model)}": list_url(model) for model in OF_A_TENANT}
    urls |= {"a member's tenant": page_url(rows.tenant), "a member's job": page_url(rows.job)}  # type: ignore[arg-type]
    return {name: queries(browser, url) for name, url in urls.items()}


@pytest.fixture(scope="module")
def measured(database: str) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]]]:
    """With two rows of every kind, and with 21."""
    browser, rows = Browser(SERVER_NAME="localhost"), Rows()
    browser.force_login(User.objects.create_superuser(unique("operator")))
    theirs = signed_in(member(rows.tenant, "viewer"))
    rows.add(2)
    few = measure(browser, rows) | as_member(theirs, rows)
    rows.add(19)
    return few, measure(browser, rows) | as_member(theirs, rows)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_a_list_asks_as_many_queries_for_20_rows_as_for_one(measured: Any, model: type[models.Model]) -> None:
    (few, _), (many, text) = (each[list_url(model)] for each in measured)
    assert len(set(re.findall(rf"{list_url(model)}([^/\"]+)/change/", text))) >= 20
    assert many == few <= MOST_OF_A_LIST


@pytest.mark.parametrize("model", OF_A_TENANT, ids=lambda model: model._meta.label_lower)
def test_a_members_list_asks_as_many_queries_for_20_rows_as_for_one(measured: Any, model: type[models.Model]) -> None:
    (few, _), (many, text) = (each[f"a member's {list_url(model)}"] for each in measured)
    assert len(set(re.findall(rf"{list_url(model)}([^/\"]+)/change/", text))) >= (1 if model is Tenant else 20)
    assert many == few <= MOST_OF_A_LIST + 1


@pytest.mark.parametrize("page", ["the tenant's page", "the endpoint's page", "a member's tenant", "a member's job"])
def test_a_page_with_lists_asks_as_many_queries_for_20_rows_as_for_two(measured: Any, page: str) -> None:
    (few, _), (many, _) = (each[page] for each in measured)
    assert many == few <= MOST_OF_A_PAGE + 1  # a member's roles


def test_a_jobs_page_asks_as_many_queries_for_20_attempts_and_files_as_for_one(browser: Browser, rows: Rows) -> None:
    few_job, many_job = rows.add_job(), rows.submit().uuid
    for number in range(1, 21):
        rows.add_attempt(many_job, number)
        rows.add_file(many_job)
        note(many_job, number, "lost", f"time {number}")
        if number < 20:
            rows.end_attempt(many_job)
    with transaction.atomic():
        end(many_job, State.FAILED, "in the end", released=True, error=b'"in the end"')
    few, _ = queries(browser, page_url(few_job))
    many, text = queries(browser, page_url(Job.all_tenants.get(pk=many_job)))
    assert "time 20" in text
    assert text.count("picture.png") >= 20
    assert many == few <= MOST_OF_A_PAGE


def test_a_workers_page_asks_as_many_queries_for_20_held_attempts_as_for_one(browser: Browser, rows: Rows) -> None:
    worker = rows.worker
    rows.add_attempt(rows.submit().uuid, 1)
    few, _ = queries(browser, page_url(worker))
    for _ in range(19):
        rows.add_attempt(rows.submit().uuid, 1)
    many, text = queries(browser, page_url(worker))
    assert text.count("-e1</a>") == 20
    assert many == few <= MOST_OF_A_PAGE


def test_the_list_of_jobs_counts_no_further_than_its_cap(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accounts.admin.pages.CappedPaginator.CAP", 3)
    rows = Rows()
    rows.add(5)
    with CaptureQueriesContext(connection) as asked:
        text = get(browser, list_url(Job))
    counts = [query["sql"] for query in asked if "COUNT(" in query["sql"]]
    assert len(counts) == 1
    assert "LIMIT 3" in counts[0]
    assert "the first 3" in text
