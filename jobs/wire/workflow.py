"""The workflow of an input, and why dialects with a workflow refuse it."""

from collections.abc import Mapping
from typing import Any

import orjson

from jobs.wire.bodies import kind, shown
from worker.paths import name_fault, paths_fault
from worker.wire import file_names, output_fault

EXPORT = "send what ComfyUI's menu saves by `Export (API)`."


def workflow_of(given: Any) -> tuple[dict[str, Any], str]:
    """The workflow of an input, which may be text; and why dialects with a workflow refuse it, "" if they take it."""
    if not isinstance(given, dict):
        return {}, f"`input` must be an object with a `workflow`, not {kind(given)}."
    workflow = given.get("workflow")
    if isinstance(workflow, str):
        try:
            workflow = orjson.loads(workflow)
        except orjson.JSONDecodeError as error:
            named = "nor is it like the name of a stored workflow (`portrait`, `portrait@3`)"
            return {}, f"`input.workflow` is a string that is not valid JSON ({error}), {named}."
    if workflow is None:
        return {}, f"`input.workflow` is missing: {EXPORT}"
    if not isinstance(workflow, dict):
        return {}, f"`input.workflow` must be an object (ComfyUI's API format), not {kind(workflow)}: {EXPORT}"
    return workflow, graph_fault(workflow) or _names_fault(given, workflow) or _misplaced(given) or _wish_fault(given)


def _misplaced(given: Mapping[str, Any]) -> str:
    """A field that would be silently without effect, and the job's files in another bucket."""
    if not given.get("storage"):
        return ""
    return 'A bucket is named beside `input`, not in it: `{"input": {…}, "storage": "<its name>"}`.'


def _wish_fault(given: Mapping[str, Any]) -> str:
    fault = output_fault(given)
    return f"`input`: {fault}." if fault else ""


def graph_fault(workflow: dict[str, Any]) -> str:
    if not workflow:
        return f"`input.workflow` is empty: {EXPORT}"
    if isinstance(workflow.get("nodes"), list):
        return "`input.workflow` is in ComfyUI's UI format. Export it by `Export (API)` and send that."
    for node_id, node in workflow.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return f"`input.workflow` node {shown(node_id)} is no object with a `class_type`: {EXPORT}"
        if not isinstance(node.get("inputs"), dict):  # one that no output needs would stop ComfyUI for good
            return f"`input.workflow` node {shown(node_id)} has no `inputs` object; it may be empty: {EXPORT}"
    return ""


def _names_fault(given: Mapping[str, Any], workflow: Mapping[str, Any]) -> str:
    """A name that would lead to what is not this job's, on the disk of a ComfyUI that all tenants share."""
    names = file_names(given)
    for name in names:
        if name and (fault := name_fault(name)):
            return f"`input.files`: the name {shown(name)} {fault}."
    fault = paths_fault(workflow, names)
    return f"`input.workflow`: {fault}." if fault else ""
