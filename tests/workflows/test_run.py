"""`{"workflow": "portrait@3", "params": {…}}` as an input: resolved when it is submitted, and told of afterwards."""

import copy
import json
from typing import Any

import httpx
import orjson
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.models import Endpoint, Payload
from jobs.wire.bodies import Part
from jobs.workflows import stored
from jobs.workflows.run import load, resolve
from tests.api.v1 import V1
from tests.cast import Client, Place, new_client, new_place
from tests.wire.api import Api, aside, check_refusal, finish, job_of, job_row, nothing_stored, until
from tests.workflows.graphs import PARAMETERS, SIZES, SMALL, TEXT_TO_IMAGE, store


def by_name(name: str = "portrait", **params: Any) -> dict[str, Any]:
    return {"workflow": name, "params": {"prompt": "a dog"} | params}


def input_of(job: str) -> dict[str, Any]:
    """What its worker would get."""
    found: dict[str, Any] = json.loads(bytes(Payload.objects.get(pk=job_of(job).uuid).input))
    return found


def refused(api: Api, given: Any, code: str, path: str = "run") -> dict[str, Any]:
    with nothing_stored():
        answered = api.post(path, {"input": given})
    body: dict[str, Any] = answered.json()
    assert (answered.status_code, body["code"]) == (400, code), body
    return body


def test_the_worker_gets_the_whole_graph_with_the_parameters_in_it(own_acme: Api) -> None:
    workflow = store(own_acme.client.tenant)
    job = own_acme.run(by_name(steps=30, size=256, seed=7) | {"tobase64": True})
    expected = copy.deepcopy(TEXT_TO_IMAGE)
    expected["6"]["inputs"]["text"], expected["7"]["inputs"]["text"] = "a dog", ""
    expected["3"]["inputs"] |= {"steps": 30, "seed": 7}
    expected["5"]["inputs"] |= {"width": 256, "height": 256}
    assert input_of(job) == {"workflow": expected, "tobase64": True}
    assert (job_row(job).workflow_id, job_row(job).workflow_version) == (workflow.pk, 1)
    assert job_row(job).model_hashes, "as of a graph that was sent whole"


def test_its_history_tells_the_version_and_what_the_parameters_were(own_acme: Api) -> None:
    store(own_acme.client.tenant)
    v1 = V1.of(own_acme.http, own_acme.client)
    job, other = own_acme.run(by_name(seed=7)), own_acme.run({"workflow": SMALL})
    told = v1.get(f"jobs/{job}")
    values = {"prompt": "a dog", "negative": "", "steps": 20, "cfg": 8, "sampler": "euler", "size": 512, "seed": 7}
    assert (told["workflow"], told["params"]) == ("portrait@1", values)
    assert v1.get(f"jobs/{other}")["workflow"] is v1.get(f"jobs/{other}")["params"] is None
    drawn = v1.get(f"jobs/{own_acme.run(by_name())}")["params"]["seed"]
    assert isinstance(drawn, int)


