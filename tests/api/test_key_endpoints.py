"""A key that is limited to some endpoints: at all others, and at their jobs and files, it is as one of a stranger's."""

from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, transaction

from accounts import sql
from accounts.models import ApiKey
from jobs.models import Grant, Usage
from storage.models import Asset
from tests.api.v1 import V1
from tests.cast import Client, new_client, new_place
from tests.wire.api import CALLS, Api, aside, check_refusal, finish, job_of, until


@pytest.fixture
def second(acme: Api) -> Api:
    """acme at another endpoint that it is granted."""
    client, other = acme.client, new_place()
    grant = Grant.all_tenants.create(tenant=client.tenant, endpoint=other.endpoint)
    return Api.of(acme.http, Client(client.tenant, other, grant, client.api_key))


@pytest.fixture
def limited(acme: Api) -> Api:
    """acme by a key for the first endpoint alone."""
    return acme.by(f"Bearer {acme.client.new_key(endpoints=[acme.endpoint])}")


def v1(api: Api) -> V1:
    return V1(api.http, api.client, api.authorization)


def wire(api: Api, method: str, path: str) -> Any:
    return api.call(method, path, {"input": 1} if path.startswith("run") else None)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_endpoint_out_of_its_limit_is_as_one_not_granted(
    second: Api, limited: Api, acme: Api, method: str, path: str
) -> None:
    path = path.format(job=second.run())
    said = check_refusal(wire(limited.at(second.endpoint), method, path), 404, "not_found")
    nowhere = check_refusal(wire(limited.at("nowhere"), method, path), 404, "not_found")
    assert said["error"].replace(second.endpoint, "nowhere") == nowhere["error"]


def test_at_its_own_endpoint_it_does_all_that_another_key_does(acme: Api, limited: Api) -> None:
    job, others = limited.run(), acme.run()
    assert limited.status(job)["status"] == limited.status(others)["status"] == "IN_QUEUE"
    assert limited.get("health").json()["jobs"]["inQueue"] == 2
    assert limited.post(f"cancel/{others}").json()["status"] == "CANCELLED"
    assert limited.post("purge-queue").json()["removed"] == 1


def test_a_job_of_another_endpoint_is_found_by_no_call(second: Api, limited: Api) -> None:
    job = second.run()
    for method, path in [("GET", f"jobs/{job}"), ("POST", f"jobs/{job}/cancel"), ("POST", f"jobs/{job}/retry")]:
        v1(limited).refused(404, "not_found", method, path)
    v1(limited).refused(404, "not_found", "GET", f"jobs/{job}/events")
    v1(limited).refused(404, "not_found", "DELETE", f"jobs/{job}")
    check_refusal(limited.get(f"status/{job}"), 404, "not_found")
    assert second.status(job)["status"] == "IN_QUEUE"


def test_that_one_of_another_endpoint_lost_its_payload_is_not_told_either(second: Api, limited: Api) -> None:
    job = second.run()
    finish(second, second.take())
    sql.run("UPDATE jobs_job SET payload_gone_at = clock_timestamp() WHERE id = %s", [job_of(job).uuid])
    v1(second).refused(410, "gone", "POST", f"jobs/{job}/retry")
    v1(limited).refused(404, "not_found", "POST", f"jobs/{job}/retry")
    check_refusal(limited.at(second.endpoint).get(f"status/{job}"), 404, "not_found")


def test_lists_have_what_is_of_its_endpoints(acme: Api, second: Api, limited: Api) -> None:
    own, _ = acme.run(), second.run()
    assert [job["id"] for job in v1(limited).get("jobs")["results"]] == [own]
    assert v1(limited).get("jobs", endpoint=second.endpoint)["results"] == []
    assert len(v1(acme).get("jobs")["results"]) == 2
    assert [one["name"] for one in v1(limited).get("endpoints")["results"]] == [acme.endpoint]
    v1(limited).refused(404, "not_found", "GET", f"endpoints/{second.endpoint}")
    assert v1(limited).get("me")["key"]["endpoints"] == [acme.endpoint]


def test_usage_is_that_of_its_endpoints(acme: Api, second: Api, limited: Api) -> None:
    for grant in Grant.all_tenants.filter(tenant=acme.client.tenant):
        Usage.all_tenants.create(tenant=grant.tenant, endpoint=grant.endpoint, day="2026-03-01", gpu_ms=7)
    assert {used["endpoint"] for used in v1(acme).get("usage", month="2026-03")["results"]} == {
        acme.endpoint,
        second.endpoint,
    }
    assert [used["endpoint"] for used in v1(limited).get("usage", month="2026-03")["results"]] == [acme.endpoint]


