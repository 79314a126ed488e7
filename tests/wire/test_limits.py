"""What a caller may do at most: requests in 10 s, queued jobs, GPU time and cost of a month, stored bytes (rule 23)."""

import re
from decimal import Decimal
from typing import Any

import httpx
import pytest

from accounts import sql
from accounts.models import ApiKey, Tenant
from jobs.models import Endpoint, Grant, Usage
from storage.models import Blob
from tests.cast import Client, new_client, new_place
from tests.wire.api import Api, check_refusal, finish, until, whole_window


def limited(http: httpx.Client, *, of_key: bool = False, **limits: Any) -> Api:
    """A new tenant with these limits: what the web process knows of others it keeps for some seconds."""
    client = new_client(new_place())
    rows: Any = (
        ApiKey.all_tenants.filter(tenant=client.tenant) if of_key else Tenant.objects.filter(pk=client.tenant.pk)
    )
    rows.update(**limits)
    return Api.of(http, client)


def statuses(api: Api, n: int, path: str = "health") -> list[int]:
    return [api.get(path).status_code for _ in range(n)]


# requests in 10 s


@pytest.mark.parametrize("of_key", [False, True])
def test_what_is_over_the_rate_is_429_and_says_when_to_come_again(http: httpx.Client, of_key: bool) -> None:
    api = limited(http, of_key=of_key, requests_per_10s=5)
    whole_window()
    assert statuses(api, 5) == [200] * 5
    refused = api.get("health")
    body = check_refusal(refused, 429, "rate_limited")
    assert "may make 5 `health` requests in 10 s" in body["error"]
    assert ("API key hth_" if of_key else f"Tenant '{api.client.tenant.name}'") in body["error"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 10


def test_headers_tell_what_is_left(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=40)
    whole_window()
    seen = [api.get("health").headers for _ in range(4)]
    assert {headers["RateLimit-Policy"] for headers in seen} == {'"health";q=40;w=10'}
    told = [re.fullmatch(r'"health";r=(\d+);t=(\d+)', headers["RateLimit"]) for headers in seen]
    assert [int(found[1]) for found in told if found] == [39, 38, 37, 36]
    assert all(found and 1 <= int(found[2]) <= 10 for found in told)


def test_runpods_numbers_are_the_usual_ones(acme: Api) -> None:
    whole_window()
    answers = [acme.post("purge-queue") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert acme.get("requests").headers["RateLimit-Policy"] == '"requests";q=10;w=10'
    assert acme.get("health").status_code == 200


def test_each_kind_of_request_and_each_endpoint_has_its_own_number(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=2)
    elsewhere = new_place()
    Grant.all_tenants.create(tenant=api.client.tenant, endpoint=elsewhere.endpoint)
    whole_window()
    assert statuses(api, 3) == [200, 200, 429]
    assert api.get("requests").status_code == 200
    assert api.at(elsewhere.name).get("health").status_code == 200


def test_a_keys_own_limit_is_beside_its_tenants(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=6)
    second = api.by(f"Bearer {api.client.new_key(requests_per_10s=2)}")
    whole_window()
    assert statuses(second, 3) == [200, 200, 429]
    assert statuses(api, 5) == [200] * 4 + [429]
    assert second.get("requests").headers["RateLimit-Policy"] == '"requests-key";q=2;w=10, "requests";q=6;w=10'


def test_who_has_not_the_key_uses_up_nothing(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=3)
    whole_window()
    prefix = api.client.api_key.rsplit("_", 1)[0]
    assert {statuses(api.by(f"Bearer {prefix}_{n:043}"), 1)[0] for n in range(6)} == {401}
    assert statuses(api, 3) == [200] * 3


def test_a_refused_request_is_429_before_its_body_is_judged(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=1)
    whole_window()
    assert api.post("run", {"input": 1}).status_code == 200
    assert api.post("run", b"{" * 100_000).status_code == 429


def test_a_wrong_request_counts_and_tells_what_is_left(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=20)
    whole_window()
    assert "r=19" in api.post("run", b"{").headers["RateLimit"]


def test_workers_are_not_limited(http: httpx.Client) -> None:
    api = limited(http, requests_per_10s=1)
    url, headers = f"/v2/{api.endpoint}/ping/w1", {"Authorization": api.place.worker_key}
    assert {http.get(url, headers=headers).status_code for _ in range(5)} == {200}


# queued jobs


@pytest.mark.parametrize("of_key", [False, True])
def test_a_full_queue_takes_no_more_until_there_is_room(http: httpx.Client, of_key: bool) -> None:
    api = limited(http, of_key=of_key, max_queued=3)
    jobs = [api.run() for _ in range(3)]
    body = check_refusal(api.post("run", {"input": 1}), 429, "queue_full")
    assert "has 3 queued jobs, which is its limit" in body["error"]
    assert int(api.post("run", {"input": 1}).headers["Retry-After"]) >= 1
    api.post(f"cancel/{jobs[0]}")
    until(lambda: api.post("run", {"input": 1}).status_code == 200, 5)
    assert api.post("run", {"input": 1}).status_code == 429


def test_another_keys_jobs_are_not_counted(http: httpx.Client) -> None:
    api = limited(http, of_key=True, max_queued=1)
    second = api.by(f"Bearer {api.client.new_key()}")
    api.run()
    assert api.post("run", {"input": 1}).status_code == 429
    assert second.post("run", {"input": 1}).status_code == 200


def test_an_endpoints_queue_is_all_tenants(http: httpx.Client) -> None:
    place = new_place(max_queued=2)
    first, second = (Api.of(http, new_client(place)) for _ in range(2))
    first.run()
    second.run()
    body = check_refusal(first.post("run", {"input": 1}), 429, "endpoint_queue_full")
    assert "2 queued jobs of all tenants" in body["error"]


@pytest.mark.parametrize(
    ("of", "said"),
    [("tenant", "has 1 queued job, which"), ("key", "1 queued job,"), ("endpoint", "1 queued job of all tenants,")],
)
def test_a_full_queues_pace_is_the_estimate(http: httpx.Client, of: str, said: str) -> None:
    if of == "endpoint":
        api = Api.of(http, new_client(new_place(max_queued=1)))
    else:
        api = limited(http, of_key=of == "key", max_queued=1)
    for _ in range(6):
        api.run()
        finish(api, api.take())
    api.run()
    refused = api.post("run", {"input": 1})
    error = check_refusal(refused, 429, "endpoint_queue_full" if of == "endpoint" else "queue_full")["error"]
    assert said in error
    assert "room in about 10 s" in error
    assert refused.headers["Retry-After"] == "10"


def test_a_retry_needs_room_too(http: httpx.Client) -> None:
    api = limited(http, max_queued=1)
    job = api.run()
    finish(api, api.take(), error="boom")
    api.run()
    assert api.post(f"retry/{job}").status_code == 429


def test_a_replay_is_answered_though_the_queue_is_full(http: httpx.Client) -> None:
    api = limited(http, max_queued=1)
    job = api.once("a").post("run", {"input": 1}).json()["id"]
    assert api.once("b").post("run", {"input": 1}).status_code == 429
    again = api.once("a").post("run", {"input": 1})
    assert (again.status_code, again.json()["id"]) == (200, job)
    check_refusal(api.once("a").post("run", {"input": 2}), 422)


# a month, stored bytes, modes


def used(client: Client, **fields: Any) -> None:
    Usage.all_tenants.create(
        tenant=client.tenant,
        endpoint=client.place.endpoint,
        day=sql.one("SELECT (now() AT TIME ZONE 'UTC')::date")[0],
        api_key=ApiKey.all_tenants.filter(tenant=client.tenant).first(),
        **fields,
    )


@pytest.mark.parametrize("of_key", [False, True])
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"gpu_s_a_month": 10}, "has used 10 GPU-seconds this month; its limit is 10"),
        ({"cost_a_month": Decimal("1.50")}, "has used 1.5 of cost this month; its limit is 1.5"),
    ],
)
def test_a_month_that_is_used_up_says_when_the_next_begins(
    http: httpx.Client, of_key: bool, limit: dict[str, Any], said: str
) -> None:
    api = limited(http, of_key=of_key, **limit)
    used(api.client, gpu_ms=10_000, cost=Decimal("1.5"))
    refused = api.post("run", {"input": 1})
    body = check_refusal(refused, 429, "monthly_limit")
    assert said in body["error"]
    assert re.search(r"The next month begins at \d{4}-\d\d-01T00:00:00Z\.", body["error"])
    assert 0 < int(refused.headers["Retry-After"]) <= 31 * 24 * 3600
    assert api.get("health").status_code == 200