def test_a_name_means_its_current_version_and_that_may_be_moved_back(own_acme: Api) -> None:
    tenant = own_acme.client.tenant
    store(tenant, "small", SMALL, SIZES)
    newer = copy.deepcopy(SMALL) | {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    stored.add_version(tenant.pk, "small", newer, SIZES, "a test")
    assert "3" in input_of(own_acme.run({"workflow": "small"}))["workflow"]
    assert "3" not in input_of(own_acme.run({"workflow": "small@1", "params": {}}))["workflow"]
    stored.change(tenant.pk, "small", current=1)
    assert "3" not in input_of(own_acme.run({"workflow": "small"}))["workflow"]
    assert "3" in input_of(own_acme.run({"workflow": "small@2", "params": None}))["workflow"]


def test_jobs_are_listed_by_workflow_and_version_also_after_it_was_renamed_or_deleted(own_acme: Api) -> None:
    tenant, v1 = own_acme.client.tenant, V1.of(own_acme.http, own_acme.client)
    store(tenant, "small", SMALL, SIZES)
    first, _ = own_acme.run({"workflow": "small"}), own_acme.run({"workflow": SMALL})
    stored.add_version(tenant.pk, "small", SMALL, SIZES, "a test")
    second = own_acme.run({"workflow": "small"})

    def listed(workflow: str) -> list[str]:
        return [job["id"] for job in v1.get("jobs", workflow=workflow)["results"]]

    assert [listed("small"), listed("small@1"), listed("small@9")] == [[second, first], [first], []]
    stored.change(tenant.pk, "small", new_name="large")
    assert (listed("large@2"), listed("small")) == ([second], [])
    stored.remove(tenant.pk, "large")
    assert listed("large") == [second, first]
    assert v1.get(f"jobs/{first}")["workflow"] == "large@1"
    v1.refused(400, "bad_request", "GET", "jobs?workflow=Large@x")


def test_runsync_completes_by_name(own_acme: Api) -> None:
    store(own_acme.client.tenant, "small", SMALL, SIZES)
    answered = aside(own_acme.post, "runsync", {"input": {"workflow": "small", "params": {"size": 16}}})
    claimed = until(own_acme.place.worker("w1").take)[0]
    assert json.loads(claimed.input)["workflow"]["1"]["inputs"]["height"] == 16
    finish(own_acme, claimed, {"ok": 1})
    assert answered.result().json()["status"] == "COMPLETED"


@pytest.mark.parametrize("path", ["run", "runsync"])
def test_all_that_is_wrong_with_the_parameters_is_one_refusal_by_name(own_acme: Api, path: str) -> None:
    store(own_acme.client.tenant)
    body = refused(own_acme, {"workflow": "portrait", "params": {"steps": 99, "nope": 1}}, "invalid_params", path)
    assert list(body["params"]) == ["nope", "prompt", "steps"]
    assert body["params"]["steps"] == [
        {"type": "too_large", "message": "must be a whole number, 1 to 50, not 99", "given": 99}
    ]
    assert "must be an object" in refused(own_acme, {"workflow": "portrait", "params": [1]}, "invalid_params")["error"]


def test_any_number_of_unknown_parameters_is_one_refusal_at_once(own_acme: Api) -> None:
    store(own_acme.client.tenant)
    body = refused(own_acme, by_name(**{f"prompt{n}": n for n in range(100_000)}), "invalid_params")
    assert "And 99999 more faults" in body["error"]
    assert len(body["params"]) == 100


def test_a_value_that_goes_to_many_places_makes_no_job_larger_than_a_request_may_be(own_acme: Api) -> None:
    nodes = {f"n{n}": {"class_type": "CLIPTextEncode", "inputs": {"a": "", "b": ""}} for n in range(50)}
    told = [{"name": each, "type": "string", "paths": [f"{node}.inputs.{each}" for node in nodes]} for each in "ab"]
    store(own_acme.client.tenant, "wide", SMALL | nodes, told)
    with nothing_stored():
        answered = own_acme.post("run", {"input": {"workflow": "wide", "params": dict.fromkeys("ab", "é" * 100_000)}})
    check_refusal(answered, 413, "too_large")


def test_a_name_that_is_not_there_is_refused_with_the_nearest(own_acme: Api) -> None:
    tenant = own_acme.client.tenant
    assert "you have none" in refused(own_acme, by_name(), "unknown_workflow")["error"]
    store(tenant)
    assert 'near: "portrait"' in refused(own_acme, by_name("portrat"), "unknown_workflow")["error"]
    assert "no version 2; its current one is 1" in refused(own_acme, by_name("portrait@2"), "unknown_workflow")["error"]
    assert "you have 1" in refused(own_acme, by_name("null"), "unknown_workflow")["error"]
    for name in ("Portrait", "portrait@0", "portrait@", "por trait", "", "@1", "portrait@1.5"):
        assert "like the name of a stored workflow" in refused(own_acme, by_name(name), "invalid_workflow")["error"]
    stored.change(tenant.pk, "portrait", archived=True)
    assert "archived" in refused(own_acme, by_name("portrait@1"), "unknown_workflow")["error"]
    stored.change(tenant.pk, "portrait", archived=False)
    own_acme.run(by_name())
    stored.remove(tenant.pk, "portrait")
    refused(own_acme, by_name(), "unknown_workflow")


def test_acmes_workflow_is_none_of_globex(http: httpx.Client, own_acme: Api) -> None:
    store(own_acme.client.tenant)
    globex = Api.of(http, new_client(own_acme.place, "globex"))
    assert "you have none" in refused(globex, by_name(), "unknown_workflow")["error"]
    job = own_acme.run(by_name())
    V1.of(http, globex.client).refused(404, "not_found", "GET", f"jobs/{job}")
    assert V1.of(http, globex.client).get("jobs", workflow="portrait")["results"] == []


def test_whoever_has_no_grant_or_key_learns_nothing_of_it(http: httpx.Client, own_acme: Api, place: Place) -> None:
    store(own_acme.client.tenant)
    elsewhere = Api.of(http, new_client(place, "globex")).at(own_acme.endpoint)
    assert elsewhere.post("run", {"input": by_name()}).status_code == 404
    read_only = own_acme.by(f"Bearer {own_acme.client.new_key(scopes=['read'])}")
    assert read_only.post("run", {"input": by_name()}).status_code == 403


def test_sent_twice_it_runs_once_whatever_became_of_the_workflow(own_acme: Api) -> None:
    tenant = own_acme.client.tenant
    store(tenant, "small", SMALL, SIZES)
    once = own_acme.once("a-key")
    job = once.run({"workflow": "small"})
    stored.add_version(tenant.pk, "small", SMALL, [], "a test")
    assert once.run({"workflow": "small"}) == job
    stored.remove(tenant.pk, "small")
    again = once.post("run", {"input": {"workflow": "small"}})
    assert (again.json()["id"], again.headers["Idempotency-Replayed"]) == (job, "true")


def test_an_endpoint_for_any_json_says_that_it_runs_none(acme: Api) -> None:
    job = acme.run(by_name())
    assert input_of(job) == by_name()
    store(acme.client.tenant)
    assert "takes any JSON" in refused(acme, by_name(), "no_stored_workflows")["error"]
    assert input_of(acme.run({"workflow": "portrait"})) == {"workflow": "portrait"}


@pytest.mark.parametrize("dialect", [Endpoint.Dialect.DEKITA, Endpoint.Dialect.WORKER_COMFYUI])
def test_workers_of_others_get_the_graph_too(http: httpx.Client, dialect: str) -> None:
    place = new_place(dialect)
    api = Api.of(http, new_client(place, "acme"))
    store(api.client.tenant, "small", SMALL, SIZES)
    api.run({"workflow": "small", "params": {"prefix": "x"}})
    workflow = json.loads(api.take().input)["workflow"]
    assert workflow["2"]["inputs"] == {"images": ["1", 0], "filename_prefix": "x"}


def test_a_file_parameter_is_an_asset_or_a_file_of_the_request(own_acme: Api) -> None:
    store(own_acme.client.tenant)
    asset = V1.of(own_acme.http, own_acme.client).upload(b"\x89PNG\r\n\x1a\n1")["id"]
    job = own_acme.run(by_name(photo=f"asset:{asset}"))
    assert input_of(job)["workflow"]["10"]["inputs"]["image"] == f"asset:{asset}"
    assert asset in str(job_row(job).payload.inputs)
    brought = own_acme.run(by_name(photo="a.png") | {"files": [{"name": "a.png", "data": "QQ=="}]})
    assert input_of(brought)["workflow"]["10"]["inputs"]["image"] == "a.png"
    unknown = "asset:01a20f1c-0000-7000-8000-000000000000"
    assert "Node 10 (LoadImage)" in refused(own_acme, by_name(photo=unknown), "invalid_input")["error"]
    assert "photo" in refused(own_acme, by_name(photo="https://10.0.0.1/a.png"), "invalid_params")["params"]


def test_a_parameter_cannot_lead_out_of_a_jobs_folder(own_acme: Api) -> None:
    store(own_acme.client.tenant, "small", SMALL, SIZES)
    given = {"workflow": "small", "params": {"prefix": "../../x"}}
    assert "node '2', input 'filename_prefix'" in refused(own_acme, given, "invalid_workflow")["error"]


def test_the_graph_is_held_against_the_node_catalogue(own_acme: Api, http: httpx.Client, tmp_path: Any) -> None:
    from tests.graph.judges import StandinJudge
    from tests.wire.test_workflow_check import post

    assert post(http, own_acme.place, StandinJudge(tmp_path).object_info())[-1] == 200
    store(own_acme.client.tenant, "small", SMALL, [{**SIZES[0], "max": 10**6}])
    body = refused(own_acme, {"workflow": "small", "params": {"size": 99_999}}, "invalid_workflow")
    assert [fault["type"] for fault in body["nodes"]["1"]] == ["value_bigger_than_max"] * 2
    own_acme.run({"workflow": "small"})


def test_a_request_is_one_statement_more_and_a_version_is_read_once(own_place: Place) -> None:
    acme: Client = new_client(own_place)
    store(acme.tenant)
    given = Part(by_name(), orjson.dumps(by_name()))
    load.cache_clear()
    counts = []
    for _ in range(3):
        with CaptureQueriesContext(connection) as queries:
            resolve(acme.tenant.pk, given)
        counts.append(len(queries))
    assert counts == [2, 1, 1]


def test_deleting_the_job_deletes_what_the_parameters_were(own_acme: Api) -> None:
    store(own_acme.client.tenant)
    v1 = V1.of(own_acme.http, own_acme.client)
    job = own_acme.run(by_name(prompt="a secret wish"))
    assert v1.call("DELETE", f"jobs/{job}").status_code == 202
    assert Payload.objects.get(pk=job_of(job).uuid).params is None


def test_the_parameters_of_the_graphs_here_are_sound() -> None:
    assert {one["name"] for one in PARAMETERS} >= {"prompt", "seed", "photo"}
