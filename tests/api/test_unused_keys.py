"""Keys that nobody uses expire, if the tenant wants it: PATCH /api/v1/me sets after how many days."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import issuing
from accounts.errors import Refused
from accounts.keys import given_key
from accounts.models import ApiKey, Tenant
from jobs.again import in_admin
from jobs.models import Job
from tests.api.v1 import V1
from tests.wire.api import CALLS, Api, check_refusal, job_of


@pytest.fixture
def v1(acme: Api) -> V1:
    key = acme.client.new_key(scopes=["run", "read", "manage"])
    return V1.of(acme.http, acme.client).by(f"Bearer {key}")


def key_of(api: Api, *, used: float | None = None, made: float = 0) -> Api:
    """By a new key that was used, and made, so many days ago."""
    text, now = api.client.new_key(), timezone.now()
    used_at = None if used is None else now - timedelta(days=used)
    ApiKey.all_tenants.filter(prefix=given_key(text).prefix).update(
        created_at=now - timedelta(days=made), last_used_at=used_at
    )
    return api.by(f"Bearer {text}")


def prefix(api: Api) -> str:
    return given_key(api.authorization).prefix


def set_days(v1: V1, days: int | None) -> Any:
    answered = v1.call("PATCH", "me", json={"unused_key_days": days})
    assert answered.status_code == 200, answered.text
    return answered.json()


def test_a_tenant_sets_it_and_reads_it(v1: V1) -> None:
    assert v1.get("me")["tenant"]["unused_key_days"] is None
    told = set_days(v1, 30)
    assert told["tenant"]["unused_key_days"] == 30
    assert told == v1.get("me")
    assert set_days(v1, None)["tenant"]["unused_key_days"] is None


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_key_that_nobody_used_for_so_long_opens_nothing(acme: Api, v1: V1, method: str, path: str) -> None:
    set_days(v1, 30)
    old, path = key_of(acme, used=31, made=90), path.format(job=acme.run())
    said = check_refusal(old.call(method, path, {"input": 1} if "run" in path else None), 401, "unauthorized")
    assert said["error"] == "This API key has expired: nobody used it for 30 days."


def test_the_management_api_and_event_streams_refuse_it_too(acme: Api, v1: V1) -> None:
    set_days(v1, 1)
    old = v1.by(key_of(acme, made=1.1).authorization)
    for path in ("jobs", "me", "assets", f"jobs/{acme.run()}/events"):
        assert "nobody used it for 1 day." in old.refused(401, "unauthorized", "GET", path)


def test_one_that_was_made_or_used_since_goes_on_and_is_used_now(acme: Api, v1: V1) -> None:
    set_days(v1, 30)
    for key in (key_of(acme, used=29.9, made=90), key_of(acme, made=29.9)):
        assert key.run()
        used_at = ApiKey.all_tenants.get(prefix=prefix(key)).last_used_at
        assert used_at
        assert timezone.now() - used_at < timedelta(minutes=5)


def test_it_works_again_once_the_number_is_raised_or_taken_away(acme: Api, v1: V1) -> None:
    for more in (90, None):
        set_days(v1, 30)
        old = key_of(acme, used=60, made=90)
        check_refusal(old.get("health"), 401, "unauthorized")
        set_days(v1, more)
        assert old.get("health").status_code == 200


def test_its_state_says_so_and_it_is_not_rolled(acme: Api, v1: V1) -> None:
    set_days(v1, 30)
    old, revoked = key_of(acme, used=31), key_of(acme, used=31)
    issuing.revoke(acme.client.tenant.pk, prefix(revoked))
    found = v1.get(f"keys/{prefix(old)}")
    assert (found["state"], found["good"]) == ("expired (unused)", False)
    states = {key["prefix"]: key["state"] for key in v1.get("keys")["results"]}
    assert (states[prefix(old)], states[prefix(revoked)]) == ("expired (unused)", "revoked")
    assert states[acme.client.key.prefix] == "active"
    v1.refused(409, "key_over", "POST", f"keys/{prefix(old)}/roll", json={})


def test_it_is_none_of_those_that_there_may_be_so_many_of(acme: Api, v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    key_of(acme, used=31)
    monkeypatch.setattr(issuing, "MOST_KEYS", 3)  # there are that old one, v1's and acme's
    with pytest.raises(Refused):
        issuing.issue(acme.client.tenant.pk, scopes=["read"])
    set_days(v1, 30)
    assert issuing.issue(acme.client.tenant.pk, scopes=["read"])


def test_an_operator_runs_its_job_again_in_the_name_of_a_key_that_is_good(acme: Api, v1: V1) -> None:
    set_days(v1, 30)
    old = key_of(acme)
    job = job_of(old.run())
    then = timezone.now() - timedelta(days=31)
    ApiKey.all_tenants.filter(prefix=prefix(old)).update(created_at=then, last_used_at=then)
    again = in_admin(job.uuid, {})
    assert Job.all_tenants.get(pk=again.uuid).api_key_id != Job.all_tenants.get(pk=job.uuid).api_key_id


def test_who_has_not_the_key_itself_does_not_learn_it(acme: Api, v1: V1) -> None:
    set_days(v1, 30)
    old = key_of(acme, used=31)
    guessed = old.by(f"{old.authorization[:-43]}{'a' * 43}")
    assert check_refusal(guessed.get("health"), 401, "unauthorized")["error"] == "Unknown API key."


@pytest.mark.parametrize("wrong", [{}, *({"unused_key_days": n} for n in (0, -1, 3651, 2**70, "x", 1.5, [1], True))])
def test_what_is_no_number_of_days_is_refused_by_name(v1: V1, wrong: dict[str, Any]) -> None:
    assert "`unused_key_days`" in v1.refused(400, "bad_request", "PATCH", "me", json=wrong)
    assert v1.get("me")["tenant"]["unused_key_days"] is None


def test_it_is_for_a_key_that_manages_and_for_its_own_tenant(acme: Api, v1: V1, globex: Api) -> None:
    for scopes in (["run"], ["read"]):
        by = v1.by(f"Bearer {acme.client.new_key(scopes=scopes)}")
        by.refused(403, "forbidden", "PATCH", "me", json={"unused_key_days": 1})
    set_days(v1, 1)
    theirs = key_of(globex, made=90)
    assert theirs.run(), "globex has set nothing"
    assert Tenant.objects.get(pk=globex.client.tenant.pk).unused_key_days is None


@pytest.mark.parametrize("days", [0, 3651])
def test_the_database_keeps_it_within_its_bounds(acme: Api, days: int) -> None:
    """A number too large for a time would make each look at a key an error."""
    with pytest.raises(IntegrityError, match="tenant_unused_key_days"), transaction.atomic():
        Tenant.objects.filter(pk=acme.client.tenant.pk).update(unused_key_days=days)
