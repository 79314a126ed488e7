"""POST /api/v1/jobs/<id>/run-again: a new job of a job's request, with the changes that are asked for."""

import json
from typing import Any

import orjson
import pytest
from django.utils import timezone

from accounts import sql
from jobs import again
from jobs.models import Grant, Job, Payload, Workflow
from storage.models import Bucket
from tests.api.v1 import V1
from tests.cast import WORKFLOW, new_place
from tests.wire.api import Api, check_refusal, finish, job_of, job_row, nothing_stored
from tests.workflows.graphs import store

OWN_BUCKET = {"endpointUrl": "https://s3.example.com/b", "accessId": "AK", "accessSecret": "s3cr3t", "bucketName": "b"}


def ran_again(v1: V1, job: str, changes: Any = None, headers: Any = None, **params: Any) -> str:
    answered = v1.call("POST", f"jobs/{job}/run-again", json=changes, headers=headers or {}, params=params or None)
    assert answered.status_code == 200, answered.text
    assert answered.json().keys() == {"id", "status"}
    return str(answered.json()["id"])


def told(v1: V1, job: str) -> Any:
    return v1.get(f"jobs/{job}", input="true")


@pytest.fixture
def own_v1(own_acme: Api) -> V1:
    return V1.of(own_acme.http, own_acme.client)


def test_it_is_a_new_job_of_the_same_request(acme: Api, v1: V1) -> None:
    hook = "https://127.0.0.1/hook"
    policy = {"ttl": 50_000, "executionTimeout": 7_000, "priority": 3}
    job = acme.run({"n": 1.50, "a": None}, webhook=hook, policy=policy, metadata={"customer": 42})
    finish(acme, acme.take())
    new = ran_again(v1, job)
    assert new != job
    old_row, row = job_row(job), job_row(new)
    assert bytes(row.payload.input) == bytes(old_row.payload.input)
    assert (row.payload.webhook, row.priority, row.ttl_ms, row.execution_timeout_ms) == (hook, 3, 50_000, 7_000)
    assert (row.state, old_row.state) == ("IN_QUEUE", "COMPLETED")
    assert told(v1, new)["metadata"] == {"customer": 42}


def test_both_jobs_tell_of_each_other(acme: Api, v1: V1) -> None:
    job = acme.post("runsync", {"input": 1}, wait=1000).json()["id"]
    first, second = ran_again(v1, job), ran_again(v1, job)
    assert told(v1, first)["run_again_of"] == job
    assert told(v1, job)["run_again_as"] == [second, first]
    assert (told(v1, job)["run_again_of"], told(v1, first)["run_again_as"]) == (None, [])
    assert [one["run_again_of"] for one in v1.get("jobs")["results"]] == [job, job, None]
    v1.call("DELETE", f"jobs/{first}")
    assert told(v1, job)["run_again_as"] == [second]
    v1.call("DELETE", f"jobs/{job}")
    assert told(v1, second)["run_again_of"] == job


def test_changes_are_a_merge_patch_of_the_whole_request(own_acme: Api, own_v1: V1) -> None:
    given = {"workflow": WORKFLOW, "tobase64": True, "preview": True}
    job = own_acme.run(given, webhook="https://127.0.0.1/a", policy={"ttl": 50_000, "priority": 3}, metadata={"a": 1})
    changes = {
        "input": {"workflow": {"1": {"inputs": {"color": 255}}}, "preview": None, "output_format": "webp"},
        "webhook": "https://127.0.0.1/b",
        "policy": {"priority": None, "executionTimeout": 9_000},
        "metadata": {"a": None, "trial": 2},
    }
    new = ran_again(own_v1, job, changes)
    workflow = json.loads(json.dumps(WORKFLOW))
    workflow["1"]["inputs"]["color"] = 255
    found, row = told(own_v1, new), job_row(new)
    assert found["input"] == {"workflow": workflow, "tobase64": True, "output_format": "webp"}
    assert (found["priority"], row.ttl_ms, row.execution_timeout_ms) == (0, 50_000, 9_000)
    assert (row.payload.webhook, found["metadata"]) == ("https://127.0.0.1/b", {"trial": 2})
    assert told(own_v1, job)["input"] == given


