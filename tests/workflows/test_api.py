"""/api/v1/workflows: a key with the scope `manage` stores them, one with `read` reads them."""

import copy
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from jobs.workflows import stored
from tests.api.v1 import V1
from tests.wire.api import Api
from tests.workflows.graphs import PARAMETERS, SIZES, SMALL, TEXT_TO_IMAGE, store


@pytest.fixture
def v1(own_acme: Api) -> V1:
    key = own_acme.client.new_key(scopes=["manage", "read"], name="ci")
    return V1.of(own_acme.http, own_acme.client).by(f"Bearer {key}")


@pytest.fixture
def stranger(globex: Api) -> V1:
    return V1.of(globex.http, globex.client).by(f"Bearer {globex.client.new_key(scopes=['manage', 'read'])}")


def sent(v1: V1, method: str, path: str, body: Any, status: int = 200) -> Any:
    answered = v1.call(method, path, json=body)
    assert answered.status_code == status, answered.text
    return answered.json() if answered.content else None


def made(v1: V1, name: str = "portrait", **more: Any) -> Any:
    given = {"name": name, "workflow": TEXT_TO_IMAGE, "parameters": PARAMETERS} | more
    return sent(v1, "POST", "workflows", given, 201)


def test_a_workflow_is_stored_and_read_and_run(v1: V1, own_acme: Api) -> None:
    assert made(v1, title="Portraits") == v1.get("workflows/portrait")
    found = v1.get("workflows/portrait")
    assert (found["title"], found["current"], found["versions"], found["archived_at"]) == ("Portraits", 1, 1, None)
    version = v1.get("workflows/portrait/versions/1")
    assert version["workflow"] == TEXT_TO_IMAGE
    assert [(one["name"], one["type"]) for one in version["parameters"]] == [
        (one["name"], one["type"]) for one in PARAMETERS
    ]
    assert version["made_by"].startswith("hth_")
    assert version["made_by"].endswith("ci")
    own_acme.run({"workflow": "portrait", "params": {"prompt": "a dog"}})


def test_a_version_is_added_and_made_current_and_another_again(v1: V1) -> None:
    made(v1)
    second = sent(v1, "POST", "workflows/portrait/versions", {"workflow": SMALL, "note": "smaller"}, 201)
    assert (second["number"], second["current"], second["parameters"]) == (2, True, [])
    third = sent(v1, "POST", "workflows/portrait/versions", {"workflow": SMALL, "current": False}, 201)
    assert (third["number"], third["current"]) == (3, False)
    assert sent(v1, "PATCH", "workflows/portrait", {"current": 1})["current"] == 1
    listed = v1.get("workflows/portrait/versions")["results"]
    assert [(one["number"], one["current"], one["note"]) for one in listed] == [
        (3, False, ""),
        (2, False, "smaller"),
        (1, True, ""),
    ]
    assert "workflow" not in listed[0]
    v1.refused(400, "unknown_version", "PATCH", "workflows/portrait", json={"current": 4})
    for number in ("4", "99999999999999999999"):
        v1.refused(404, "not_found", "GET", f"workflows/portrait/versions/{number}")


def test_it_is_renamed_archived_and_deleted(v1: V1) -> None:
    made(v1)
    renamed = sent(v1, "PATCH", "workflows/portrait", {"name": "faces", "description": "of people"})
    assert (renamed["name"], renamed["description"]) == ("faces", "of people")
    v1.refused(404, "not_found", "GET", "workflows/portrait")
    assert sent(v1, "PATCH", "workflows/faces", {"archived": True})["archived_at"]
    assert v1.get("workflows")["results"] == []
    assert [one["name"] for one in v1.get("workflows", archived="true")["results"]] == ["faces"]
    assert sent(v1, "PATCH", "workflows/faces", {"archived": False})["archived_at"] is None
    sent(v1, "DELETE", "workflows/faces", None, 204)
    for method in ("GET", "DELETE", "PATCH"):
        v1.refused(404, "not_found", method, "workflows/faces", json={})
    made(v1, "faces")


def test_workflows_come_in_pages_newest_first(v1: V1) -> None:
    for name in ("a", "b", "c"):
        made(v1, name, workflow=SMALL, parameters=[])
    first = v1.get("workflows", limit=2)
    assert [one["name"] for one in first["results"]] == ["c", "b"]
    assert [
        one["name"] for one in v1.http.get(first["next"], headers={"Authorization": v1.authorization}).json()["results"]
    ] == ["a"]


def test_what_is_wrong_with_parameters_is_told_by_name_and_nothing_is_stored(v1: V1) -> None:
    wrong = copy.deepcopy(PARAMETERS)
    wrong[0]["paths"], wrong[2]["default"] = ["6.inputs.txt"], 99
    answered = v1.call("POST", "workflows", json={"name": "x", "workflow": TEXT_TO_IMAGE, "parameters": wrong})
    body = answered.json()
    assert (answered.status_code, body["code"], list(body["params"])) == (
        400,
        "invalid_parameters",
        ["prompt", "steps"],
    )
    assert body["params"]["prompt"][0]["near"] == ["text"]
    assert v1.get("workflows")["results"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "bad_request"),
        ({"name": "x"}, "bad_request"),
        ({"name": "x", "workflow": None}, "bad_request"),
        ({"name": "x", "workflow": []}, "invalid_workflow"),
        ({"name": "x", "workflow": "portrait"}, "invalid_workflow"),
        ({"name": "x", "workflow": SMALL, "parameters": {}}, "invalid_parameters"),
        ({"name": "X", "workflow": SMALL}, "bad_name"),
        ({"name": "x\0", "workflow": SMALL}, "bad_request"),
        ({"name": "x", "workflow": SMALL, "title": "x" * 201}, "bad_request"),
    ],
)
def test_what_cannot_be_a_workflow_is_refused(v1: V1, body: dict[str, Any], code: str) -> None:
    v1.refused(400, code, "POST", "workflows", json=body)
    assert v1.get("workflows")["results"] == []


