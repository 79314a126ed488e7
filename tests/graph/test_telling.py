"""How a fault is told: what was given, the nearest valid names, and never more than an answer should hold."""

import time
from typing import Any

import orjson
import pytest

from jobs.graph.check import check
from jobs.graph.classes import Catalogue
from jobs.graph.faults import MAX_TOLD, Verdict, cut, near
from tests.graph.judges import Graph
from tests.graph.test_rules import CLASSES, info

MODELS = ["sdxl_base.safetensors", "SD15\\v1-5.ckpt", "flux/flux1-dev.safetensors"]
MORE: dict[str, Any] = {
    "CheckpointLoaderSimple": info(output=["MODEL"], output_node=True, ckpt_name=[MODELS]),
    "KSampler": info(output=[], output_node=True, seed=["INT", {"min": 0, "max": 2**64 - 1}], scheduler=[["normal"]]),
}


def told(class_type: str, title: Any = None, **inputs: Any) -> tuple[str, dict[str, Any]]:
    """(the sentence, the entry of node 4)."""
    graph: Graph = {"4": {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}}
    sentence, nodes = Verdict(graph, check(Catalogue(CLASSES | MORE), graph)).told()
    assert list(nodes) == ["4"]
    return sentence, nodes["4"][0]


def test_a_missing_model_is_told_with_its_node_and_the_nearest() -> None:
    sentence, entry = told("CheckpointLoaderSimple", "Load", ckpt_name="sdxl_bse.safetensors")
    said = 'model "sdxl_bse.safetensors" is on no worker of this endpoint; near: "sdxl_base.safetensors"'
    assert sentence == f"Node 4 (CheckpointLoaderSimple “Load”): {said}."
    assert entry == {
        "class_type": "CheckpointLoaderSimple",
        "title": "Load",
        "type": "value_not_in_list",
        "input": "ckpt_name",
        "given": "sdxl_bse.safetensors",
        "message": said,
        "near": ["sdxl_base.safetensors"],
    }


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("flux1-dev.safetensors", "flux/flux1-dev.safetensors"),  # in a folder
        ("other/v1-5.ckpt", "SD15\\v1-5.ckpt"),  # in another, of Windows
        ("SDXL_BASE.safetensors", "sdxl_base.safetensors"),
    ],
)
def test_the_same_file_elsewhere_is_the_nearest(given: str, nearest: str) -> None:
    assert told("CheckpointLoaderSimple", ckpt_name=given)[1]["near"][0] == nearest


def test_a_misspelt_class_is_told_with_the_nearest() -> None:
    sentence, entry = told("KSamplr", title={"no": "string"})
    assert sentence == 'Node 4 (KSamplr): class "KSamplr" is on no worker of this endpoint; near: "KSampler".'
    assert (entry["type"], entry["near"], "given" in entry, "title" in entry) == (
        "invalid_prompt",
        ["KSampler"],
        False,
        False,
    )


def test_a_missing_input_is_told_with_the_unknown_one_that_looks_like_it() -> None:
    sentence, entry = told("KSampler", seed=1, sheduler="normal")
    assert sentence == 'Node 4 (KSampler): required input "scheduler" is missing; near: "sheduler".'
    assert "given" not in entry


def test_few_choices_are_told() -> None:
    sentence, _ = told("KSampler", seed=1, scheduler="magic")
    assert sentence == 'Node 4 (KSampler): input "scheduler" has no choice "magic", but "normal".'


def test_more_faults_are_counted() -> None:
    sentence, _ = told("KSampler")
    assert sentence == 'Node 4 (KSampler): required input "seed" is missing. And 1 more fault: see `nodes`.'


def test_a_workflow_without_an_output_has_no_node_to_blame() -> None:
    graph: Graph = {"1": {"class_type": "Image", "inputs": {}}}
    sentence, nodes = Verdict(graph, check(Catalogue(CLASSES), graph)).told()
    assert sentence == "`input.workflow`: no node of it is an output, such as SaveImage: nothing would be made."
    assert nodes == {}


@pytest.mark.parametrize("given", ["x" * 10_000, {"a": ["b"] * 5_000}, 10**400, [1] * 9000, [[[["deep"]]]], 1e308])
def test_what_was_given_is_cut_and_json(given: Any) -> None:
    assert len(orjson.dumps(cut(given))) < 1000
    sentence, entry = told("KSampler", seed=given, scheduler={"__value__": given})
    assert len(orjson.dumps(entry)) < 2000
    assert len(sentence) < 1000


def test_thousands_of_faults_make_an_answer_of_some_kilobytes_at_once() -> None:
    models = [f"some/folder/model-number-{n:05}-of-many.safetensors" for n in range(20_000)]
    catalogue = Catalogue({"Load": info(output=[], output_node=True, ckpt_name=[models])})
    graph: Graph = {
        f"{'n' * 500}{n}": {"class_type": "Load", "inputs": {"ckpt_name": f"some/modl-{n}.safetensors" * 20}}
        for n in range(5_000)
    }
    verdict = Verdict(graph, check(catalogue, graph))
    begun = time.process_time()
    sentence, nodes = verdict.told()
    assert time.process_time() - begun < 3
    assert "And at least 4999 more faults" in sentence
    assert sum(len(entries) for entries in nodes.values()) == MAX_TOLD
    assert len(orjson.dumps(nodes)) < 100_000


def test_a_name_that_cannot_be_told_is_no_neighbour() -> None:
    assert near("model.ckpt", ["model\ud800.ckpt", "model\n.ckpt", "", 5, "models.ckpt"]) == ["models.ckpt"]