def test_a_workflow_that_came_as_text_is_changed_by_node_too(own_acme: Api, own_v1: V1) -> None:
    job = own_acme.run({"workflow": json.dumps(WORKFLOW)})
    new = ran_again(own_v1, job, {"input": {"workflow": {"2": {"inputs": {"filename_prefix": "x"}}}}})
    workflow = told(own_v1, new)["input"]["workflow"]
    assert (workflow["1"], workflow["2"]["inputs"]["filename_prefix"]) == (WORKFLOW["1"], "x")


def test_a_stored_workflow_is_run_by_its_name_again_with_its_parameters(own_acme: Api, own_v1: V1) -> None:
    workflow = store(own_acme.client.tenant)
    job = own_acme.run({"workflow": "portrait", "params": {"prompt": "a dog"}, "tobase64": True})
    params = told(own_v1, job)["params"]
    new = told(own_v1, ran_again(own_v1, job, {"input": {"params": {"steps": 30, "negative": None}}}))
    assert (new["workflow"], new["params"]) == ("portrait@1", params | {"steps": 30})
    assert new["input"]["workflow"]["3"]["inputs"]["steps"] == 30
    drawn = told(own_v1, ran_again(own_v1, job, {"input": {"params": {"seed": None}}}))["params"]["seed"]
    assert drawn != params["seed"]
    of_nodes = told(own_v1, ran_again(own_v1, job, {"input": {"workflow": {"6": {"inputs": {"text": "a cat"}}}}}))
    assert (of_nodes["workflow"], of_nodes["input"]["workflow"]["6"]["inputs"]["text"]) == (None, "a cat")
    wrong = own_v1.call("POST", f"jobs/{job}/run-again", json={"input": {"params": {"steps": 99}}})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_params")
    Workflow.all_tenants.filter(pk=workflow.pk).update(archived_at=timezone.now())
    graph = told(own_v1, ran_again(own_v1, job))
    assert (graph["workflow"], graph["input"]) == (None, told(own_v1, job)["input"])


