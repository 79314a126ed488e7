"""/api/v1/keys: a key with the scope `manage` makes, changes, rolls and revokes its tenant's keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts import issuing
from accounts.models import ApiKey
from tests.api.v1 import V1
from tests.wire.api import Api, check_refusal

MANAGE = ["manage"]


@pytest.fixture
def v1(manager: V1) -> V1:
    return manager


@pytest.fixture
def stranger(strange_manager: V1) -> V1:
    return strange_manager


def made(v1: V1, **fields: Any) -> Any:
    answered = v1.call("POST", "keys", json={"scopes": ["run", "read"]} | fields)
    assert answered.status_code == 201, answered.text
    return answered.json()


def test_a_key_is_made_and_shown_once(acme: Api, v1: V1) -> None:
    key = made(v1, name="ci", max_queued=1)
    assert key["key"].startswith(f"hth_{key['prefix']}_")
    job = acme.by(f"Bearer {key['key']}").run()
    assert acme.by(f"Bearer {key['key']}").status(job)["status"] == "IN_QUEUE"
    assert "key" not in v1.get(f"keys/{key['prefix']}")
    assert key["key"][18:] not in v1.call("GET", "keys").text
    check_refusal(acme.by(f"Bearer {key['key']}").post("run", {"input": 1}), 429, "queue_full")


def test_keys_are_listed_newest_first_with_what_they_may(v1: V1) -> None:
    prefixes = [made(v1, name=str(n))["prefix"] for n in range(3)]
    found = v1.get("keys")["results"]
    assert [key["prefix"] for key in found[:3]] == prefixes[::-1]
    assert (found[0]["name"], found[0]["scopes"], found[0]["good"]) == ("2", ["read", "run"], True)


def test_a_key_is_changed(v1: V1) -> None:
    prefix = made(v1, name="old")["prefix"]
    changed = v1.call("PATCH", f"keys/{prefix}", json={"name": "new", "scopes": ["read"], "cost_a_month": "12.50"})
    assert changed.json() == v1.get(f"keys/{prefix}")
    assert (changed.json()["name"], changed.json()["scopes"], changed.json()["cost_a_month"]) == (
        "new",
        ["read"],
        "12.50",
    )


def test_a_rolled_key_goes_on_until_the_overlap_is_over(acme: Api, v1: V1) -> None:
    old = made(v1, name="prod", max_running=3)
    answered = v1.call("POST", f"keys/{old['prefix']}/roll", json={"overlap_s": 600})
    new = answered.json()
    assert (answered.status_code, new["name"], new["max_running"], new["scopes"]) == (201, "prod", 3, old["scopes"])
    for key in (old, new):
        assert acme.by(f"Bearer {key['key']}").get("health").status_code == 200
    ends = datetime.fromisoformat(v1.get(f"keys/{old['prefix']}")["expires_at"])
    assert timedelta(seconds=500) < ends - datetime.now(UTC) <= timedelta(seconds=601)
    at_once = v1.call("POST", f"keys/{new['prefix']}/roll", json={"overlap_s": 0}).json()
    check_refusal(acme.by(f"Bearer {new['key']}").get("requests"), 401, "unauthorized")
    assert acme.by(f"Bearer {at_once['key']}").get("requests").status_code == 200


def test_what_would_expire_sooner_is_not_prolonged_by_an_overlap(v1: V1) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=300)).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = made(v1, expires_at=soon)
    new = v1.call("POST", f"keys/{old['prefix']}/roll", json={}).json()
    assert new["expires_at"] == v1.get(f"keys/{old['prefix']}")["expires_at"] == soon


def test_a_revoked_key_opens_nothing_and_is_not_rolled(acme: Api, v1: V1) -> None:
    key = made(v1)
    for _ in range(2):
        assert v1.call("DELETE", f"keys/{key['prefix']}").status_code == 204
    check_refusal(acme.by(f"Bearer {key['key']}").get("requests"), 401, "unauthorized")
    assert not v1.get(f"keys/{key['prefix']}")["good"]
    v1.refused(409, "key_over", "POST", f"keys/{key['prefix']}/roll", json={})


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"name": "x" * 101},
        {"name": "a\x00"},
        {"max_queued": -1},
        {"max_queued": 2**40},
        {"cost_a_month": "1e99"},
        {"expires_at": "tomorrow"},
    ],
)
def test_what_cannot_be_a_key_is_refused(v1: V1, wrong: dict[str, Any]) -> None:
    body = {"scopes": ["read"]} | wrong
    assert f"`{next(iter(wrong))}`" in v1.refused(400, "bad_request", "POST", "keys", json=body)


def test_there_are_not_too_many(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "MOST_KEYS", 2)
    from accounts.errors import Refused

    tenant = v1.client.tenant.pk
    with pytest.raises(Refused, match="You have 2 keys"):
        issuing.issue(tenant, scopes=["read"])
    issuing.revoke(tenant, v1.client.key.prefix)
    assert issuing.issue(tenant, scopes=["read"])


def test_other_scopes_see_and_make_none(acme: Api) -> None:
    v1 = V1.of(acme.http, acme.client)
    v1.refused(403, "forbidden", "GET", "keys")
    v1.refused(403, "forbidden", "POST", "keys", json={"scopes": ["manage"]})


def test_globex_finds_none_of_acmes(v1: V1, stranger: V1) -> None:
    prefix = made(v1)["prefix"]
    assert prefix not in stranger.call("GET", "keys").text
    stranger.refused(404, "not_found", "GET", f"keys/{prefix}")
    stranger.refused(404, "not_found", "PATCH", f"keys/{prefix}", json={"name": "x"})
    stranger.refused(404, "not_found", "DELETE", f"keys/{prefix}")
    stranger.refused(404, "not_found", "POST", f"keys/{prefix}/roll", json={})
    assert ApiKey.all_tenants.get(prefix=prefix).revoked_at is None
