"""/api/v1: how often a tenant and a key may ask, as on /v2: 429, Retry-After, RateLimit headers."""

import re
from typing import Any

import httpx
import pytest

from accounts.models import ApiKey, Tenant
from tests.api.v1 import V1
from tests.cast import new_client, new_place
from tests.wire.api import check_refusal, whole_window


def limited(http: httpx.Client, *, of_key: bool = False, **limits: Any) -> V1:
    """A new tenant with these limits: what the web process knows of others it keeps for some seconds."""
    client = new_client(new_place())
    rows: Any = (
        ApiKey.all_tenants.filter(tenant=client.tenant) if of_key else Tenant.objects.filter(pk=client.tenant.pk)
    )
    rows.update(**limits)
    return V1.of(http, client)


def statuses(api: V1, n: int, method: str = "GET", path: str = "assets") -> list[int]:
    return [api.call(method, path).status_code for _ in range(n)]


@pytest.mark.parametrize("of_key", [False, True])
def test_what_is_over_the_rate_is_429_and_says_when_to_come_again(http: httpx.Client, of_key: bool) -> None:
    api = limited(http, of_key=of_key, requests_per_10s=3)
    whole_window()
    assert statuses(api, 3) == [200] * 3
    refused = api.call("GET", "assets")
    said = check_refusal(refused, 429, "rate_limited")["error"]
    assert "may make 3 `api` requests in 10 s. More are taken in" in said
    assert ("API key hth_" if of_key else f"Tenant '{api.client.tenant.name}'") in said
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert refused.headers["RateLimit"].startswith(f'"api{"-key" if of_key else ""}";r=0;t=')


def test_headers_tell_what_is_left_whatever_is_asked(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=40)
    whole_window()
    answers = [
        api.call("GET", "assets"),
        api.call("POST", "assets", content=b"abc", headers={"Content-Type": "image/png"}),
        api.call("GET", "assets/nothing"),
        api.call("PUT", "assets"),
    ]
    assert [answer.status_code for answer in answers] == [200, 201, 404, 405]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"api";q=40;w=10'}
    told = [re.fullmatch(r'"api";r=(\d+);t=(\d+)', answer.headers["RateLimit"]) for answer in answers]
    assert [int(found[1]) for found in told if found] == [39, 38, 37, 36]


def test_a_keys_own_limit_is_beside_its_tenants_and_others_keep_theirs(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=6)
    second = api.by(f"Bearer {api.client.new_key(requests_per_10s=2)}")
    globex = V1.of(http, new_client(api.client.place, "globex"))
    whole_window()
    assert statuses(second, 3) == [200, 200, 429]
    assert statuses(api, 5) == [200] * 4 + [429]
    assert statuses(globex, 2) == [200] * 2


def test_a_key_of_whatever_scope_is_counted(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=2)
    manager = api.by(f"Bearer {api.client.new_key(scopes=['manage'])}")
    whole_window()
    assert statuses(manager, 3, path="keys") == [200, 200, 429]
    assert statuses(api, 1) == [429]


def test_a_refused_upload_is_429_before_its_body_is_looked_at(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=1)
    whole_window()
    assert statuses(api, 1) == [200]
    refused = api.call("POST", "assets", content=b"x" * 40_000_000, headers={"Content-Type": "image/png"})
    check_refusal(refused, 429, "rate_limited")


def test_who_has_not_the_key_uses_up_nothing(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=2)
    whole_window()
    prefix = api.client.api_key.rsplit("_", 1)[0]
    assert {statuses(api.by(f"Bearer {prefix}_{n:043}"), 1)[0] for n in range(4)} == {401}
    assert statuses(api, 2) == [200] * 2


def test_calls_to_an_endpoint_are_counted_by_themselves(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=1)
    whole_window()
    assert statuses(api, 2) == [200, 429]
    health = http.get(f"/v2/{api.client.place.name}/health", headers=api.client.headers)
    assert health.status_code == 200