@pytest.mark.parametrize("odd", ['"\\ud800"', "1" + "0" * 30, "[" * 300 + "]" * 300])
def test_what_no_reader_of_json_would_have_as_it_was_is_refused(v1: V1, odd: str) -> None:
    good = '{"name": "x", "workflow": {"1": {"class_type": "A", "inputs": {"a": 1}}}, "parameters": [2]}'
    headers = {"Content-Type": "application/json"}
    for place, code in (("1}}", "invalid_workflow"), ("2]", "invalid_parameters")):
        content = good.replace(place, odd + place[1:])
        v1.refused(400, code, "POST", "workflows", content=content, headers=headers)


def test_a_name_is_taken_once(v1: V1) -> None:
    made(v1)
    made(v1, "other", workflow=SMALL, parameters=[])
    v1.refused(409, "exists", "POST", "workflows", json={"name": "portrait", "workflow": SMALL})
    v1.refused(409, "exists", "PATCH", "workflows/other", json={"name": "portrait"})


def test_its_schema_is_json_schema_of_what_params_may_be(v1: V1) -> None:
    made(v1, title="Portraits", description="of people")
    schema = v1.get("workflows/portrait/schema")
    Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["title"], schema["required"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        "Portraits",
        ["prompt"],
    )
    assert schema["properties"]["size"] == {
        "type": "integer",
        "minimum": 64,
        "maximum": 2**64 - 1,
        "multipleOf": 8,
        "default": 512,
        "x-type": "integer",
        "x-paths": ["5.inputs.width", "5.inputs.height"],
        "x-order": 5,
    }
    assert schema["properties"]["seed"]["x-random"] is True
    assert "default" not in schema["properties"]["photo"]
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"prompt": "a dog", "sampler": "ddim"})
    assert not validator.is_valid({"prompt": "a dog", "sampler": "x"})
    sent(v1, "POST", "workflows/portrait/versions", {"workflow": SMALL}, 201)
    assert v1.get("workflows/portrait/schema")["properties"] == {}
    assert v1.get("workflows/portrait/schema", version=1) == schema
    v1.refused(404, "not_found", "GET", "workflows/portrait/schema?version=3")
    v1.refused(400, "bad_request", "GET", "workflows/portrait/schema?version=x")


def test_parameters_are_proposed_and_may_be_stored_as_they_are(v1: V1, own_acme: Api) -> None:
    proposed = sent(v1, "POST", "workflows/propose", {"workflow": TEXT_TO_IMAGE})["parameters"]
    assert [one["name"] for one in proposed][:3] == ["prompt", "negative_prompt", "image"]
    made(v1, parameters=proposed)
    own_acme.run({"workflow": "portrait", "params": {"prompt": "a dog", "cfg": 2.5}})
    v1.refused(404, "not_found", "POST", "workflows/propose", json={"workflow": SMALL, "endpoint": "none"})
    v1.refused(400, "invalid_workflow", "POST", "workflows/propose", json={"workflow": {}})


def test_other_scopes_read_or_nothing(own_acme: Api) -> None:
    store(own_acme.client.tenant, "small", SMALL, SIZES)
    v1 = V1.of(own_acme.http, own_acme.client)
    reader, runner = (v1.by(f"Bearer {own_acme.client.new_key(scopes=[scope])}") for scope in ("read", "run"))
    assert reader.get("workflows/small")["current"] == 1
    assert reader.get("workflows/small/versions/1")["workflow"] == SMALL
    runner.refused(403, "forbidden", "GET", "workflows")
    for key in (reader, runner):
        key.refused(403, "forbidden", "POST", "workflows", json={"name": "x", "workflow": SMALL})
        key.refused(403, "forbidden", "POST", "workflows/propose", json={"workflow": SMALL})
        key.refused(403, "forbidden", "POST", "workflows/small/versions", json={"workflow": SMALL})
        key.refused(403, "forbidden", "PATCH", "workflows/small", json={"archived": True})
        key.refused(403, "forbidden", "DELETE", "workflows/small")
    runs = own_acme.by(f"Bearer {own_acme.client.new_key(scopes=['run'])}")
    assert runs.run({"workflow": "small"}), "to run it by name needs no more than `run`"


def test_globex_finds_none_of_acmes(v1: V1, stranger: V1) -> None:
    made(v1)
    assert stranger.get("workflows")["results"] == []
    for method, path in (
        ("GET", ""),
        ("GET", "/schema"),
        ("GET", "/versions"),
        ("GET", "/versions/1"),
        ("DELETE", ""),
    ):
        stranger.refused(404, "not_found", method, f"workflows/portrait{path}")
    stranger.refused(404, "not_found", "PATCH", "workflows/portrait", json={"archived": True})
    stranger.refused(404, "not_found", "POST", "workflows/portrait/versions", json={"workflow": SMALL})
    endpoint = v1.client.place.name
    stranger.refused(404, "not_found", "POST", "workflows/propose", json={"workflow": SMALL, "endpoint": endpoint})
    assert stored.one(v1.client.tenant.pk, "portrait").archived_at is None


def test_no_name_does_harm(http: httpx.Client, v1: V1) -> None:
    for name in ("%00", "a%00b", "%FF", "x" * 300, "'--", "propose"):
        assert v1.call("GET", f"workflows/{name}").status_code in (404, 405)
        assert v1.call("GET", f"workflows/{name}/schema").status_code == 404