def test_last_months_use_is_forgotten(http: httpx.Client) -> None:
    api = limited(http, gpu_s_a_month=10)
    used(api.client, gpu_ms=10_000)
    Usage.all_tenants.filter(tenant=api.client.tenant).update(day="2020-01-31")
    assert api.post("run", {"input": 1}).status_code == 200


def test_a_full_store_takes_no_more_jobs(http: httpx.Client) -> None:
    api = limited(http, max_stored_bytes=1000)
    kept = {"tenant": api.client.tenant, "sha256": "", "content_type": "image/png", "state": Blob.State.KEPT}
    Blob.all_tenants.create(**kept, key="a", bytes=1000, of_request=True)
    Blob.all_tenants.create(**kept, key="b", bytes=999)
    assert api.post("run", {"input": 1}).status_code == 200
    full = limited(http, max_stored_bytes=1000)
    Blob.all_tenants.create(**kept | {"tenant": full.client.tenant}, key="c", bytes=1000)
    body = check_refusal(full.post("run", {"input": 1}), 429, "storage_full")
    assert "has 1000 bytes of files here; its limit is 1000" in body["error"]


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("paused", 200), ("draining", 503), ("closed", 503)])
def test_an_endpoint_that_drains_takes_no_jobs_and_says_why(http: httpx.Client, mode: str, status: int) -> None:
    place = new_place(mode=mode, message="New disks until noon.")
    api = Api.of(http, new_client(place))
    answered = api.post("run", {"input": 1})
    assert answered.status_code == status
    if status == 503:
        assert "New disks until noon." in check_refusal(answered, 503, "endpoint_closed")["error"]
        assert answered.headers["Retry-After"] == "60"
        Endpoint.objects.filter(pk=place.endpoint.pk).update(mode="open")
        until(lambda: api.post("run", {"input": 1}).status_code == 200, 5)


def test_what_may_run_at_a_time_only_waits(http: httpx.Client) -> None:
    api = limited(http, max_running=1)
    first, second = api.run(), api.run()
    claimed = api.take()
    assert api.place.worker("w2").take() == []
    assert (api.status(first)["status"], api.status(second)["status"]) == ("IN_PROGRESS", "IN_QUEUE")
    finish(api, claimed)
    assert api.take("w2").job
