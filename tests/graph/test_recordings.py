"""What a real ComfyUI said to each recorded prompt is what is said here: the verdict, the node, the type, the input."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.graph.check import check
from jobs.graph.classes import Catalogue
from tests.graph.judges import Graph

GOLDEN = Path("tests/golden/comfyui")
OTHER_REASON = {  # refused, but not for the workflow
    "20_prompt_extra_data_null": "extra_data",
    "20_prompt_number_is_string": "number",
    "20_prompt_load_image_missing_file": "the input folder, which no catalogue tells",
}
CYCLE = "dependency_cycle"


def is_graph(prompt: Any) -> bool:
    """Whether it has the shape that is checked before (jobs/wire/submission.py)."""
    if not isinstance(prompt, dict) or not prompt:
        return False
    return all(isinstance(node, dict) and {"class_type", "inputs"} <= node.keys() for node in prompt.values())


def is_post(event: Any) -> bool:
    return event["kind"] == "http" and (event["request"]["method"], event["request"]["path"]) == ("POST", "/prompt")


def recorded() -> list[Any]:
    """(graph, status, body) of each prompt that was posted."""
    found = []
    for path in sorted(GOLDEN.glob("[123]0_*.json")):
        for event in json.loads(path.read_text())["events"]:
            sent = event["request"]["json"] if is_post(event) else None
            if isinstance(sent, dict) and is_graph(sent.get("prompt")) and path.stem not in OTHER_REASON:
                status, body = event["response"]["status"], event["response"]["body"].get("json")
                found.append(pytest.param(sent["prompt"], status, body, id=path.stem))
    return found


@pytest.mark.parametrize(("graph", "status", "body"), recorded())
def test_the_verdict_is_comfyuis(catalogue: Catalogue, graph: Graph, status: int, body: Any) -> None:
    faults = check(catalogue, graph)
    assert bool(faults) == (status == 400), faults
    if status == 400:
        told = {(fault.node, fault.type, "" if "exception" in fault.type else fault.input) for fault in faults}
        assert told == errors(body) or is_cycle(body, told)


def errors(body: Any) -> set[tuple[str, str, str]]:
    """(node, type, input) of ComfyUI's answer. Its exceptions name no input, or that of the node below."""
    if not body["node_errors"]:
        named = body["error"]["details"].removeprefix("Node ID '#").rstrip("'")
        return {(named, body["error"]["type"], "")}
    return {
        (node, error["type"], "" if "exception" in error["type"] else error["extra_info"]["input_name"])
        for node, about in body["node_errors"].items()
        for error in about["errors"]
    }


def is_cycle(body: Any, told: set[tuple[str, str, str]]) -> bool:
    """ComfyUI has no words for a circle of links."""
    return not body["node_errors"] and not body["error"]["details"] and {kind for _, kind, _ in told} == {CYCLE}
