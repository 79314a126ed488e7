"""Parameters proposed from a graph: what people set, by the names they would give it; each can be stored as it is."""

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from jobs.graph.classes import Catalogue
from jobs.workflows.definition import define, read_graph
from jobs.workflows.propose import USUAL, propose
from tests.api.v1 import V1
from tests.graph.judges import StandinJudge
from tests.wire.api import Api
from tests.wire.test_workflow_check import post
from tests.workflows.graphs import TEXT_TO_IMAGE

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "workflows").glob("*.json"))
SAMPLERS = {
    "KSampler": {
        "python_module": "nodes",
        "input": {
            "required": {
                "sampler_name": [["euler", "dpmpp_2m", 5, "ddim"], {}],
                "scheduler": [["karras"], {}],
                "steps": ["INT", {"min": 1, "max": 150}],
                "cfg": ["FLOAT", {"min": 0.0, "max": 20.0}],
            }
        },
        "output": ["LATENT"],
        "output_node": False,
    },
    "OwnLoader": {
        "python_module": "custom_nodes.x",
        "input": {"required": {"picture": [["a.png"], {"image_upload": True}]}},
        "output": ["IMAGE"],
    },
}


def names(graph: Any, *catalogues: Catalogue) -> dict[str, list[str]]:
    return {one.name: list(one.paths) for one in propose(graph, catalogues)}


def proposed(graph: Any, name: str, *catalogues: Catalogue) -> dict[str, Any]:
    (found,) = [one.told() for one in propose(graph, catalogues) if one.name == name]
    return found


def test_of_a_text_to_image_graph_what_everybody_sets() -> None:
    assert names(TEXT_TO_IMAGE) == {
        "prompt": ["6.inputs.text"],
        "negative_prompt": ["7.inputs.text"],
        "image": ["10.inputs.image"],
        "width": ["5.inputs.width"],
        "height": ["5.inputs.height"],
        "batch_size": ["5.inputs.batch_size"],
        "steps": ["3.inputs.steps"],
        "cfg": ["3.inputs.cfg"],
        "sampler_name": ["3.inputs.sampler_name"],
        "scheduler": ["3.inputs.scheduler"],
        "denoise": ["3.inputs.denoise"],
        "seed": ["3.inputs.seed"],
    }


def test_types_bounds_and_titles() -> None:
    path = {"paths": ["6.inputs.text"], "required": False}
    assert proposed(TEXT_TO_IMAGE, "prompt") == {
        "name": "prompt", "type": "string", "title": "Prompt", "default": "a cat", **path,
    }  # fmt: skip
    steps = proposed(TEXT_TO_IMAGE, "steps")
    assert (steps["type"], steps["min"], steps["max"], steps["default"]) == ("integer", 1, 10000, 20)
    assert proposed(TEXT_TO_IMAGE, "denoise")["type"] == "number"
    assert proposed(TEXT_TO_IMAGE, "seed")["type"] == "seed"
    assert proposed(TEXT_TO_IMAGE, "image")["type"] == "file"


def test_choices_and_bounds_are_the_catalogues_if_what_stands_there_is_among_them() -> None:
    known = Catalogue(SAMPLERS)
    sampler = proposed(TEXT_TO_IMAGE, "sampler_name", known)
    assert (sampler["type"], sampler["choices"]) == ("choice", ["euler", "dpmpp_2m", "ddim"])
    assert proposed(TEXT_TO_IMAGE, "scheduler", known)["type"] == "string", "normal is none of them"
    assert (proposed(TEXT_TO_IMAGE, "steps", known)["max"], proposed(TEXT_TO_IMAGE, "cfg", known)["max"]) == (150, 20)
    beyond = copy.deepcopy(TEXT_TO_IMAGE)
    beyond["3"]["inputs"]["steps"] = 999
    assert "max" not in proposed(beyond, "steps", known)
    own = {"1": {"class_type": "OwnLoader", "inputs": {"picture": "a.png"}}}
    assert (names(own), names(own, known)) == ({}, {"picture": ["1.inputs.picture"]})


