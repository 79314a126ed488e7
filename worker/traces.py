"""What a job leaves on ComfyUI's disk, and its removal where the worker can see that disk (COMFYUI_DIR).

ComfyUI deletes nothing, and has no route for it: without this, inputs and outputs of all tenants pile up beside it.
"""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.outputs import Found
from worker.paths import JOB_FOLDER, SAVE_PREFIX, plain_prefix, unwrapped

log = logging.getLogger("hearth.worker")

KINDS = ("input", "output", "temp")
MARK = "hearth"
PREFIXES = {"SaveLoRANode": "prefix", "SaveLoRA": "prefix"}  # inputs that are save prefixes by another name
QUIET = {"CheckpointSave", "CLIPSave", "ImageOnlyCheckpointSave", "LoraSave", "ModelSave", "VAESave", *PREFIXES}
"""ComfyUI's own classes that save a file and tell nobody. Models saved at their default places can be loaded by all."""
NO_FOLDER = "LossGraphNode"  # saves into temp/ and makes no folder for its prefix
DEFAULT_PREFIX = "ComfyUI"


def new_folder() -> str:
    """A job's own folder under ComfyUI's input and output, by a name that no other tenant's workflow can guess."""
    return f"hearth-{secrets.token_hex(16)}"


def saving_into(folder: str, workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow with its files saved inside `folder`.

    It also makes equal workflows differ where they save or preview: from its cache ComfyUI would name the files of
    the job before, which are gone (comfyui.md [42]). Nodes without a prefix get an input more, which ComfyUI ignores
    but for its cache. A prefix that comes by a link stays, but where nothing would tell where it leads."""

    def node(about: Any) -> Any:
        inputs = about.get("inputs") if isinstance(about, dict) else None
        if not isinstance(inputs, dict):
            return about
        kind = str(about.get("class_type"))
        name = PREFIXES.get(kind, SAVE_PREFIX)
        if isinstance(inputs.get(name), list) and kind in {*QUIET, NO_FOLDER}:
            inputs = inputs | {name: DEFAULT_PREFIX}
        if name in inputs and not isinstance(inputs[name], list) and kind != NO_FOLDER:
            prefix = plain_prefix(str(unwrapped(inputs[name])))
            return about | {"inputs": inputs | {name: f"{folder}/{prefix if prefix.strip('./') else DEFAULT_PREFIX}"}}
        shows = re.search("save|preview|combine|graph", kind, re.IGNORECASE)
        return about | {"inputs": inputs | {MARK: folder}} if shows else about

    return {id: node(about) for id, about in workflow.items()}


def prefixes(folder: str, workflow: Mapping[str, Any]) -> dict[str, str]:
    """By node, the save prefixes that saving_into has put into the job's folder."""
    return {id: prefix for id, about in workflow.items() if (prefix := _prefix_in(folder, about))}


def is_inside(folder: str, files: Iterable[Found]) -> bool:
    """Whether all of them lie in the job's folder."""
    return all(file.subfolder.split("/")[0] == folder for file in files)


def untold(
    comfyui_dir: str, folder: str, prefixes: Mapping[str, str], told: Collection[Found], failed: Collection[str] = ()
) -> list[Found]:
    """The files in the job's folder of nodes that told of none, such as LoraSave. failed: nodes that may have left
    half of one.

    Files beside those that a node told of are its own business, like the sound-less film of VHS_VideoCombine."""
    known, told_by = {(file.subfolder, file.filename) for file in told}, {file.node for file in told}
    base = Path(comfyui_dir, "output", folder)
    found: list[Found] = []
    for path in sorted(path for path in base.rglob("*") if path.is_file() and not path.is_symlink()):
        place = path.relative_to(base)
        node, subfolder = _saved_by(str(place), prefixes, told_by), str(Path(folder, place.parent))
        if node and node not in {*told_by, *failed} and (subfolder, path.name) not in known:
            found.append(Found(node=node, filename=path.name, subfolder=subfolder, type="output"))
    return found


def unseen(workflow: Mapping[str, Any]) -> list[str]:
    """Where there is no COMFYUI_DIR: which nodes save what nobody can be told of."""
    quiet = ((id, about["class_type"]) for id, about in workflow.items() if about.get("class_type") in QUIET)
    return [f"node {id} ({kind}) saves a file and ComfyUI tells nobody: it cannot be returned" for id, kind in quiet]


def _prefix_in(folder: str, about: Any) -> str:
    """The prefix that a node was given inside of the job's folder; "" if it was given none."""
    inputs = about.get("inputs") if isinstance(about, dict) else None
    prefix = inputs.get(PREFIXES.get(str(about.get("class_type")), SAVE_PREFIX)) if isinstance(inputs, dict) else None
    return prefix.removeprefix(f"{folder}/") if isinstance(prefix, str) and prefix.startswith(f"{folder}/") else ""


def _saved_by(place: str, prefixes: Mapping[str, str], told_by: Collection[str]) -> str:
    """The node with the longest prefix that fits, of two the one that tells nothing; "" if none does."""
    fitting: dict[str, tuple[int, bool]] = {}
    for id, prefix in prefixes.items():
        pattern = re.sub(r"%[^%/]+%", "[^/]*", re.escape(os.path.normpath(prefix)))  # %year%, %date:…%
        if re.match(pattern, place):
            fitting[id] = len(prefix), id not in told_by
    return max(fitting, key=fitting.__getitem__, default="")


def remove(comfyui_dir: str, folder: str, files: Iterable[Found]) -> None:
    """The job's folders, and the files that its history names outside of them: previews, and what a node saved
    without a prefix."""
    files = list(files)
    if any(not os.path.lexists(os.path.join(comfyui_dir, file.type, file.subfolder, file.filename)) for file in files):
        log.warning("COMFYUI_DIR=%s has not all that ComfyUI named: its files stay if that is another's", comfyui_dir)
    clear(comfyui_dir, [folder], files)


def clear(comfyui_dir: str, folders: Iterable[str], files: Iterable[Found]) -> None:
    """What is still there of them. Never anything outside of output/ and temp/, whatever a node says, but jobs' own
    folders; nothing at all without a COMFYUI_DIR."""
    if not comfyui_dir:
        return
    for folder in filter(JOB_FOLDER.fullmatch, folders):
        for kind in KINDS:
            # Not every job has all three, and a file that cannot be deleted must not cost the job its result.
            shutil.rmtree(Path(comfyui_dir, kind, folder), ignore_errors=True)
    for file in files:
        with suppress(OSError, ValueError):
            _remove_file(os.path.realpath(os.path.join(comfyui_dir, file.type)), file)


def _remove_file(base: str, file: Found) -> None:
    """And the folders that are empty without it, since their names are the tenant's too."""
    folder = os.path.realpath(os.path.join(base, file.subfolder))
    if os.path.commonpath((base, folder)) != base:
        log.warning("node %s names a file outside of %s, which stays", file.node, base)
        return
    for name in (file.filename, *file.beside):
        path = os.path.join(folder, os.path.basename(name))
        if os.path.isfile(path):
            os.unlink(path)
    while folder != base:
        os.rmdir(folder)  # an OSError if something is in it
        folder = os.path.dirname(folder)


def folders(comfyui_dir: str) -> list[str]:
    """The jobs' folders that are there."""
    return [path.name for kind in KINDS for path in Path(comfyui_dir, kind).glob("hearth-*")]
