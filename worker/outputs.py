"""What a history entry holds, taken apart into files to fetch and datas, so that nothing is silently dropped."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.aside import at_most
from worker.comfy import Comfy
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.paths import JOB_FOLDER

Datas = dict[str, dict[str, Any]]
PLACE = ("filename", "subfolder", "type")
ABSOLUTE = re.compile(r"(?:[A-Za-z]:)?[/\\]")
OURS = re.compile(rf"{JOB_FOLDER.pattern}[/\\]?")
ABOVE, FAR = re.compile(r"[^\s'\"]*[/\\](?:input|output|temp)[/\\]$"), 300  # the path to it, and how long it may be
_GONE = object()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that a history entry names. type: output or temp, ComfyUI's folders. beside: what a node wrote with it
    and is no output, like the picture of VHS_VideoCombine that holds the workflow."""

    node: str
    filename: str
    subfolder: str
    type: str
    beside: tuple[str, ...] = ()

    @property
    def asked_subfolder(self) -> str:
        """Without the job's own folder, which is nobody's business."""
        return OURS.sub("", self.subfolder).replace("\\", "/").strip("/")


def collect(entry: Mapping[str, Any], workflow: Mapping[str, Any], *, temp: bool) -> tuple[list[Found], Datas]:
    """The files, in the workflow's order (the entry's own is arbitrary), and everything that is not a file.

    Files of type temp are previews: they count only if the job asks for them. Files of type input are what a node
    was given, no output: what names them is data. What a node says about a file beside its place is data too."""
    outputs = entry.get("outputs") or {}
    order = {node: place for place, node in enumerate(workflow)}
    files: list[Found] = []
    datas: Datas = {}
    for node in sorted(outputs, key=lambda node: order.get(node, len(order))):
        rest = {key: _apart(node, value, files, temp) for key, value in outputs[node].items()}
        kept = {key: value for key, value in rest.items() if value is not _GONE}
        if kept:
            datas[node] = kept
    return [file for file in files if temp or file.type != "temp"], datas


def shown_in(entry: Any) -> dict[str, Any]:
    """A history entry's outputs; none of an odd one, or of None."""
    outputs = entry.get("outputs") if isinstance(entry, dict) else None
    return outputs if isinstance(outputs, dict) else {}


def named(outputs: Mapping[str, Any]) -> list[Found]:
    """All files that the outputs of a history entry name, wanted or not: what may be left on the disk."""
    files: list[Found] = []
    for node, shown in outputs.items():
        _apart(node, shown, files, temp=True)
    return files


def hidden(value: Any) -> Any:
    """Without the job's own folder, and what lies above it on that machine, in any text."""
    if isinstance(value, str):
        *before, last = OURS.split(value)
        return "".join(text[:-FAR] + ABOVE.sub("", text[-FAR:]) for text in before) + last
    if isinstance(value, dict):
        return {hidden(key): hidden(inner) for key, inner in value.items()}
    return [hidden(inner) for inner in value] if isinstance(value, list) else value


def _apart(node: str, value: Any, files: list[Found], temp: bool) -> Any:
    """What remains of the value without the files in it, at any depth, which go to `files`; _GONE if nothing does."""
    if isinstance(value, dict) and (file := _file(node, value)):
        files.append(file)
        more = _told(value) if temp or file.type != "temp" else {}
        return {"filename": file.filename, **more} if more else _GONE
    if isinstance(value, dict):
        parts = {hidden(key): _apart(node, inner, files, temp) for key, inner in value.items()}
        kept: Any = {key: part for key, part in parts.items() if part is not _GONE}
    elif isinstance(value, list):
        kept = [part for part in (_apart(node, inner, files, temp) for inner in value) if part is not _GONE]
    else:
        return hidden(value)
    return kept if kept or not value else _GONE


def _file(node: str, item: dict[str, Any]) -> Found | None:
    """A file that /view has; a path that leads elsewhere, or what was an input, is no file of the job."""
    filename, subfolder, folder = item.get("filename"), str(item.get("subfolder") or ""), item.get("type") or "output"
    if not isinstance(filename, str) or not filename or folder not in ("output", "temp"):
        return None
    if ABSOLUTE.match(filename) or ABSOLUTE.match(subfolder) or ".." in re.split(r"[/\\]", f"{subfolder}/{filename}"):
        return None
    inner, _, name = filename.replace("\\", "/").rpartition("/")
    if not name:
        return None
    subfolder = "/".join(part for part in (subfolder, inner) if part)
    workflow = item.get("workflow")
    beside = (workflow,) if isinstance(workflow, str) else ()
    return Found(node=node, filename=name, subfolder=subfolder, type=folder, beside=beside)


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """What an item says beside the file's place, without where it lies on the worker's disk (`fullpath`)."""
    return {key: hidden(value) for key, value in item.items() if key not in PLACE and not _is_path(value)}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and ABSOLUTE.match(value) is not None


Fetched = OutputFile | Stored | JobError


async def fetch(comfy: Comfy, files: Iterable[Found], ahead: Mapping[Found, Stored] | None = None) -> list[Fetched]:
    """The bytes of each file from /view, or why it is not to be had. What was stored ahead stays so."""
    broken: list[JobError] = []

    async def one(file: Found) -> Fetched:
        if ahead and file in ahead:
            return ahead[file]
        if broken:  # a ComfyUI that hangs would be waited for once for each file
            return broken[0]
        try:
            return await _fetch(comfy, file)
        except JobError as error:
            broken.append(error)
            return error

    return await at_most(4, one, files)


async def _fetch(comfy: Comfy, file: Found) -> OutputFile | JobError:
    output = OutputFile(node=file.node, name=file.filename, subfolder=file.asked_subfolder)
    where = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    status = await comfy.view(where, output.write)
    if status == 400:
        text = f"node {file.node} saved the file {file.filename!r}, but ComfyUI hands out no name like that"
        return JobError(f"{text}; choose a filename_prefix without '..'", "output_missing")
    if status != 200:
        # Seen when a cached node names a file that somebody has deleted (comfyui.md [42]).
        text = f"node {file.node} names the file {file.filename!r}, but ComfyUI has it no longer (HTTP {status})"
        return JobError(f"{text}; change an input of that node, so that ComfyUI makes it anew", "output_missing")
    return output