def test_prompts_are_found_behind_other_nodes_and_in_what_they_link_to() -> None:
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    graph["11"] = {"class_type": "ConditioningConcat", "inputs": {"to": ["6", 0], "from": ["13", 0]}}
    graph["12"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a cat"}, "_meta": {"title": "Wish"}}
    graph["13"] = {"class_type": "CLIPTextEncodeFlux", "inputs": {"clip_l": "l", "t5xxl": "t", "guidance": 3.5}}
    graph["6"]["inputs"]["text"] = ["12", 0]
    graph["3"]["inputs"]["positive"] = ["11", 0]
    found = names(graph)
    assert found["prompt"] == ["12.inputs.value"]
    assert (found["prompt_clip_l"], found["prompt_t5xxl"]) == (["13.inputs.clip_l"], ["13.inputs.t5xxl"])
    assert (found["negative_prompt"], found["guidance"]) == (["7.inputs.text"], ["13.inputs.guidance"])
    assert "wish" not in found, "it is the prompt already"


def test_primitives_are_named_by_their_titles_and_the_same_name_is_numbered() -> None:
    def primitive(kind: str, value: Any, title: str) -> dict[str, Any]:
        return {"class_type": f"Primitive{kind}", "inputs": {"value": value}, "_meta": {"title": title}}

    graph = {
        "1": primitive("Int", 5, "How many?"),
        "2": primitive("Boolean", True, "how MANY"),
        "3": primitive("Float", 0.5, "2nd pass"),
        "4": primitive("String", "x", "名前"),
        "5": {"class_type": "PrimitiveInt", "inputs": {"value": ["1", 0]}},
    }
    found = {one.name: one.type.value for one in propose(graph)}
    assert found == {"how_many": "integer", "how_many_2": "boolean", "_2nd_pass": "number", "value": "string"}


def test_links_are_no_parameters_and_circles_end() -> None:
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"steps": ["2", 0], "positive": ["2", 0]}},
        "2": {"class_type": "A", "inputs": {"x": ["3", 0]}},
        "3": {"class_type": "B", "inputs": {"x": ["2", 0], "y": [], "z": [5, 0], "v": ["nowhere", 0]}},
    }
    assert names(graph) == {}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_of_each_example_what_is_proposed_can_be_stored(example: Path) -> None:
    graph = read_graph(example.read_text())
    define(graph, [one.told() for one in propose(graph)])


thorough = hypothesis(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
ids = st.sampled_from(["1", "2", "3", "57:8"])
links = st.tuples(ids, st.integers(0, 1)).map(list)
values = st.text(max_size=3) | st.integers(-5, 2**64) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
values |= links | st.none() | st.just({"a": 1}) | st.just([])
classes = ("KSampler", "CLIPTextEncode", "EmptyLatentImage", "LoadImage", "PrimitiveInt", "Other", "OwnLoader")
inputs = st.sampled_from([*USUAL, "text", "clip_l", "positive", "negative", "image", "value", "picture", "x.inputs.y"])
nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(classes), "inputs": st.dictionaries(inputs, values, max_size=6)},
    optional={"_meta": st.fixed_dictionaries({"title": st.text(max_size=4) | st.none()})},
)


@thorough
@given(st.dictionaries(ids, nodes, min_size=1), st.booleans())
def test_of_any_graph_what_is_proposed_can_be_stored(graph: Any, with_catalogue: bool) -> None:
    graph = read_graph(json.dumps(graph))
    found = propose(graph, [Catalogue(SAMPLERS)] if with_catalogue else [])
    stored = json.loads(define(graph, [one.told() for one in found]).parameters)
    assert stored == json.loads(json.dumps([one.told() for one in found]))


def test_the_api_proposes_by_the_catalogue_of_an_endpoint(own_acme: Api, http: httpx.Client, tmp_path: Path) -> None:
    classes = StandinJudge(tmp_path).object_info() | SAMPLERS
    assert post(http, own_acme.place, classes)[-1] == 200
    key = own_acme.client.new_key(scopes=["manage"])
    v1 = V1.of(http, own_acme.client).by(f"Bearer {key}")
    for more in ({}, {"endpoint": own_acme.endpoint}):
        answered = v1.call("POST", "workflows/propose", json={"workflow": TEXT_TO_IMAGE, **more}).json()
        (sampler,) = [one for one in answered["parameters"] if one["name"] == "sampler_name"]
        assert sampler["choices"] == ["euler", "dpmpp_2m", "ddim"]
