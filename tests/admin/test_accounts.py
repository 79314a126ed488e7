"""Tenants with what is theirs, members, users."""

import re

from django.test import Client as Browser
from django.utils import timezone

from accounts.models import Member, Tenant, User
from jobs.models import Endpoint, Grant
from tests.admin.rows import Rows, get, list_url, no_rows, page_url
from tests.cast import new_client, new_place, unique


def cells(page: str, row: Tenant | Endpoint) -> dict[str, str]:
    """The texts of a row of a list, by column."""
    (line,) = [part for part in page.split("<tr") if f"{page_url(row)}?" in part or f'{page_url(row)}"' in part]
    found = re.findall(r'class="field-(\w+) [^>]*>(.*?)</t[dh]>', line, re.S)
    return {name: re.sub(r"<[^>]+>", "", text).strip() for name, text in found}


def test_the_list_of_tenants_counts_what_is_theirs(browser: Browser) -> None:
    rows = Rows()
    rows.add(2)
    rows.submit()
    job = rows.submit().uuid
    rows.add_attempt(job, 1)
    rows.acme.new_key(revoked_at=timezone.now())  # not counted
    found = cells(get(browser, f"{list_url(Tenant)}?q={rows.tenant.name}"), rows.tenant)
    counted = [found[name] for name in ("members", "api_keys", "grants", "buckets", "queued_jobs", "running_jobs")]
    assert counted == ["2", "3", "3", "2", "1", "1"]


def test_the_list_of_endpoints_counts_jobs_and_live_workers(browser: Browser) -> None:
    rows = Rows()
    rows.add(2)
    rows.submit()
    found = cells(get(browser, f"{list_url(Endpoint)}?q={rows.place.name}"), rows.place.endpoint)
    assert [found[name] for name in ("queued_jobs", "running_jobs", "live_workers")] == ["1", "0", "2"]


def test_a_new_tenant_leads_to_its_page_with_what_to_add(browser: Browser) -> None:
    name = unique("acme")
    response = browser.post(f"{list_url(Tenant)}add/", {"name": name})
    tenant = Tenant.objects.get(name=name)
    assert response["Location"] == page_url(tenant)
    for kind in ("key", "grant", "member", "bucket", "webhook", "secret"):
        to = browser.get(page_url(tenant).replace("change", f"add_{kind}"))["Location"]
        assert str(tenant.pk) in get(browser, to)


def test_a_bad_name_is_refused(browser: Browser) -> None:
    page = browser.post(f"{list_url(Tenant)}add/", {"name": "No Such Name"}).content.decode()
    assert "1–63 of a–z, 0–9 and -" in page


def test_a_grants_weight_and_limit_are_changed_on_the_tenants_page(browser: Browser) -> None:
    acme = new_client(new_place("raw"))
    forms = no_rows("api_keys", "members", "buckets", "webhooks")
    forms |= {"grants-TOTAL_FORMS": 1, "grants-INITIAL_FORMS": 1, "grants-0-id": acme.grant.pk}
    given = {"grants-0-tenant": acme.tenant.pk, "grants-0-weight": "2.5", "grants-0-max_running": "3"}
    response = browser.post(page_url(acme.tenant), {"name": acme.tenant.name} | forms | given)
    assert response.status_code == 302, response.content.decode()
    grant = Grant.objects.of(acme.tenant).get()
    assert (grant.weight, grant.max_running) == (2.5, 3)


def test_a_weight_of_nothing_is_refused(browser: Browser) -> None:
    acme = new_client(new_place("raw"))
    page = browser.post(page_url(acme.grant), {"weight": "0", "max_running": ""})
    assert page.status_code == 200
    assert Grant.objects.of(acme.tenant).get().weight == 1


def test_what_has_jobs_is_not_deleted_and_what_has_none_is(browser: Browser, rows: Rows) -> None:
    assert rows.job
    for row in (rows.tenant, rows.acme.grant, rows.place.endpoint, rows.bucket):
        page = get(browser, page_url(row, "delete"))
        assert re.search(r"<li>\s*(jobs|blobs)\s*</li>", page)
        assert rows.job.public_id not in page  # by kind, not row by row
        browser.post(page_url(row, "delete"), {"post": "yes"})
        assert type(row)._base_manager.filter(pk=row.pk).exists()
    unused = Tenant.objects.create(name=unique("unused"))
    browser.post(page_url(unused, "delete"), {"post": "yes"})
    assert not Tenant.objects.filter(pk=unused.pk).exists()


def test_an_endpoints_name_stays_as_it_is(browser: Browser) -> None:
    place = new_place("raw")
    forms = no_rows("grants", "worker_keys", "runpod", "overflows")
    given = {"name": "other", "backend": "fleet", "dialect": "raw", "prefetch": "3", "mode": "open"}
    assert browser.post(page_url(place.endpoint), given | forms).status_code == 302
    place.endpoint.refresh_from_db()
    assert (place.endpoint.name, place.endpoint.prefetch) == (place.name, 3)


def test_a_user_is_made_a_member_and_is_found_by_name(browser: Browser) -> None:
    tenant, user = Tenant.objects.create(name=unique("acme")), User.objects.create_user(unique("bob"))
    browser.post(f"{list_url(Member)}add/", {"tenant": tenant.pk, "user": user.pk, "role": "owner"})
    assert Member.objects.of(tenant).get().role == "owner"
    page = get(browser, f"{list_url(User)}?q={user.username}")
    assert tenant.name in page


def test_an_operator_makes_a_user_and_sets_a_password(browser: Browser) -> None:
    name, first, second = unique("carol"), "a long first word", "a long second word"
    given = {"username": name, "usable_password": "true", "password1": first, "password2": first}
    browser.post(f"{list_url(User)}add/", given)
    user = User.objects.get(username=name)
    assert user.check_password(first)
    given |= {"password1": second, "password2": second}
    browser.post(page_url(user).replace("change", "password"), given)
    user.refresh_from_db()
    assert user.check_password(second)
    assert not user.is_staff
