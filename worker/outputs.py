"""What a history entry holds, taken apart into files to fetch and datas, so that nothing is silently dropped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.aside import at_most
from worker.comfy import Comfy
from worker.errors import JobError
from worker.files import OutputFile

Datas = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file that a history entry names. type: output, temp or input, ComfyUI's three folders."""

    node: str
    filename: str
    subfolder: str
    type: str


def collect(entry: Mapping[str, Any], workflow: Mapping[str, Any], *, temp: bool) -> tuple[list[Found], Datas]:
    """The files, in the workflow's order (the entry's own is arbitrary), and everything that is not a file.

    Files of type temp are previews: they count only if the job asks for them."""
    outputs = entry.get("outputs") or {}
    order = {node: place for place, node in enumerate(workflow)}
    files: list[Found] = []
    datas: Datas = {}
    for node in sorted(outputs, key=lambda node: order.get(node, len(order))):
        for key, value in outputs[node].items():
            items = value if isinstance(value, list) else [value]
            found = [_file(node, item) for item in items]
            files += [file for file in found if file and (temp or file.type != "temp")]
            rest = [item for item, file in zip(items, found, strict=True) if file is None]
            if rest or not items:
                datas.setdefault(node, {})[key] = rest if isinstance(value, list) else value
    return files, datas


async def fetch(comfy: Comfy, files: Iterable[Found]) -> list[OutputFile | JobError]:
    """The bytes of each file from /view, or why it is not to be had."""
    broken: list[JobError] = []

    async def one(file: Found) -> OutputFile | JobError:
        if broken:  # a ComfyUI that hangs would be waited for once for each file
            return broken[0]
        try:
            return await _fetch(comfy, file)
        except JobError as error:
            broken.append(error)
            return error

    return await at_most(4, one, files)


def _file(node: str, item: Any) -> Found | None:
    if not isinstance(item, dict) or not isinstance(item.get("filename"), str) or not item["filename"]:
        return None
    subfolder, folder = str(item.get("subfolder") or ""), str(item.get("type") or "output")
    return Found(node=node, filename=item["filename"], subfolder=subfolder, type=folder)


async def _fetch(comfy: Comfy, file: Found) -> OutputFile | JobError:
    output = OutputFile(node=file.node, name=file.filename)
    where = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
    status = await comfy.view(where, output.write)
    if status != 200:
        # Seen when a cached node names a file that somebody has deleted (comfyui.md [42]).
        text = f"node {file.node} names the file {file.filename!r}, but ComfyUI has it no longer (HTTP {status})"
        return JobError(f"{text}; change an input of that node, so that ComfyUI makes it anew", "output_missing")
    return output