@pytest.mark.parametrize(
    ("target", "patch", "made"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_patch_is_the_rfcs(target: Any, patch: Any, made: Any) -> None:
    assert again.merged(target, patch) == made


def test_it_is_checked_as_run_checks(own_acme: Api, own_v1: V1) -> None:
    job = own_acme.run({"workflow": WORKFLOW})
    path = f"jobs/{job}/run-again"
    wrong: list[tuple[Any, str]] = [
        ({"input": {"workflow": {"1": {"class_type": None}}}}, "invalid_workflow"),
        ({"input": None}, "no_input"),
        ({"policy": {"ttl": 1}}, "invalid_policy"),
        ({"webhook": "http://10.0.0.1/"}, "invalid_webhook"),
        ({"metadata": {"a": {}}}, "invalid_metadata"),
        ({"storage": "none"}, "unknown_bucket"),
        ({"changes": {"1.inputs.color": 3}}, "invalid_changes"),
        ([1], "invalid_json"),
    ]
    with nothing_stored():
        for changes, code in wrong:
            own_v1.refused(400, code, "POST", path, json=changes)
        own_v1.refused(400, "invalid_json", "POST", path, content=b"{")
    assert "'changes'" in own_v1.refused(400, "invalid_changes", "POST", path, json={"changes": 1})


def test_the_tenants_limits_hold(acme: Api, v1: V1) -> None:
    acme.client.tenant.max_queued = 1
    acme.client.tenant.save()
    job = acme.run()
    v1.refused(429, "queue_full", "POST", f"jobs/{job}/run-again")
    assert v1.call("POST", f"jobs/{job}/cancel").status_code == 200


def test_sent_twice_with_a_key_it_is_run_once(acme: Api, v1: V1) -> None:
    job, other = acme.run(), acme.run()
    once = {"Idempotency-Key": "k"}
    new = ran_again(v1, job, {"metadata": {"a": 1}}, once)
    twice = v1.call("POST", f"jobs/{job}/run-again", json={"metadata": {"a": 1}}, headers=once)
    assert (twice.json()["id"], twice.headers["Idempotency-Replayed"]) == (new, "true")
    for path, changes in ((f"jobs/{other}/run-again", {"metadata": {"a": 1}}), (f"jobs/{job}/run-again", {})):
        v1.refused(422, "idempotency_key_reused", "POST", path, json=changes, headers=once)
    assert Job.objects.of(acme.client.tenant).count() == 3


def test_it_may_run_at_another_endpoint(acme: Api, v1: V1) -> None:
    place = new_place()
    job = acme.run({"n": 1})
    v1.refused(404, "not_found", "POST", f"jobs/{job}/run-again", params={"endpoint": place.name})
    Grant.all_tenants.create(tenant=acme.client.tenant, endpoint=place.endpoint)
    new = ran_again(v1, job, endpoint=place.name)
    assert (told(v1, new)["endpoint"], told(v1, new)["input"]) == (place.name, {"n": 1})


def test_without_its_input_it_is_gone(acme: Api, v1: V1) -> None:
    job = acme.run()
    finish(acme, acme.take())
    sql.run("UPDATE jobs_job SET payload_gone_at = '2026-01-02T03:04:05Z' WHERE id = %s", [job_of(job).uuid])
    assert "2026-01-02" in v1.refused(410, "gone", "POST", f"jobs/{job}/run-again")


def test_its_bucket_stays_its_bucket(own_acme: Api, own_v1: V1) -> None:
    own = {"endpoint_url": "https://s3.example.com", "access_key_id": "AK", "s3_bucket": "b"}
    Bucket.all_tenants.create(tenant=own_acme.client.tenant, name="prod", **own)
    job = own_acme.run({"workflow": WORKFLOW}, storage="prod")
    Bucket.all_tenants.create(tenant=own_acme.client.tenant, name="usual", is_default=True, **own)
    buckets = [job_row(ran_again(own_v1, job, changes)).bucket for changes in ({}, {"storage": None})]
    assert [bucket and bucket.name for bucket in buckets] == ["prod", "usual"]


def test_a_bucket_of_the_requests_own_is_used_while_its_secret_is_kept(own_acme: Api, own_v1: V1) -> None:
    job = own_acme.run({"workflow": WORKFLOW, "tobucket": OWN_BUCKET})
    made = job_row(ran_again(own_v1, job)).payload.request_bucket
    assert orjson.loads(made.unseal()) == OWN_BUCKET
    own_v1.call("POST", f"jobs/{job}/cancel")
    path = f"jobs/{job}/run-again"
    assert "`s3Config`" in own_v1.refused(409, "bucket_unknown", "POST", path, json={"metadata": {"a": 1}})
    assert job_row(ran_again(own_v1, job, {"s3Config": None})).payload.request_bucket is None
    other = OWN_BUCKET | {"bucketName": "other"}
    for changes in ({"s3Config": other}, {"input": {"tobucket": other}}):
        made = job_row(ran_again(own_v1, job, changes)).payload.request_bucket
        assert orjson.loads(made.unseal()) == other


def test_a_request_that_grows_too_large_is_refused(acme: Api, v1: V1) -> None:
    job = acme.run("x")
    row = Payload.objects.get(pk=job_of(job).uuid)
    row.input = b'{"a": "' + b"x" * 20 * 1024**2 + b'"}'
    row.save()
    v1.refused(413, "too_large", "POST", f"jobs/{job}/run-again", json={"input": {"b": 1}})


def test_a_key_of_other_endpoints_neither_runs_it_nor_sees_what_was_made_of_it(acme: Api, v1: V1) -> None:
    there, job = new_place(), acme.run()
    Grant.all_tenants.create(tenant=acme.client.tenant, endpoint=there.endpoint)
    new = ran_again(v1, job, endpoint=there.name)
    only_there, only_here = (
        v1.by(f"Bearer {acme.client.new_key(endpoints=[name])}") for name in (there.name, acme.endpoint)
    )
    only_there.refused(404, "not_found", "POST", f"jobs/{job}/run-again")
    only_there.refused(404, "not_found", "POST", f"jobs/{job}/run-again", params={"endpoint": there.name})
    only_here.refused(404, "not_found", "POST", f"jobs/{job}/run-again", params={"endpoint": there.name})
    assert (told(only_here, job)["run_again_as"], told(v1, job)["run_again_as"]) == ([], [new])


def test_globex_and_who_may_not_run_run_nothing(acme: Api, v1: V1, stranger: V1) -> None:
    job = acme.run()
    reader = v1.by(f"Bearer {acme.client.new_key(scopes=['read'])}")
    with nothing_stored():
        stranger.refused(404, "not_found", "POST", f"jobs/{job}/run-again", json={"input": 2})
        stranger.refused(404, "not_found", "POST", "jobs/nothing/run-again")
        reader.refused(403, "forbidden", "POST", f"jobs/{job}/run-again", json={"input": 2})
        check_refusal(v1.call("GET", f"jobs/{job}/run-again"), 405)
        check_refusal(v1.by("").call("POST", f"jobs/{job}/run-again"), 401)
