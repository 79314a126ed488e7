"""A submission is held against the node catalogue of its endpoint: 400 with `nodes`, before any GPU is used."""

import copy
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.models import Worker
from tests.cast import WORKFLOW, Place, new_client
from tests.graph.judges import StandinJudge
from tests.graph.test_recordings import GOLDEN, OTHER_REASON, posted, recorded
from tests.wire.api import Api, nothing_stored
from worker.catalogue import normal


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Those of the stand-in, with models installed."""
    found = StandinJudge(Path(tmp_path_factory.mktemp("standin"))).object_info()
    found["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = ["sdxl_base.safetensors"]
    return found


def post(http: httpx.Client, place: Place, classes: dict[str, Any], **headers: str) -> list[int]:
    """As the worker does: the hash, and then the catalogue if Hearth asks for it. The statuses."""
    body = normal(json.dumps(classes).encode())
    url, headers = f"/v2/{place.name}/catalogue/w1", {"Authorization": place.worker_key} | headers
    offered = http.post(url, json={"sha256": hashlib.sha256(body).hexdigest()}, headers=headers)
    if offered.status_code != 409:
        return [offered.status_code]
    return [409, http.put(url, content=gzip.compress(body), headers=headers).status_code]


@pytest.fixture
def acme(http: httpx.Client, own_place: Place, classes: dict[str, Any]) -> Api:
    """acme at an endpoint whose worker has reported its nodes."""
    post(http, own_place, classes)
    return Api.of(http, new_client(own_place, "acme"))


def changed(**inputs: Any) -> dict[str, Any]:
    """The common workflow with other inputs of its image; None: without that input."""
    workflow = copy.deepcopy(WORKFLOW)
    given = {**workflow["1"]["inputs"], **inputs}  # type: ignore[dict-item]
    workflow["1"]["inputs"] = {name: value for name, value in given.items() if value is not None}
    return workflow


def refused(acme: Api, workflow: Any, path: str = "run") -> dict[str, Any]:
    answered = acme.post(path, {"input": {"workflow": workflow}})
    assert answered.status_code == 400, answered.text
    body: dict[str, Any] = answered.json()
    assert body["code"] == "invalid_workflow"
    return body


def test_the_hash_is_offered_first_and_the_catalogue_sent_once(
    http: httpx.Client, own_place: Place, classes: dict[str, Any]
) -> None:
    assert post(http, own_place, classes) == [409, 200]
    assert post(http, own_place, classes) == [200]
    assert Worker.objects.get(endpoint=own_place.endpoint).catalogue is not None


@pytest.mark.parametrize("path", ["run", "runsync"])
def test_a_wrong_workflow_is_refused_with_its_nodes(acme: Api, path: str) -> None:
    body = refused(acme, changed(width="wide", color=None), path)
    assert body["error"] == 'Node 1 (EmptyImage): input "width" must be INT, not "wide". And 1 more fault: see `nodes`.'
    assert body["nodes"] == {
        "1": [
            {
                "class_type": "EmptyImage",
                "type": "invalid_input_type",
                "input": "width",
                "given": "wide",
                "message": 'input "width" must be INT, not "wide"',
            },
            {
                "class_type": "EmptyImage",
                "type": "required_input_missing",
                "input": "color",
                "message": 'required input "color" is missing',
            },
        ]
    }
    assert acme.get("requests").json() == {"requests": []}


def test_a_right_workflow_is_taken_as_an_object_and_as_text(acme: Api) -> None:
    acme.run({"workflow": changed(width="64", height=8.9)})
    acme.run({"workflow": json.dumps(WORKFLOW)})
    assert "nodes" in refused(acme, json.dumps(changed(width=0)))


def test_a_missing_model_is_told_with_the_nearest(acme: Api) -> None:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl_bse.safetensors"}}
    body = refused(acme, {"4": {**loader, "_meta": {"title": "Load"}}, "5": show("4")})
    said = 'model "sdxl_bse.safetensors" is on no worker of this endpoint; near: "sdxl_base.safetensors"'
    assert body["error"] == f"Node 4 (CheckpointLoaderSimple “Load”): {said}."
    assert body["nodes"]["4"][0]["near"] == ["sdxl_base.safetensors"]


def show(source: str) -> dict[str, Any]:
    return {"class_type": "PreviewAny", "inputs": {"source": [source, 0]}}


def test_a_model_that_a_worker_got_since_is_taken(
    http: httpx.Client, own_place: Place, acme: Api, classes: dict[str, Any]
) -> None:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "new.safetensors"}}
    refused(acme, {"4": loader, "5": show("4")})
    more = copy.deepcopy(classes)
    more["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0].append("new.safetensors")
    assert post(http, own_place, more) == [409, 200]
    acme.run({"workflow": {"4": loader, "5": show("4")}})


@pytest.mark.parametrize("given", [{"files": [{"name": "m.ckpt", "data": "QQ=="}]}, {"images": {"m.ckpt": "QQ=="}}])
def test_a_name_of_a_file_that_the_job_brings_is_taken(acme: Api, given: dict[str, Any]) -> None:
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.ckpt"}}
    acme.run({"workflow": {"4": loader, "5": show("4")}, **given})


@pytest.mark.parametrize("value", [10**400, 2**70, "x" * 50_000, ["a"] * 50_000, {"\x00": "\ufffd"}])
def test_an_odd_value_makes_a_short_answer(acme: Api, value: Any) -> None:
    answered = acme.post("run", {"input": {"workflow": changed(width=value)}})
    assert answered.status_code == 400
    assert len(answered.content) < 2_000


def test_a_large_workflow_is_checked_too(acme: Api) -> None:
    workflow = changed(width=0) | {f"n{n}": {"class_type": "ImageInvert", "inputs": {}} for n in range(6_000)}
    assert refused(acme, workflow)["nodes"]["1"][0]["type"] == "value_smaller_than_min"


def test_who_has_no_grant_learns_nothing_of_the_nodes(http: httpx.Client, acme: Api, place: Place) -> None:
    stranger = Api.of(http, new_client(place, "globex")).at(acme.endpoint)
    wrong = {"input": {"workflow": changed(width="wide")}}
    assert stranger.post("run", wrong).status_code == 404
    assert "nodes" not in stranger.post("run", wrong).json()
    assert acme.by("Bearer hth_abcdefgh_no").post("run", wrong).status_code == 401


def test_before_a_worker_has_reported_everything_is_taken(own_acme: Api) -> None:
    own_acme.run({"workflow": changed(width="wide")})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 400, "invalid_catalogue"),
        (b'{"sha256": "\\u0000"}', 400, "invalid_catalogue"),
        (b'{"sha256": 5}', 400, "invalid_catalogue"),
        (b"[]", 400, "invalid_json"),
        (b" " * 2_000, 413, "too_large"),
        (b'{"sha256": "%s"}' % (b"0" * 64), 409, "unknown_catalogue"),
    ],
)
def test_an_offer_is_a_hash(http: httpx.Client, own_place: Place, body: bytes, status: int, code: str) -> None:
    url = f"/v2/{own_place.name}/catalogue/w1"
    answered = http.post(url, content=body, headers={"Authorization": own_place.worker_key})
    assert (answered.status_code, answered.json()["code"]) == (status, code)


def test_a_catalogue_needs_the_worker_key_of_its_endpoint(
    http: httpx.Client, own_place: Place, place: Place, acme: Api, classes: dict[str, Any]
) -> None:
    assert post(http, own_place, classes, Authorization=acme.authorization) == [401]
    assert post(http, own_place, classes, Authorization=place.worker_key) == [404]
    answered = http.put(f"/v2/{own_place.name}/catalogue/w1", content=b"no gzip", headers={"Authorization": "hwk_no"})
    assert answered.status_code == 401


# ComfyUI takes these three for any tenant: names in folders that all share, and one that leads out of them.
OTHERS_FILES = {"10_wf_load_image_annotated", "30_error_mid_graph", "30_error_prefix_escape"}


@pytest.mark.parametrize(("graph", "status", "body"), [case for case in recorded() if case.id in OTHERS_FILES])
def test_what_reaches_for_the_files_of_others_is_refused_whatever_comfyui_does(
    acme: Api, graph: dict[str, Any], status: int, body: Any
) -> None:
    assert status == 200
    answered = acme.post("run", {"input": {"workflow": graph}})
    assert (answered.status_code, answered.json()["code"]) == (400, "invalid_workflow")


@pytest.mark.parametrize(("graph", "status", "body"), [case for case in recorded() if case.id not in OTHERS_FILES])
def test_the_recorded_prompts_are_taken_and_refused_as_by_comfyui(
    acme: Api, graph: dict[str, Any], status: int, body: Any
) -> None:
    answered = acme.post("run", {"input": {"workflow": graph}})
    assert answered.status_code == status
    if status == 400 and body["node_errors"]:
        assert answered.json()["nodes"].keys() == body["node_errors"].keys()


NO_GRAPHS = {  # recorded prompts that no check of a graph sees, and what a tenant's developer is told
    "no_class_type": "`input.workflow` node '1' is no object with a `class_type`",
    "no_inputs_key": "`input.workflow` node '1' has no `inputs` object; it may be empty",
    "prompt_empty": "`input.workflow` is empty",
    "prompt_is_list": "`input.workflow` must be an object (ComfyUI's API format), not a list",
    "prompt_null": "`input.workflow` is missing",
    "ui_format_workflow": "`input.workflow` is in ComfyUI's UI format. Export it by `Export (API)`",
}


@pytest.mark.parametrize(("name", "said"), NO_GRAPHS.items())
def test_a_recorded_prompt_that_is_no_graph_is_refused_with_what_to_do(acme: Api, name: str, said: str) -> None:
    """ComfyUI answers 400, or 500, on which its clients can only guess."""
    ((sent, _, _),) = posted(f"20_prompt_{name}")
    with nothing_stored():
        for path in ("run", "runsync"):
            error = refused(acme, sent["prompt"], path)["error"]
            assert error.startswith(said)
            assert "Export (API)" in error


def test_every_recorded_prompt_is_put_to_hearth() -> None:
    """What is left out is no prompt at all (test_refusals.py has such bodies), or refused for what is no workflow."""
    replayed = {case.id for case in recorded()} | {f"20_prompt_{name}" for name in NO_GRAPHS} | OTHER_REASON.keys()
    bodies = {"empty_body", "invalid_json", "json_array", "no_prompt_key"}
    assert {path.stem for path in GOLDEN.glob("20_prompt_*.json")} - replayed == {f"20_prompt_{b}" for b in bodies}