def test_files_of_jobs_elsewhere_are_not_there_and_uploads_are(acme: Api, second: Api, limited: Api) -> None:
    free, here, there = (v1(acme).upload(bytes([n]) * 9)["id"] for n in range(3))
    for asset, job in ((here, acme.run()), (there, second.run())):
        Asset.all_tenants.filter(pk=asset).update(job_id=job_of(job).uuid, source="output")
    assert {one["id"] for one in v1(limited).get("assets")["results"]} == {free, here}
    assert v1(limited).get(f"assets/{here}")["id"] == here
    for method, path in (("GET", there), ("DELETE", there), ("POST", f"{there}/complete")):
        v1(limited).refused(404, "not_found", method, f"assets/{path}")
    assert v1(acme).get(f"assets/{there}")["id"] == there
    said = check_refusal(limited.post("run", {"input": f"asset:{there}"}), 400, "invalid_input")
    assert "not an asset of yours" in said["error"]
    assert limited.run(f"asset:{here}")
    announced = v1(limited).call("POST", "assets", json={"name": "a", "bytes": 1, "sha256": "0" * 64}).json()
    assert v1(limited).call("DELETE", f"assets/{announced['id']}").status_code == 204


def test_a_limit_is_given_changed_and_kept_by_a_roll(acme: Api, second: Api, manager: V1) -> None:
    made = manager.call("POST", "keys", json={"scopes": ["run", "read"], "endpoints": [acme.endpoint] * 2}).json()
    assert made["endpoints"] == [acme.endpoint]
    by = acme.by(f"Bearer {made['key']}")
    assert by.run()
    check_refusal(by.at(second.endpoint).post("run", {"input": 1}), 404, "not_found")
    rolled = manager.call("POST", f"keys/{made['prefix']}/roll", json={}).json()
    assert rolled["endpoints"] == [acme.endpoint]
    changed = manager.call("PATCH", f"keys/{made['prefix']}", json={"endpoints": [second.endpoint]}).json()
    assert changed["endpoints"] == [second.endpoint]
    check_refusal(by.post("run", {"input": 1}), 404, "not_found")
    manager.call("PATCH", f"keys/{made['prefix']}", json={"endpoints": []})
    assert by.run(), "what a process knows of a key from before is no reason to refuse"


def test_a_limit_holds_at_once_though_a_process_keeps_who_calls(acme: Api, limited: Api, second: Api) -> None:
    job = limited.run()
    ApiKey.all_tenants.filter(tenant=acme.client.tenant).update(endpoints=[second.endpoint])
    check_refusal(limited.post("run", {"input": 1}), 404, "not_found")
    check_refusal(limited.get(f"status/{job}"), 404, "not_found")
    check_refusal(limited.post(f"cancel/{job}"), 404, "not_found")
    check_refusal(limited.get("health"), 404, "not_found")


def test_an_endpoint_that_is_not_granted_is_no_limit(manager: V1, acme: Api) -> None:
    strangers = new_client(new_place(), "globex").place.name
    for name in (strangers, "", "x" * 63, "a\\"):
        body = {"scopes": ["run"], "endpoints": [acme.endpoint, name]}
        said = manager.refused(400, "bad_request", "POST", "keys", json=body)
        assert "`endpoints`" in said
        assert name == "" or f"Yours are: {acme.endpoint}." in said
    for wrong in (acme.endpoint, {"a": 1}, [None], None, ["x" * 64], [["a"]]):
        assert "`endpoints`" in manager.refused(
            400, "bad_request", "POST", "keys", json={"scopes": ["run"], "endpoints": wrong}
        )


def test_what_may_make_keys_has_no_limit(acme: Api, manager: V1) -> None:
    only = {"endpoints": [acme.endpoint]}
    said = manager.refused(400, "bad_request", "POST", "keys", json={"scopes": ["read", "manage"]} | only)
    assert "could lift its own limit" in said
    prefix = manager.call("POST", "keys", json={"scopes": ["read"]} | only).json()["prefix"]
    manager.refused(400, "bad_request", "PATCH", f"keys/{prefix}", json={"scopes": ["manage"]})
    assert manager.get(f"keys/{prefix}")["scopes"] == ["read"]
    with pytest.raises(IntegrityError, match="key_with_limit_manages_nothing"), transaction.atomic():
        ApiKey.all_tenants.filter(prefix=prefix).update(scopes=["manage"])


WAIT_FOR_IT = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


def test_of_two_changes_that_exclude_each_other_one_is_refused(acme: Api, manager: V1, database: str) -> None:
    key = manager.call("POST", "keys", json={"scopes": ["read"]}).json()["prefix"]
    changes = ({"scopes": ["manage"]}, {"endpoints": [acme.endpoint]})
    with psycopg.connect(database) as holding:
        holding.execute("SELECT 1 FROM accounts_apikey WHERE prefix = %s FOR UPDATE", [key])
        pid = holding.info.backend_pid
        answers = [aside(manager.call, "PATCH", f"keys/{key}", json=change) for change in changes]
        until(lambda: sql.one(WAIT_FOR_IT, [pid])[0] >= 1, 30)
    found = sorted(answer.result(30).status_code for answer in answers)
    assert found == [200, 400]
    row = ApiKey.all_tenants.get(prefix=key)
    assert not (row.endpoints and "manage" in row.scopes)


def test_globexs_key_for_the_same_endpoint_sees_nothing_of_acmes(acme: Api, globex: Api) -> None:
    job = acme.run()
    by = globex.by(f"Bearer {globex.client.new_key(endpoints=[acme.endpoint])}")
    check_refusal(by.get(f"status/{job}"), 404, "not_found")
    assert v1(by).get("jobs")["results"] == []
    v1(by).refused(404, "not_found", "GET", f"jobs/{job}")
