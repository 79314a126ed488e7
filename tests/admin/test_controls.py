"""What the operator controls in the admin: an endpoint's mode, limits and prices; and what he sees of them."""

from typing import Any

import pytest
from django.db.models import Model
from django.db.models.functions import Now
from django.test import Client as Browser
from django.urls import reverse

from accounts.models import ApiKey, Tenant
from jobs import waits
from jobs.models import Endpoint, Grant, Job, Overflow
from tests.admin.rows import no_rows, page_url
from tests.cast import Client, new_client, new_place


@pytest.fixture
def acme() -> Client:
    return new_client(new_place(), "acme")


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The endpoints whose waiting workers were woken."""
    found: list[int] = []
    for module in ("jobs.endpoints", "jobs.admin.fleet"):
        monkeypatch.setattr(f"{module}.wake_endpoint", lambda endpoint, backend: found.append(endpoint))
    return found


def save(browser: Browser, row: Model, given: dict[str, Any], *inlines: str) -> None:
    answered = browser.post(page_url(row), given | no_rows(*inlines))
    assert answered.status_code == 302, answered.content.decode()[-3000:]


def test_a_mode_saved_in_the_form_wakes_who_waits(browser: Browser, acme: Client, woken: list[int]) -> None:
    endpoint = acme.place.endpoint
    controls = {"mode": "paused", "message": "New disks.", "max_running": 3, "max_queued": 50}
    given = {"backend": "fleet", "dialect": "raw", "prefetch": 1, **controls}
    save(browser, endpoint, given, "grants", "worker_keys", "runpod", "overflows")
    endpoint.refresh_from_db()
    assert (endpoint.mode, endpoint.message, endpoint.max_running, endpoint.max_queued) == (
        "paused",
        "New disks.",
        3,
        50,
    )
    assert woken == [endpoint.pk]


def test_where_else_its_jobs_run_and_what_it_may_cost_is_on_its_page(browser: Browser, acme: Client) -> None:
    endpoint, other, own = acme.place.endpoint, new_place().endpoint, new_place("hearth").endpoint
    given = {"backend": "fleet", "dialect": "raw", "prefetch": 1, "mode": "open", "cost_a_month": "99.50"}
    given |= no_rows("grants", "worker_keys", "runpod") | {"overflows-TOTAL_FORMS": 1, "overflows-INITIAL_FORMS": 0}
    way = {"overflows-0-position": 1, "overflows-0-unhealthy": "on", "overflows-0-wait_s": 60}
    way |= {"overflows-0-endpoint": endpoint.pk, "overflows-0-share_percent": 0}
    refused = browser.post(page_url(endpoint), given | way | {"overflows-0-to": own.pk})
    assert "only raw can stand for raw" in refused.content.decode()
    assert browser.post(page_url(endpoint), given | way | {"overflows-0-to": other.pk}).status_code == 302
    endpoint.refresh_from_db()
    assert str(endpoint.cost_a_month) == "99.50"
    made = Overflow.objects.get(endpoint=endpoint)
    assert (made.to, made.wait_s, made.unhealthy, made.throttled) == (other, 60, True, False)
    made.delete()


def test_stand_ins_are_on_no_page(browser: Browser, acme: Client) -> None:
    """They are made and kept by the sweeper."""
    other = new_place().endpoint
    stand_in = Grant.all_tenants.create(tenant=acme.tenant, endpoint=other, overflow_of=acme.grant)
    assert browser.get(page_url(stand_in)).status_code == 302
    assert str(acme.tenant) not in browser.get(page_url(other)).content.decode()
    job = acme.submit()
    Job.all_tenants.filter(pk=job.uuid).update(grant=stand_in, state="CANCELLED", finished_at=Now())
    browser.post(page_url(acme.grant, "delete"), {"post": "yes"})
    assert Grant.all_tenants.filter(pk=acme.grant.pk).exists()
    Job.all_tenants.filter(pk=job.uuid).delete()
    browser.post(page_url(acme.grant, "delete"), {"post": "yes"})
    assert not Grant.all_tenants.filter(pk__in=[acme.grant.pk, stand_in.pk]).exists()


@pytest.mark.parametrize(("action", "mode"), [("pause", "paused"), ("drain", "draining"), ("open", "open")])
def test_modes_are_set_for_many_at_once(browser: Browser, woken: list[int], action: str, mode: str) -> None:
    endpoints = [new_place().endpoint for _ in range(2)]
    chosen = {"action": f"{action}_selected", "_selected_action": [endpoint.pk for endpoint in endpoints]}
    browser.post(reverse("admin:jobs_endpoint_changelist"), chosen)
    assert {Endpoint.objects.get(pk=endpoint.pk).mode for endpoint in endpoints} == {mode}
    assert sorted(woken) == [endpoint.pk for endpoint in endpoints]


def test_an_endpoint_says_when_it_is_drained(browser: Browser, acme: Client) -> None:
    url = reverse("admin:jobs_endpoint_change", args=[acme.place.endpoint.pk])
    assert "yes: nothing is queued or running" in browser.get(url).content.decode()
    acme.submit()
    assert "no: 1 queued, 0 running" in browser.get(url).content.decode()


def test_limits_of_a_tenant_and_a_key_are_saved(browser: Browser, acme: Client) -> None:
    key = ApiKey.all_tenants.get(tenant=acme.tenant)
    given = {"name": acme.tenant.name, "max_queued": 9, "cost_a_month": "12.50", "max_stored_bytes": 10**12}
    save(browser, acme.tenant, given, "api_keys", "grants", "members", "buckets", "webhooks")
    save(browser, key, {"scopes": ["run"], "requests_per_10s": 50, "gpu_s_a_month": 3600})
    tenant = Tenant.objects.get(pk=acme.tenant.pk)
    assert (tenant.max_queued, str(tenant.cost_a_month), tenant.max_stored_bytes) == (9, "12.50", 10**12)
    key.refresh_from_db()
    assert (key.requests_per_10s, key.gpu_s_a_month, key.max_queued) == (50, 3600, None)


def test_a_grants_price_is_saved_and_its_clock_left_alone(browser: Browser, acme: Client) -> None:
    Grant.all_tenants.filter(pk=acme.grant.pk).update(clock=77.0, turn=70.0)
    save(browser, acme.grant, {"price": "0.25", "weight": "2"})
    grant = Grant.all_tenants.get(pk=acme.grant.pk)
    assert (str(grant.price), grant.weight, grant.clock, grant.turn) == ("0.250000", 2.0, 77.0, 70.0)


def test_a_grant_saved_by_hand_leaves_its_clock_alone(acme: Client) -> None:
    """Whoever holds a row that was read before a claim."""
    Grant.all_tenants.filter(pk=acme.grant.pk).update(clock=77.0)
    acme.grant.weight = 3.0
    acme.grant.save()
    grant = Grant.all_tenants.get(pk=acme.grant.pk)
    assert (grant.weight, grant.clock) == (3.0, 77.0)


def test_a_queued_jobs_page_says_why_it_waits(browser: Browser, acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "FRESH_S", 0.0)
    url = reverse("admin:jobs_job_change", args=[acme.submit().uuid])
    assert "No worker has served this endpoint yet." in browser.get(url).content.decode()
    acme.place.worker().take_one()
    assert "No worker has served" not in browser.get(url).content.decode()
