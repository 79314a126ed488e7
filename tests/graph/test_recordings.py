"""What a real ComfyUI said to each recorded prompt is what is said here: the verdict, the node, the type, the input."""

import json
from contextlib import suppress
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


def posted(name: str) -> list[tuple[Any, int, Any]]:
    """(sent, status, body) of each prompt that a recording has posted as JSON, whatever its content type."""
    events = json.loads((GOLDEN / f"{name}.json").read_text())["events"]
    found = []
    for event in filter(is_post, events):
        sent, response = event["request"]["json"], event["response"]
        with suppress(ValueError):
            sent = json.loads(event["request"]["raw"] or "null") if sent is None else sent
        found.append((sent, response["status"], response["body"].get("json")))
    return found


def recorded() -> list[Any]:
    """(graph, status, body) of each prompt that was posted."""
    return [
        pytest.param(sent["prompt"], status, body, id=name)
        for name in sorted(path.stem for path in GOLDEN.glob("[123]0_*.json"))
        for sent, status, body in posted(name)
        if isinstance(sent, dict) and is_graph(sent.get("prompt")) and name not in OTHER_REASON
    ]


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
