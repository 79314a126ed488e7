"""The audit trail: who changed what, from where, from what to what; no secrets; to tenants their own; never altered."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import IntegrityError
from django.test import Client as Browser
from django.test import RequestFactory
from django.utils import timezone

from accounts import audit
from accounts.audit import Audited, Change
from accounts.models import ApiKey, Member, Tenant, User
from accounts.sealed import Sealed
from hearth.local.instance import ROOT
from jobs.webhooks import register
from storage.models import Bucket
from tests.admin.rows import Rows, get, list_url, page_url
from tests.admin.walk import GIVEN, member, signed_in
from tests.cast import new_client, new_place, unique


def lines(row: Any) -> list[Change]:
    return list(Change.objects.filter(kind=row._meta.label_lower, row=str(row.pk)).order_by("id"))


def last(row: Any) -> Change:
    return lines(row)[-1]


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name=unique("acme"))


def test_a_form_tells_who_changed_what_from_where_from_what_to_what(
    browser: Browser, operator: User, rows: Rows
) -> None:
    given = {"weight": "2.5", "max_running": "3", "price": ""}
    browser.post(page_url(rows.acme.grant), given, REMOTE_ADDR="192.0.2.9")
    line = last(rows.acme.grant)
    assert (line.who, line.address, line.did) == (f"user {operator}", "192.0.2.9", "Changed.")
    assert line.fields == {"weight": [1.0, 2.5], "max_running": [None, 3]}
    assert line.tenant_id == rows.tenant.pk


def test_what_was_not_changed_is_not_told(browser: Browser, rows: Rows) -> None:
    before = len(lines(rows.acme.grant))
    browser.post(page_url(rows.acme.grant), {"weight": "1.0", "max_running": "", "price": ""})
    assert len(lines(rows.acme.grant)) == before


def test_a_button_tells_what_it_did(browser: Browser, rows: Rows) -> None:
    key = ApiKey.objects.of(rows.tenant).latest("pk")
    browser.post(page_url(key).replace("change", "revoke"), GIVEN)
    line = last(key)
    assert line.did == "Revoked."
    assert line.fields["revoked_at"][0] is None


def test_the_api_tells_by_which_key(web: Any) -> None:
    acme = new_client(new_place())
    ApiKey.all_tenants.filter(tenant=acme.tenant).update(scopes=["run", "read", "manage"])
    with httpx.Client(base_url=f"{web.url}/api/v1", headers=acme.headers) as client:
        made = client.post("/keys", json={"name": "ci", "scopes": ["read"]}).json()
        client.patch(f"/keys/{made['prefix']}", json={"scopes": ["run"]})
        client.delete(f"/keys/{made['prefix']}")
    added, changed, revoked = lines(ApiKey.objects.of(acme.tenant).get(prefix=made["prefix"]))
    assert [line.did for line in (added, changed, revoked)] == ["Added.", "Changed.", "Revoked."]
    assert changed.fields == {"scopes": [["read"], ["run"]]}
    assert {line.who for line in (added, changed, revoked)} == {f"API key {ApiKey.objects.of(acme.tenant).first()}"}
    assert added.address == "127.0.0.1"
    assert made["key"].split("_", 2)[2] not in str([vars(line) for line in (added, changed, revoked)])


def test_a_command_tells_its_name_and_who_ran_it() -> None:
    place = new_place()
    argv = [sys.executable, "manage.py", "endpoint", place.name, "paused", "--message", "New disks"]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=100)
    line = last(place.endpoint)
    assert line.who.startswith("command endpoint by ")
    assert line.fields == {"mode": ["open", "paused"], "message": ["", "New disks"]}


def test_a_command_in_a_container_whose_user_has_no_name_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("sys.argv", ["manage.py", "create_tenant", "acme"])
    assert audit.who_acts() == (f"command create_tenant by user {os.getuid()}", None)


def test_no_secret_is_told(tenant: Tenant) -> None:
    own = {"endpoint_url": "https://s3.example.com", "s3_bucket": "b", "access_key_id": "A"}
    bucket = Bucket(tenant=tenant, name="main", secret_access_key=Sealed.seal("s3cret"), **own)
    bucket.save()
    bucket.secret_access_key = Sealed.seal("0ther")
    bucket.save()
    assert last(bucket).fields == {"secret_access_key": ["…", "…"]}
    made = register.register(tenant, "https://hooks.example.com/x?token=T0KEN", ["completed"])
    user = User.objects.create_user(unique("user"), password="a long password")
    key, text = ApiKey.issue(tenant=tenant, scopes=["run"])
    told = str([vars(line) for row in (bucket, made.webhook, user, key) for line in lines(row)])
    told += str([vars(line) for line in Change.objects.filter(tenant=tenant)])
    sealed = bucket.secret_access_key.token.decode()
    secrets = ["s3cret", "0ther", sealed, "T0KEN", user.password, text.split("_", 2)[2], made.secret[6:]]
    assert not [secret for secret in secrets if secret in told]
    assert "https://hooks.example.com/x?token=…" in told


def test_what_is_removed_is_told(tenant: Tenant) -> None:
    made = register.register(tenant, "https://hooks.example.com/x", ["completed"]).webhook
    register.remove(tenant, made.pk)
    place = Member.all_tenants.create(tenant=tenant, user=User.objects.create_user(unique("bob")), role="viewer")
    signed_in(member(tenant, "owner")).post(page_url(place, "delete"), {"post": "yes"})
    for kind, pk in (("jobs.webhook", made.pk), ("accounts.member", place.pk)):
        assert Change.objects.filter(kind=kind, row=str(pk)).latest("id").did == "Deleted."


def test_a_change_that_is_not_made_is_not_told(tenant: Tenant) -> None:
    """They are one transaction."""
    other = Tenant.objects.create(name=unique("other"))
    before = Change.objects.count()
    tenant.name = other.name
    with pytest.raises(IntegrityError):
        tenant.save()
    assert Change.objects.count() == before


def test_members_read_their_own_tenants_lines(rows: Rows) -> None:
    other = Rows()
    browser = signed_in(member(rows.tenant, "viewer"))
    page = get(browser, list_url(Change))
    assert rows.tenant.name in page
    assert other.tenant.name not in page
    theirs = Change.objects.filter(tenant=other.tenant).latest("id")
    assert browser.get(page_url(theirs)).status_code == 302


def test_nobody_changes_a_line(browser: Browser, rows: Rows) -> None:
    line = Change.objects.filter(tenant=rows.tenant).latest("id")
    assert browser.post(page_url(line), {"did": "nothing"}).status_code == 403
    assert browser.post(page_url(line, "delete"), {"post": "yes"}).status_code == 403
    assert browser.get(f"{list_url(Change)}add/").status_code == 403
    browser.post(list_url(Change), {"action": "delete_selected", "_selected_action": [line.pk], "post": "yes"})
    assert Change.objects.get(pk=line.pk).did == line.did


def test_the_history_of_a_row_is_its_lines(browser: Browser, rows: Rows) -> None:
    browser.post(page_url(rows.acme.grant), {"weight": "7.5", "max_running": "", "price": ""})
    page = get(browser, page_url(rows.acme.grant, "history"))
    assert "1.0 → 7.5" in page
    assert not LogEntry.objects.filter(object_id=str(rows.acme.grant.pk)).exists()


def test_old_lines_go_and_young_ones_stay(tenant: Tenant, settings_days: Any) -> None:
    old, young = (Change.objects.create(tenant=tenant, who="w", kind="k", row="1", name="n", did=d) for d in "oy")
    Change.objects.filter(pk=old.pk).update(at=timezone.now() - timedelta(days=11))
    settings_days(0)
    audit.forget(1000)
    assert Change.objects.filter(pk=old.pk).exists(), "0 is for ever"
    settings_days(10)
    audit.forget(1000)
    assert set(Change.objects.filter(pk__in=[old.pk, young.pk])) == {young}


@pytest.fixture
def settings_days(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda days: monkeypatch.setattr(settings, "AUDIT_DAYS", days)


def test_all_that_the_admin_lets_people_change_is_audited() -> None:
    """Whoever adds a page with a form says it of its model, too."""

    request = RequestFactory().get("/admin/")
    request.user = User(is_active=True, is_staff=True, is_superuser=True)
    able = [
        model
        for model, page in admin.site._registry.items()
        if page.has_add_permission(request) or page.has_change_permission(request)
    ]
    assert [model for model in able if not issubclass(model, Audited)] == []
    assert len(able) > 8
