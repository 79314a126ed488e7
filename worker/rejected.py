"""ComfyUI's words about a workflow, turned into a JobError that names node, class and ComfyUI's own message."""

import json
import re
from collections.abc import Mapping
from typing import Any

from worker.errors import JobError, Nodes, disk_full

INTERRUPTED, FAILED = "execution_interrupted", "execution_error"
DISK_FULL = re.compile(r"No space left on device|Errno 28\b|WinError 112\b")
# torch's words for the GPU and for the machine, ComfyUI's own, Python's
OUT_OF_MEMORY = re.compile(
    r"out of memory|allocation on device|not enough memory|cannot allocate memory", re.IGNORECASE
)


def rejected(status: int, body: str, workflow: Mapping[str, Any]) -> JobError:
    """POST /prompt was answered with this status and body."""
    answer = _parsed(body)
    error = answer.get("error") or {}
    nodes = node_errors(answer.get("node_errors") or {}, workflow)
    if not nodes and (named := re.search(r"Node ID '#(.+?)'", str(error.get("details")))):
        nodes = {named[1]: [_entry(named[1], workflow, error)]}
    said = error.get("message") or f"HTTP {status} {body[:200]}".strip()
    details = "" if nodes else f" {error.get('details') or ''}"
    text = " ".join([f"ComfyUI refused the workflow: {said}{details}".rstrip(". ") + ".", *_lines(nodes)])
    return JobError(f"{text} Correct the workflow and send it again.", "workflow_rejected", nodes)


def node_errors(found: Mapping[str, Any], workflow: Mapping[str, Any]) -> Nodes:
    """ComfyUI's node_errors in our shape."""
    return {
        node: [_entry(node, workflow, error, about.get("class_type")) for error in about.get("errors") or [{}]]
        for node, about in found.items()
    }


def warnings(found: Mapping[str, Any], workflow: Mapping[str, Any]) -> list[str]:
    """For a workflow of which ComfyUI runs only the part that is valid."""
    return [f"not run: {line}" for line in _lines(node_errors(found, workflow))]


def failure(entry: Mapping[str, Any], workflow: Mapping[str, Any]) -> JobError | None:
    """Why the run of this history entry failed, or None if it succeeded."""
    status = entry.get("status") or {}
    if status.get("status_str") != "error":
        return None
    ends = [message for message in status.get("messages") or [] if message[0] in (FAILED, INTERRUPTED)]
    kind, said = ends[-1] if ends else (FAILED, {})
    node = str(said.get("node_id", "?"))
    if kind == INTERRUPTED:
        text = f"somebody interrupted the prompt in ComfyUI at node {node} ({said.get('node_type')}); run the job again"
        return JobError(text, "interrupted")
    message = str(said.get("exception_message") or "ComfyUI gives no reason").strip()
    kind = str(said.get("exception_type") or "error")
    nodes = {node: [_entry(node, workflow, {"type": kind, "message": message}, said.get("node_type"))]}
    text = f"{_lines(nodes)[0]} ({kind})."
    if says_disk_full(message):
        return disk_full(text)
    if kind.rpartition(".")[2] in ("OutOfMemoryError", "MemoryError") or OUT_OF_MEMORY.search(message):
        return JobError(f"{text} Out of memory: make the images or the batch smaller.", "out_of_memory", nodes)
    return JobError(f"{text} Look at this node's inputs and run the job again.", "node_failed", nodes)


def says_disk_full(text: str) -> bool:
    return DISK_FULL.search(text) is not None


def _entry(
    node: str, workflow: Mapping[str, Any], error: Mapping[str, Any], class_type: str | None = None
) -> dict[str, str]:
    about = workflow.get(node)
    about = about if isinstance(about, Mapping) else {}
    entry = {"class_type": str(class_type or about.get("class_type") or "?")}
    meta = about.get("_meta")
    if isinstance(meta, Mapping) and isinstance(meta.get("title"), str):
        entry["title"] = meta["title"]
    details = error.get("details") or ""
    message = str(error.get("message") or "ComfyUI gives no reason").strip()
    entry["type"] = str(error.get("type") or "error")
    entry["message"] = f"{message}: {details}" if details and "Node ID" not in details else message
    return entry


def _lines(nodes: Nodes) -> list[str]:
    return [
        f"Node {node} ({entry['class_type']}{_title(entry)}): {entry['message'].rstrip('. ')}."
        for node, entries in nodes.items()
        for entry in entries
    ]


def _title(entry: Mapping[str, str]) -> str:
    return f" “{entry['title']}”" if entry.get("title") not in (None, entry["class_type"]) else ""


def _parsed(body: str) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
