"""Random mutations of the example workflows: what ComfyUI accepts is never refused, and what is refused is refused for
what ComfyUI names. Against the stand-in's own check of prompts, or with COMFYUI_URL against a real ComfyUI."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from jobs.graph.check import check
from jobs.graph.classes import Catalogue
from jobs.graph.faults import Fault
from tests.graph.judges import Graph, Judge, Said, comfyui_url

EXAMPLES = [json.loads(path.read_text()) for path in sorted(Path("examples/workflows").glob("*.json"))]
STRINGS = ("", "64", " 12 ", "1_0", "64.5", "1e3", "nan", "inf", "-7", "0x10", "abc", "true", "bilinear", "Bilinear")
STRINGS += ("m.safetensors", "m.safetensors [input]", "alpha", "IMAGE", "1")
NUMBERS = (0, 1, -1, 7, 64, 64.9, 0.05, -0.5, 99_999, 2**63, 2**64, -(2**65), 10**30, 1e30, 1e308)
OBJECTS = ({}, {"a": 1}, {"__value__": 8}, {"__value__": "abc"}, {"__value__": ["1", 0]}, {"__value__": {}})
ODD_LINKS = ([], ["1"], ["1", 0, 0], [1, 0], [None, 0], ["gone", 0], ["", 0], [["1"], 0], [{}, 0])
SLOTS = (0, 0, 0, 1, 2, -1, -9, 5, True, False, 0.5, "0", None)
NAMES = ("extra", "width", "image", "images", "prompt")
NODE_MISSING = "node_missing"
OURS = (NODE_MISSING, "dependency_cycle")
thorough = hypothesis(
    max_examples=3000 if comfyui_url() else 600,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def values(graph: Graph) -> st.SearchStrategy[Any]:
    links = st.builds(lambda node, slot: [node, slot], st.sampled_from(sorted(graph)), st.sampled_from(SLOTS))
    plain = st.sampled_from((None, True, False, *STRINGS, *NUMBERS))
    return st.one_of(plain, st.sampled_from(OBJECTS), st.sampled_from(ODD_LINKS), links, links).map(copy.deepcopy)


@st.composite
def mutated(draw: st.DrawFn, classes: list[str]) -> Graph:
    graph: Graph = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(sorted(graph)))
        inputs = graph[node]["inputs"]
        match draw(st.integers(0, 9)):
            case 0:
                graph[node]["class_type"] = draw(st.sampled_from(["NoSuchNode", "saveimage", *classes]))
            case 1:
                graph[draw(st.sampled_from(["new", "1", ""]))] = copy.deepcopy(graph[node])
            case 2 if len(graph) > 1:
                del graph[node]
            case 3 | 4 if inputs:
                del inputs[draw(st.sampled_from(sorted(inputs)))]
            case 5:
                inputs[draw(st.sampled_from(NAMES))] = draw(values(graph))
            case _ if inputs:
                inputs[draw(st.sampled_from(sorted(inputs)))] = draw(values(graph))
    return graph


def test_what_comfyui_accepts_is_never_refused(judge: Judge, catalogue: Catalogue) -> None:
    passed: Counter[str] = Counter()

    @thorough
    @given(graph=mutated(sorted(catalogue.classes)))
    def agree(graph: Graph) -> None:
        said, faults = judge.says(graph), check(catalogue, graph)
        if said.accepted:  # and a link to nowhere would then stop ComfyUI's executor for good
            assert {fault.type for fault in faults} <= {NODE_MISSING}, faults
        elif faults:
            assert is_told(said, faults) or not is_core(catalogue, graph), (faults, said)
        else:
            assert is_unjudged(said) or not is_core(catalogue, graph), said
            passed[str(sorted(said.errors))] += 1

    with judge.in_session():
        agree()
    print(f"refused by ComfyUI, let pass here: {dict(passed)}")


def is_told(said: Said, faults: list[Fault]) -> bool:
    """Whether ComfyUI names each of the faults too. An exception in its check hides what else is wrong there, and a
    whole prompt that it refuses has no errors of nodes; for OURS it has no word."""
    if not said.errors or any(type.startswith("exception_") for _, type in said.errors):
        return True
    return {(fault.node, fault.type) for fault in faults if fault.type not in OURS} <= said.errors


def is_unjudged(said: Said) -> bool:
    """What no catalogue tells is whether a file is there; and ComfyUI's check of that fails on what is no name."""
    return any(type in ("custom_validation_failed", "exception_during_inner_validation") for _, type in said.errors)


def is_core(catalogue: Catalogue, graph: Graph) -> bool:
    """Whether all classes are ComfyUI's own: of others less is judged, so that more is looked at behind it."""
    found = [catalogue.classes.get(node["class_type"]) for node in graph.values()]
    return all(kind is not None and kind.core for kind in found)


@pytest.mark.parametrize("workflow", EXAMPLES)
def test_every_example_passes(catalogue: Catalogue, workflow: dict[str, Any]) -> None:
    assert check(catalogue, workflow) == []
