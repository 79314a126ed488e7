"""What a job leaves on ComfyUI's disk, and its removal where the worker can see that disk (COMFYUI_DIR).

ComfyUI deletes nothing, and has no route for it: without this, inputs and outputs of all tenants pile up beside it.
"""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def new_folder() -> str:
    """A job's own folder under ComfyUI's input and output, by a name that no other tenant's workflow can guess."""
    return f"hearth-{secrets.token_hex(16)}"


def saving_into(folder: str, workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow with its files saved inside `folder`.

    It also makes equal workflows differ where they save: from its cache ComfyUI would name the files of the job
    before, which are gone (comfyui.md [42])."""

    def node(about: Any) -> Any:
        inputs = about.get("inputs") if isinstance(about, dict) else None
        if not isinstance(inputs, dict) or not isinstance(inputs.get("filename_prefix"), str):
            return about
        return about | {"inputs": inputs | {"filename_prefix": f"{folder}/{inputs['filename_prefix']}"}}

    return {id: node(about) for id, about in workflow.items()}


def remove(comfyui_dir: str, folder: str) -> None:
    for kind in ("input", "output", "temp"):
        # Not every job has all three, and a file that cannot be deleted must not cost the job its result.
        shutil.rmtree(Path(comfyui_dir) / kind / folder, ignore_errors=True)
