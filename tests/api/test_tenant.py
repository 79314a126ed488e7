"""/api/v1/me, /endpoints, /usage: who the caller is, what it may use and what it used."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounts.models import Tenant
from jobs.models import Endpoint, Grant, Job
from tests.api.v1 import V1
from tests.cast import new_place
from tests.wire.api import Api, finish


def test_a_key_learns_whose_it_is_and_what_it_may(acme: Api, v1: V1) -> None:
    Tenant.objects.filter(pk=acme.client.tenant.pk).update(max_queued=7, cost_a_month=Decimal("9.50"))
    found = v1.get("me")
    assert (found["tenant"]["name"], found["tenant"]["max_queued"]) == (acme.client.tenant.name, 7)
    assert found["tenant"]["cost_a_month"] == "9.50"
    assert (found["key"]["prefix"], found["key"]["scopes"]) == (acme.client.key.prefix, ["run", "read"])


def test_endpoints_are_those_that_it_may_use(acme: Api, v1: V1, stranger: V1, own_acme: Api) -> None:
    (found,) = v1.get("endpoints")["results"]
    assert (found["name"], found["mode"], found["url"]) == (
        acme.endpoint,
        "open",
        found["url"].rsplit("/v2/")[0] + f"/v2/{acme.endpoint}",
    )
    v1.refused(404, "not_found", "GET", f"endpoints/{own_acme.endpoint}")
    Grant.all_tenants.filter(pk=acme.client.grant.pk).update(price=Decimal("0.002"))
    assert v1.get("endpoints")["results"][0]["price"] == "0.002000"
    assert stranger.get("endpoints")["results"][0]["price"] is None


def test_where_its_jobs_may_overflow_to_is_no_endpoint_of_his(acme: Api, v1: V1) -> None:
    own, other = acme.client.grant, new_place()
    stand_in = {"tenant": own.tenant, "endpoint": other.endpoint, "overflow_of": own}
    made = Grant.all_tenants.create(**stand_in)
    assert [one["name"] for one in v1.get("endpoints")["results"]] == [acme.endpoint]
    v1.refused(404, "not_found", "GET", f"endpoints/{other.name}")
    job = acme.run()
    Job.all_tenants.filter(tenant=own.tenant).update(grant=made)
    (listed,) = v1.get("jobs")["results"]
    assert (listed["id"], listed["endpoint"], listed["place"]) == (job, acme.endpoint, other.name)


def test_one_endpoint_is_told_with_its_health_and_the_operators_message(acme: Api, v1: V1) -> None:
    acme.run()
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(message="New disks.")
    found = v1.get(f"endpoints/{acme.endpoint}")
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(message="")
    assert (found["jobs"]["inQueue"], found["message"]) == (1, "New disks.")
    assert found["jobs"] == acme.get("health").json()["jobs"]


def test_usage_is_told_by_month_and_by_day(acme: Api, v1: V1, stranger: V1) -> None:
    acme.run()
    finish(acme, acme.take())
    month = f"{datetime.now(UTC):%Y-%m}"
    (found,) = v1.get("usage", month=month)["results"]
    assert (found["endpoint"], found["key"], found["completed"]) == (acme.endpoint, acme.client.key.prefix, 1)
    (day,) = v1.get("usage", month=month, daily="true")["results"]
    assert day["day"].startswith(month)
    assert stranger.get("usage", month=month)["results"] == []


@pytest.mark.parametrize("month", ["2026-13", "x", "", "0000-01"])
def test_what_is_no_month_is_refused(v1: V1, month: str) -> None:
    v1.refused(400, "bad_request", "GET", "usage", params={"month": month})
