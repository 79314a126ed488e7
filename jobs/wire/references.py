"""Files that a job's input names in place of their bytes: asset:<id>, s3://<S3 bucket>/<key>, https://….

In `files` and `images` any content may be one. In the workflow an asset is one wherever it stands, since nothing else
looks like it; the others only where the node's class takes an uploaded file: elsewhere they are text. In the input of a
raw endpoint, whose shape nobody knows, assets are, wherever they stand.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from jobs.wire.bodies import Part, shown
from worker.wire import FILE_INPUTS, FILES, MOST_REFERENCES, UrlRefused, check_url, named_files, reference

TakesFiles = Callable[[str, str], bool | None]
"""(node class, input) → whether it names an uploaded file; None: nobody has told."""


def NOBODY_TOLD(node_class: str, name: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An asset: or s3:// as it stands in the input, and where, for messages. `sure`: it can be nothing but a file.
    `loaded`: it stands where ComfyUI's own folder of uploaded files is meant, so that a URL there would be no use to
    a worker that does not fetch it."""

    text: str
    where: str
    sure: bool = True
    loaded: bool = True


def find_references(
    given: Mapping[str, Any], workflow: Mapping[str, Any], takes_files: TakesFiles
) -> tuple[tuple[Reference, ...], str]:
    """Those that Hearth has to find, and why one cannot be used, "" if all can."""
    found: dict[str, Reference] = {}
    for each in (*_in_files(given), *_in_workflow(workflow, takes_files)):
        if fault := _fault(each):
            return (), f"{each.where}: {fault}."
        before = found.get(each.text)
        if before is None or (each.sure, each.loaded) > (before.sure, before.loaded):
            found[each.text] = each
    if (number := sum(each.sure for each in found.values())) > MOST_REFERENCES:
        return (), f"The input names {number} files that are elsewhere; at most {MOST_REFERENCES} are fetched."
    return tuple(each for each in found.values() if not _is_url(each.text)), ""


def _is_url(text: str) -> bool:
    match = reference(text)
    return match is not None and match["web"] is not None


def _in_files(given: Mapping[str, Any]) -> Iterator[Reference]:
    for key in FILES:
        for name, content in named_files(given.get(key)):
            if isinstance(content, str) and ":" in content[:8] and content[:5].lower() != "data:":
                yield Reference(text=content, where=f"`input.{key}`, {shown(name)}")


def _in_workflow(workflow: Mapping[str, Any], takes_files: TakesFiles) -> Iterator[Reference]:
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            if match := reference(value):
                told = f"{node['class_type']}.{name}" in LOADERS or takes_files(node["class_type"], name)
                takes = True if match["asset"] else told
                if takes is not False:
                    where = f"Node {node_id[:80]} ({node['class_type'][:80]}), input {shown(name)}"
                    yield Reference(text=value, where=where, sure=takes is True, loaded=told is True)


# ComfyUI's own, whether a worker has told of its classes or not.
LOADERS = {"LoadImage.image", "LoadImageMask.image", "LoadImageOutput.image", "LoadAudio.audio", "LoadVideo.file"}
LOADERS |= {"Load3D.model_file", "Load3DAnimation.model_file", *FILE_INPUTS}


def find_assets(given: Part) -> tuple[Reference, ...]:
    """Those of an input of any shape."""
    if b"asset:" not in given.raw:
        return ()
    found: dict[str, Reference] = {}
    waiting: list[tuple[str, Any]] = [("input", given.value)]
    while waiting:  # no recursion: a client may nest deeper than Python's stack is
        where, value = waiting.pop()
        if (match := reference(value)) and match["asset"]:
            found.setdefault(value, Reference(text=value, where=f"`{where[:200]}`", loaded=False))
        elif isinstance(value, dict):
            waiting += [(f"{where}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{where}[{at}]", inner) for at, inner in enumerate(value)]
    return tuple(found.values())


def _fault(given: Reference) -> str:
    match = reference(given.text)
    if match is None:
        return f"{shown(given.text)} is no asset:<id>, s3://<S3 bucket>/<key>, https URL, base64 or data URI"
    if match["web"] and given.sure:
        try:
            check_url(given.text, settings.URL_ALLOW)
        except UrlRefused as error:
            return f"{shown(given.text)}: {error}"
    return ""
