"""Making, changing and revoking keys."""

import re
from datetime import timedelta

from django.contrib.sessions.models import Session
from django.test import Client as Browser
from django.utils import timezone

from accounts.audit import Change
from accounts.keys import digest
from accounts.models import ApiKey
from jobs.models import WorkerKey
from tests.admin.rows import Rows, get, list_url, no_rows, page_url

ADD = f"{list_url(ApiKey)}add/"
INLINES = no_rows("api_keys", "grants", "members", "buckets", "webhooks")


def made(browser: Browser, url: str, given: dict[str, object]) -> tuple[str, str]:
    """The key's text, and the page that shows it."""
    response = browser.post(url, given)
    assert response.status_code == 200
    text = response.content.decode()
    (key,) = set(re.findall(r"(?:hth|hwk)_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text))
    assert "no-store" in response["Cache-Control"]
    assert not response.cookies.get("messages")
    return key, text


def test_a_new_keys_text_is_shown_once_and_works(browser: Browser, rows: Rows) -> None:
    key, page = made(browser, ADD, {"tenant": rows.tenant.pk, "name": "ci", "scopes": ["run", "read"]})
    row = ApiKey.objects.of(rows.tenant).get(prefix=key.split("_")[1])
    assert bytes(row.digest) == digest(key)
    assert page.count(key) == 1
    for url in (page_url(row), list_url(ApiKey), ADD, page_url(row, "history"), "/admin/"):
        assert key not in get(browser, url)
    assert not any(key in str(session.get_decoded()) for session in Session.objects.all())


def test_a_new_worker_key_is_shown_once_and_is_the_endpoints(browser: Browser, rows: Rows) -> None:
    key, _ = made(browser, f"{list_url(WorkerKey)}add/", {"endpoint": rows.place.endpoint.pk, "name": "rack 1"})
    row = WorkerKey.objects.get(prefix=key.split("_")[1])
    assert (row.endpoint, bytes(row.digest)) == (rows.place.endpoint, digest(key))
    assert key not in get(browser, page_url(row))


def test_all_scopes_are_ticked_at_first(browser: Browser) -> None:
    page = get(browser, ADD)
    assert len(re.findall(r'name="scopes"[^>]*checked', page)) == len(ApiKey.Scope)


def test_a_key_needs_a_scope(browser: Browser, rows: Rows) -> None:
    before = ApiKey.objects.of(rows.tenant).count()
    assert browser.post(ADD, {"tenant": rows.tenant.pk, "name": "none"}).status_code == 200
    assert ApiKey.objects.of(rows.tenant).count() == before


def test_name_scopes_and_expiry_can_be_changed_and_nothing_else(browser: Browser, rows: Rows) -> None:
    row = ApiKey.objects.of(rows.tenant).latest("pk")
    given = {"name": "new", "scopes": ["read"], "expires_at_0": "2031-01-02", "expires_at_1": "03:04:05"}
    assert browser.post(page_url(row), given | {"prefix": "0" * 12, "digest": "x", "tenant": ""}).status_code == 302
    now = ApiKey.objects.of(rows.tenant).get(pk=row.pk)
    assert (now.name, now.scopes, now.expires_at.year) == ("new", ["read"], 2031)
    assert (now.prefix, now.digest, now.tenant) == (row.prefix, row.digest, rows.tenant)


def test_a_key_is_limited_to_endpoints_that_its_tenant_may_use(browser: Browser, rows: Rows) -> None:
    new = {"tenant": rows.tenant.pk, "scopes": ["run", "read"]}
    key, _ = made(browser, ADD, new | {"endpoints": f"{rows.place.name}, {rows.place.name}"})
    row = ApiKey.objects.of(rows.tenant).get(prefix=key.split("_")[1])
    assert row.endpoints == [rows.place.name]
    assert rows.place.name in get(browser, f"{list_url(ApiKey)}?tenant__id__exact={rows.tenant.pk}")
    page = browser.post(page_url(row), {"scopes": ["read"], "endpoints": "elsewhere"}).content.decode()
    assert f"{rows.tenant} may not use &#x27;elsewhere&#x27;. It may use " in page
    page = browser.post(page_url(row), {"scopes": ["manage"], "endpoints": rows.place.name}).content.decode()
    assert "a key for some endpoints cannot have it" in page
    assert browser.post(page_url(row), {"scopes": ["manage"], "endpoints": ""}).status_code == 302


def test_a_key_is_revoked_from_its_page_by_a_post_only(browser: Browser, rows: Rows) -> None:
    row = ApiKey.objects.of(rows.tenant).latest("pk")
    url = page_url(row).replace("change", "revoke")
    assert "Revoke?" in get(browser, url)
    row.refresh_from_db()
    assert row.revoked_at is None
    assert browser.post(url, {"_form_submitted": "True"}).status_code == 302
    row.refresh_from_db()
    assert row.revoked_at
    assert Change.objects.latest("pk").did == "Revoked."
    assert url not in get(browser, page_url(row))


def test_a_dialogs_answer_leads_htmx_to_the_page(browser: Browser, rows: Rows) -> None:
    row = ApiKey.objects.of(rows.tenant).latest("pk")
    url = page_url(row).replace("change", "revoke")
    response = browser.post(url, {"_form_submitted": "True"}, headers={"HX-Request": "true"})
    assert response["HX-Redirect"] == page_url(row)


def test_selected_keys_are_revoked_and_others_are_not(browser: Browser, rows: Rows) -> None:
    first, last = ApiKey.objects.of(rows.tenant).order_by("pk")
    browser.post(list_url(ApiKey), {"action": "revoke_selected", "_selected_action": [first.pk]})
    first.refresh_from_db()
    last.refresh_from_db()
    assert first.revoked_at
    assert not last.revoked_at


def test_keys_are_never_deleted(browser: Browser, rows: Rows) -> None:
    row = ApiKey.objects.of(rows.tenant).latest("pk")
    get(browser, page_url(row, "delete"), 403)
    browser.post(list_url(ApiKey), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert ApiKey.objects.of(rows.tenant).filter(pk=row.pk).exists()


def test_keys_are_found_by_prefix_as_it_stands_in_the_key_and_by_state(browser: Browser, rows: Rows) -> None:
    expired, active = ApiKey.objects.of(rows.tenant).order_by("pk")
    ApiKey.objects.of(rows.tenant).filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(days=1))
    found = get(browser, f"{list_url(ApiKey)}?q=hth_{active.prefix}_and-its-secret")
    assert page_url(active) in found
    assert page_url(expired) not in found
    for state, here, elsewhere in (("expired", expired, active), ("active", active, expired)):
        page = get(browser, f"{list_url(ApiKey)}?key_state={state}&tenant__id__exact={rows.tenant.pk}")
        assert page_url(here) in page
        assert page_url(elsewhere) not in page


def test_keys_that_nobody_uses_are_shown_as_expired_and_found_as_such(browser: Browser, rows: Rows) -> None:
    old, new = ApiKey.objects.of(rows.tenant).order_by("pk")
    then = timezone.now() - timedelta(days=31)
    ApiKey.objects.of(rows.tenant).filter(pk=old.pk).update(created_at=then, last_used_at=then)
    owner, form = page_url(rows.tenant), {"name": rows.tenant.name, "unused_key_days": 30}
    assert browser.post(owner, form | {"unused_key_days": 0} | INLINES).status_code == 200
    assert browser.post(owner, form | INLINES).status_code == 302
    found = f"{list_url(ApiKey)}?tenant__id__exact={rows.tenant.pk}&key_state="
    for state, here, elsewhere in (("expired+(unused)", old, new), ("active", new, old)):
        page = get(browser, f"{found}{state}")
        assert page_url(here) in page
        assert page_url(elsewhere) not in page
    assert page_url(old) not in get(browser, f"{found}expired")
    assert "expired (unused)" in get(browser, page_url(old))
    assert "expired (unused)" not in get(browser, f"{list_url(WorkerKey)}")
