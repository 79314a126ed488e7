"""Stored workflows in the admin: made with parameters that are proposed, run by name, moved back, put away."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client as Browser
from django.urls import reverse
from playwright.sync_api import Page, expect

from accounts.models import Member, User
from jobs.models import Job, Workflow, WorkflowVersion
from jobs.workflows import stored
from tests.admin.rows import get, list_url, no_rows, page_url
from tests.admin.test_browser import chromium, look, page
from tests.admin.walk import GIVEN, member, signed_in
from tests.cast import Client, new_client, new_place, unique
from tests.wire.api import Api, finish, until
from tests.wire.conftest import http
from tests.workflows.graphs import PARAMETERS, SIZES, SMALL, TEXT_TO_IMAGE, store

__all__ = ["chromium", "http", "page"]
PROPOSE = "/admin/jobs/workflow/propose/"


@pytest.fixture
def acme() -> Client:
    return new_client(new_place("hearth"), "acme")


def add(browser: Browser, model: type[Any], **given: Any) -> Any:
    return browser.post(f"{list_url(model)}add/", given)


def told(answered: Any) -> str:
    return str(answered.content.decode())


def test_one_is_made_with_its_first_version(browser: Browser, operator: User, acme: Client) -> None:
    given = {"tenant": acme.tenant.pk, "name": "portrait", "title": "Portraits", "note": "first"}
    made = add(browser, Workflow, **given, graph=json.dumps(TEXT_TO_IMAGE), parameters=json.dumps(PARAMETERS))
    assert made.status_code == 302, told(made)
    workflow = stored.one(acme.tenant.pk, "portrait")
    version = stored.version(workflow)
    assert (workflow.title, version.note, version.made_by) == ("Portraits", "first", operator.username)
    assert "(proposed" not in get(browser, page_url(workflow))
    shown = get(browser, page_url(version))
    assert "6.inputs.text" in shown
    assert "a whole number, 1 to 50" in shown


def test_what_is_wrong_is_told_at_its_field_and_what_was_typed_stays(browser: Browser, acme: Client) -> None:
    wrong = [{"name": "prompt", "type": "string", "paths": ["6.inputs.txt"]}, {"name": "x", "type": "nope"}]
    given = {"tenant": acme.tenant.pk, "name": "portrait", "graph": json.dumps(TEXT_TO_IMAGE)}
    text = told(add(browser, Workflow, **given, parameters=json.dumps(wrong)))
    assert "prompt: has the path" in text or "x: type must be one of" in text
    assert "watermark" in text
    assert "is not valid JSON" in told(add(browser, Workflow, **given, parameters="[{"))
    assert "is empty" in told(add(browser, Workflow, **given | {"graph": "{}"}, parameters=""))
    store(acme.tenant)
    assert "You have a workflow" in told(add(browser, Workflow, **given, parameters=""))
    assert "is a word of the API" in told(add(browser, Workflow, **given | {"name": "propose"}, parameters=""))
    assert stored.of_tenant(acme.tenant.pk).count() == 1


def test_a_version_is_made_from_another_and_shows_what_it_changed(browser: Browser, acme: Client) -> None:
    workflow = store(acme.tenant, "small", SMALL, SIZES)
    form = get(browser, f"{list_url(WorkflowVersion)}add/?workflow={workflow.pk}")
    assert "EmptyImage" in form
    assert "filename_prefix" in form
    graph = json.dumps(SMALL).replace('"t"', '"other"')
    given = {"workflow": workflow.pk, "graph": graph, "parameters": "[]", "note": "renamed"}
    assert add(browser, WorkflowVersion, **given).status_code == 302
    second = WorkflowVersion.all_tenants.get(workflow=workflow, number=2)
    assert stored.one(acme.tenant.pk, "small").current == 1, "it was not ticked"
    page = get(browser, page_url(second))
    assert "+    &quot;inputs&quot;" in page or "other" in page.split('id="changes"')[1].split("</pre>")[0]
    given |= {"make_current": "on"}
    assert add(browser, WorkflowVersion, **given).status_code == 302
    assert stored.one(acme.tenant.pk, "small").current == 3
    assert "other" in get(browser, f"{list_url(WorkflowVersion)}add/?version={second.pk}")


def test_it_is_renamed_archived_and_deleted(browser: Browser, acme: Client) -> None:
    workflow = store(acme.tenant)
    given = {"name": "faces", "title": "T", "description": "", "archived": "on"} | no_rows("versions")
    assert browser.post(page_url(workflow), given).status_code == 302
    found = stored.one(acme.tenant.pk, "faces")
    assert (found.title, bool(found.archived_at)) == ("T", True)
    assert "faces" in get(browser, f"{list_url(Workflow)}?archived=yes&tenant__id__exact={acme.tenant.pk}")
    assert "faces" not in get(browser, f"{list_url(Workflow)}?archived=no&tenant__id__exact={acme.tenant.pk}")
    assert browser.post(page_url(workflow, "delete"), {"post": "yes"}).status_code == 302
    assert not stored.of_tenant(acme.tenant.pk).exists()


def test_a_version_cannot_be_changed_or_deleted(browser: Browser, acme: Client) -> None:
    version = stored.version(store(acme.tenant))
    assert browser.post(page_url(version), {"note": "x"}).status_code == 403
    assert browser.post(page_url(version, "delete"), {"post": "yes"}).status_code == 403


def test_to_propose_needs_the_right_to_store_and_a_graph(browser: Browser, acme: Client) -> None:
    staff = Browser(SERVER_NAME="localhost")
    staff.force_login(User.objects.create_user(unique("staff"), is_staff=True))
    given = {"graph": json.dumps(TEXT_TO_IMAGE), "tenant": str(acme.tenant.pk)}
    assert staff.post(PROPOSE, given).status_code == 403
    assert Browser(SERVER_NAME="localhost").post(PROPOSE, given).status_code == 302
    assert reverse("admin:jobs_workflow_propose") == PROPOSE
    assert len(browser.post(PROPOSE, given).json()["parameters"]) == 12
    assert browser.post(PROPOSE, {"graph": "{"}).json()["code"] == "invalid_workflow"
    assert browser.post(PROPOSE, given | {"tenant": "x", "workflow": "y"}).status_code == 200


def test_a_member_stores_where_his_role_lets_him_and_nowhere_else(acme: Client) -> None:
    globex = new_client(acme.place, "globex")
    mine, theirs = (store(client.tenant, "small", SMALL, SIZES) for client in (acme, globex))
    user = member(acme.tenant, "developer")
    Member.all_tenants.create(tenant=globex.tenant, user=user, role="viewer")
    browser = signed_in(user)
    given = {"graph": json.dumps(SMALL), "parameters": "[]", "make_current": "on"}
    for workflow in (mine, theirs):
        browser.post(f"{list_url(WorkflowVersion)}add/", given | {"workflow": workflow.pk})
        browser.post(f"{list_url(Workflow)}add/", given | {"tenant": workflow.tenant_id, "name": "new"})
        about = {"name": "renamed", "title": "", "description": ""} | no_rows("versions")
        browser.post(page_url(workflow), about)
        first = WorkflowVersion.all_tenants.get(workflow=workflow, number=1)
        browser.post(page_url(first).replace("change", "make_current"), GIVEN)
    assert sorted(stored.of_tenant(acme.tenant.pk).values_list("name", "current")) == [("new", 1), ("renamed", 1)]
    assert stored.of_workflow(mine).count() == 2
    assert list(stored.of_tenant(globex.tenant.pk).values_list("name", "current")) == [("small", 1)]
    assert stored.of_workflow(theirs).count() == 1
    viewer = signed_in(member(acme.tenant, "viewer"))
    assert "6.inputs.text" not in get(viewer, page_url(WorkflowVersion.all_tenants.get(workflow=mine, number=1)))
    assert viewer.post(PROPOSE, given).status_code == 403


def test_the_job_page_says_which_it_ran_and_with_what(browser: Browser, http: Any, acme: Client) -> None:
    workflow = store(acme.tenant, "small", SMALL, SIZES)
    job = Api.of(http, acme).run({"workflow": "small", "params": {"prefix": "holiday"}})
    found = Job.all_tenants.get(workflow=workflow)
    text = get(browser, page_url(found))
    assert "small@1" in text
    assert "Params" in text
    assert "holiday" in text
    assert job in get(browser, f"{list_url(Job)}?workflow__id__exact={workflow.pk}")


def test_parameters_are_proposed_chosen_and_saved_and_the_workflow_runs_by_name(
    page: Page, tmp_path: Path, http: Any, acme: Client
) -> None:
    expect.set_options(timeout=30_000)
    page.goto(f"{list_url(Workflow)}add/?tenant={acme.tenant.pk}")
    page.fill("#id_name", "blank")
    page.fill("#id_graph", json.dumps(SMALL))
    page.click("text=Propose from the workflow")
    rows = page.locator("#parameters-table tbody tr")
    expect(rows).to_have_count(3)
    names = [name.input_value() for name in page.locator("[data-field=name]").all()]
    assert names == ["width", "height", "batch_size"]
    rows.nth(2).locator("text=Remove").click()
    rows.nth(0).locator("[data-field=max]").fill("32")
    page.click("text=Add a parameter")
    rows.nth(2).locator("[data-field=name]").fill("prefix")
    rows.nth(2).locator("[data-field=paths]").fill("2.inputs.filename_prefix")
    look(page, "Proposed: 3.", tmp_path / "parameters.png")
    page.click("button[name=_save]")
    look(page, "was added successfully", tmp_path / "workflows.png")
    parameters = json.loads(stored.version(stored.one(acme.tenant.pk, "blank")).parameters)
    assert [(one["name"], one["default"], one.get("max")) for one in parameters] == [
        ("width", 8, 32),
        ("height", 8, 16384),
        ("prefix", "t", None),
    ]
    api = Api.of(http, acme)
    job = api.run({"workflow": "blank", "params": {"width": 16}})
    claimed = until(acme.place.worker("w1").take)[0]
    assert json.loads(claimed.input)["workflow"]["1"]["inputs"]["width"] == 16
    finish(api, claimed, {"ok": 1})
    assert api.status(job)["status"] == "COMPLETED"


def test_an_older_version_is_made_current_again(page: Page, tmp_path: Path, acme: Client) -> None:
    workflow = store(acme.tenant, "small", SMALL, SIZES)
    stored.add_version(acme.tenant.pk, "small", SMALL, [], "a test")
    page.goto(page_url(workflow))
    look(page, "New version", tmp_path / "workflow.png")
    page.goto(page_url(stored.version(workflow, 1)))
    look(page, "Parameters", tmp_path / "version.png")
    page.click("text=Make it current")
    page.click("#modal-content button[type=submit]")
    look(page, "small means version 1 now.", tmp_path / "current.png")
    assert stored.one(acme.tenant.pk, "small").current == 1
