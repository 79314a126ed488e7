"""What a node class is, and what its function is given."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from worker.standin.files import Folders


class Interrupted(Exception):
    """POST /interrupt: raised by the next tick, or before the next node."""


@dataclass(frozen=True)
class Run:
    """tick(value, maximum, preview) tells of progress inside a node; it raises Interrupted. previews: the prompt asks
    for them, as ComfyUI's samplers make them."""

    folders: Folders
    tick: Callable[[int, int, Image.Image | None], None]
    previews: bool = False


@dataclass(frozen=True)
class Ui:
    """What an output node shows, as in history: {"images": [{"filename", "subfolder", "type"}], ...}, and what
    goes along its links."""

    shown: dict[str, list[Any]]
    outputs: tuple[Any, ...] = ()


Function = Callable[..., tuple[Any, ...] | Ui]
"""Called with a Run and the inputs by name; gives one value for each output, or a Ui."""


@dataclass(frozen=True)
class Node:
    """info: the class as /object_info tells it.

    checked: the inputs that `check(folders, **inputs)` judges in place of the usual bounds: None or what is wrong.
    fingerprint(folders, inputs): what beside the inputs decides whether a cached output may be used.
    choices(folders): for LoadImage and its like, the file names that /object_info offers for the checked input.
    """

    info: dict[str, Any]
    function: Function | None = None
    checked: tuple[str, ...] = ()
    check: Callable[..., str | None] | None = None
    fingerprint: Callable[[Folders, dict[str, Any]], Any] | None = None
    choices: Callable[[Folders], list[str]] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        return {**self.required, **self.info["input"].get("optional", {})}

    @property
    def required(self) -> dict[str, Any]:
        found: dict[str, Any] = self.info["input"].get("required", {})
        return found

    @property
    def hidden(self) -> dict[str, str]:
        """Newer classes put what they want into a list."""
        found = self.info["input"].get("hidden", {})
        return {name: wanted[0] if isinstance(wanted, list) else wanted for name, wanted in found.items()}

    @property
    def outputs(self) -> tuple[Any, ...]:
        return tuple(self.info["output"])

    def offered(self, folders: Folders) -> dict[str, Any]:
        """The class with the names of the files that are there now."""
        if self.choices is None:
            return self.info
        info, names = copy.deepcopy(self.info), self.choices(folders)
        config = info["input"]["required"][self.checked[0]]
        if config[0] == "COMBO":
            config[1]["options"] = names
        else:
            config[0] = names
        return info

    @property
    def output_node(self) -> bool:
        return bool(self.info["output_node"])

    def config(self, name: str) -> list[Any]:
        """[type or list of choices, options] of an input."""
        config = self.inputs[name]
        return [config[0], config[1] if len(config) > 1 else {}]
