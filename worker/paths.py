"""Where the names of a job's files, and the paths in its workflow, may lead. Shared with the control plane: standard
library only."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

JOB_FOLDER = re.compile(r"hearth-[0-9a-f]{32}")  # a job's own folder on ComfyUI's disk, a name nobody can guess
SAVE_PREFIX = "filename_prefix"
WRAP = "__value__"  # {"__value__": [1, 2]} is how a list is given that is no link
PATHS = {
    *(SAVE_PREFIX, "subfolder", "folder", "folder_path", "directory", "dir", "path", "save_path", "output_path"),
    *("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "mask", "mask_path"),
    *("audio", "audio_path", "video", "video_path", "latent", "model_file", "recording", "normal", "lineart"),
}
"""Inputs of nodes that ComfyUI or well-known custom nodes join to a folder, most without a look at where it leads."""
HOLDS_TEXT = (str, dict, list)
LONGEST_PATH, LONGEST_NAME_BYTES = 4096, 255  # of a path and of one part of it, as file systems take them
ANNOTATION = re.compile(r".?\[(input|output|temp)\]$", re.DOTALL)  # ComfyUI cuts one character before it as well
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^[A-Za-z]:")  # lone surrogates have no UTF-8


def name_fault(name: str) -> str:
    """Why a name of input.files is no relative path without tricks; "" if it is. It becomes a path beside ComfyUI."""
    parts = name.split("/")
    if UNFIT.search(name) or "\\" in name:
        return "has a backslash, a drive or a control character"
    if any(part in ("", ".", "..") for part in parts):
        return "is absolute or leaves its folder; send a plain file name"
    if JOB_FOLDER.search(name):
        return "is like that of a job's own folder; send another"
    if any(len(part.encode()) > LONGEST_NAME_BYTES for part in parts):
        return f"has a part longer than {LONGEST_NAME_BYTES} bytes"
    return ""


def paths_fault(workflow: Mapping[str, Any], names: Iterable[str]) -> str:
    """Which input of which node would reach outside of what is this job's, and why; "" if none does.

    ComfyUI opens `../x`, `/x` and `x [output]` for any tenant, so they are refused here. names: those of the job's
    own files, which may be annotated. Text is let through: only inputs known to be paths are judged fully.
    """
    own = {f"{name} [{folder}]" for name in names for folder in ("output", "temp")}
    for node, about in workflow.items():
        inputs = about.get("inputs") if isinstance(about, dict) else None
        for name, value in _texts(inputs if isinstance(inputs, dict) else {}):
            if not value.isalnum() and value not in own and (fault := _path_fault(name, value)):
                return f"node {node[:80]!r}, input {name[:80]!r}: {value[:80]!r} {fault}"
    return ""


def plain_prefix(prefix: str) -> str:
    """A save prefix without the folder of an earlier job, which is in every file that job made with its workflow."""
    return re.sub(rf"^{JOB_FOLDER.pattern}/?", "", prefix)


def unwrapped(value: Any) -> Any:
    """An input's value as ComfyUI takes it: {"__value__": x} is x."""
    return value[WRAP] if isinstance(value, dict) and WRAP in value else value


def _texts(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text at any depth, by the nearest name. Links hold one too, a node's id, which is harmless."""
    waiting = [(name, value) for name, value in inputs.items() if isinstance(value, HOLDS_TEXT)]
    while waiting:  # no recursion: a client may nest deeper than Python's stack is
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            waiting += [
                (name if key == WRAP else key, inner) for key, inner in value.items() if isinstance(inner, HOLDS_TEXT)
            ]
        else:
            waiting += [(name, inner) for inner in value if isinstance(inner, HOLDS_TEXT)]


def _path_fault(name: str, value: str) -> str:
    value = plain_prefix(value) if name == SAVE_PREFIX else value
    if "hearth-" in value and JOB_FOLDER.search(value):
        return "names a job's own folder; give the file's name as it was in that job's files"
    if ".." in value and _leads_up(ANNOTATION.sub("", value), is_path=name in PATHS):
        return "leaves its folder by '..'; send a name inside of it"
    return _known_path_fault(value) if name in PATHS else ""


def _leads_up(path: str, *, is_path: bool) -> bool:
    """Whether `..` is a part of it. What may be text is judged only if it is one word and no URL."""
    if not is_path and (re.search(r"\s", path) or "://" in path):
        return False
    return any(part.strip() == ".." for part in re.split(r"[/\\]", path))


def _known_path_fault(value: str) -> str:
    if UNFIT.search(value):
        return "has a drive or a control character; send a plain name"
    jpeg = value.startswith("/9j/")  # in base64, as some nodes take it
    if value.startswith(("/", "\\")) and not jpeg and len(posixpath.normpath(value)) <= LONGEST_PATH:
        return "is an absolute path; send a name inside of ComfyUI's folder"
    if value.endswith(("[output]", "[temp]")):
        return "is in a folder that all jobs share; send the file with the job, in input.files"
    return ""
