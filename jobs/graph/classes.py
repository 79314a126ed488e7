"""The node catalogue (/object_info), compiled into what a workflow can be held to.

ComfyUI's own classes (`core`) are known by their source. Of the classes of others /object_info keeps back two things
that decide: whether they have a VALIDATE_INPUTS, which replaces the checks of ranges, choices and types, and whether
their types are plain strings. So of those only what ComfyUI always checks is judged, and names of missing models.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.kinds import is_model
from worker.wire import is_core, lists_files, takes_files

ANY = "*"
DYNAMIC = "COMFY_"  # types whose inputs the node makes up: COMFY_AUTOGROW_V3 and the like

# ComfyUI's own classes with a VALIDATE_INPUTS that replaces checks, beside those that load files: all of their inputs.
OWN_CHECKS = {"TripoConversionNode", "KlingCameraControls", "LoadImageSetNode"}


@dataclass(frozen=True, slots=True)
class Choices:
    """The values that an input may have: to look one up, and in ComfyUI's order."""

    valid: frozenset[Any]
    listed: tuple[Any, ...]

    @property
    def are_models(self) -> bool:
        return any(is_model(value) for value in self.listed)


@dataclass(frozen=True, slots=True)
class Input:
    """type: a plain type, None when it cannot be judged. low, high: bounds of a number. file: of an upload."""

    required: bool
    type: str | None
    low: float | None = None
    high: float | None = None
    choices: Choices | None = None
    file: bool = False


@dataclass(frozen=True, slots=True)
class NodeClass:
    """outputs: the type of each slot, None for one that cannot be judged; None when the slots cannot."""

    core: bool
    is_output: bool
    inputs: Mapping[str, Input]
    outputs: tuple[str | None, ...] | None


class Malformed(ValueError):
    """This is no node catalogue; the message says why."""


class Catalogue:
    """The classes of one ComfyUI by name. Raises Malformed."""

    def __init__(self, object_info: Any) -> None:
        if not isinstance(object_info, dict) or not object_info:
            raise Malformed("a node catalogue is an object of node classes by name, and has at least one")
        compile = _Compiler()
        self.classes = {name: compile.node_class(name, info) for name, info in object_info.items()}


class _Compiler:
    """Model lists are long and the same in many classes: each is kept once. So are inputs that are all alike."""

    def __init__(self) -> None:
        self._choices: dict[tuple[Any, ...], Choices] = {}
        self._inputs: dict[Input, Input] = {}

    def node_class(self, name: str, info: Any) -> NodeClass:
        if not isinstance(info, dict):
            raise Malformed(f"the class {name[:80]!r} is not described by an object")
        core = is_core(info.get("python_module")) and name not in OWN_CHECKS
        declared = info.get("input")
        inputs = {}
        for category in ("required", "optional"):
            for key, config in _mapping(declared, category):
                if key not in inputs:  # what is in both is required
                    inputs[key] = self._input(core, category == "required", name, key, config)
        is_output = info.get("output_node") is not False  # not told: perhaps
        return NodeClass(core, is_output, inputs, _outputs(info.get("output")) if core else None)

    def _input(self, core: bool, required: bool, name: str, key: str, config: Any) -> Input:
        made = self._described(core, required, name, key, config)
        return self._inputs.setdefault(made, made)

    def _described(self, core: bool, required: bool, name: str, key: str, config: Any) -> Input:
        if not isinstance(config, list) or not config:
            return Input(False, None)
        kind, options = config[0], config[1] if len(config) > 1 and isinstance(config[1], dict) else {}
        file = takes_files(name, key, options)
        if isinstance(kind, list):
            several = any(options.get(flag) not in (None, False) for flag in ("multiselect", "multi_select"))
            judged = not several and not lists_files(name, key, options)
            return Input(required, "COMBO", choices=self._choices_of(core, kind) if judged else None, file=file)
        if not isinstance(kind, str) or kind.startswith(DYNAMIC):
            return Input(False, None)
        low, high = (_bound(options, bound) if core else None for bound in ("min", "max"))
        return Input(required, kind, low, high, file=file)

    def _choices_of(self, core: bool, listed: list[Any]) -> Choices | None:
        try:
            key = tuple(listed)
            found = self._choices.get(key) or Choices(frozenset(key), key)
        except TypeError:  # choices that are objects
            return None
        self._choices[key] = found
        return found if core or found.are_models else None


def _mapping(declared: Any, category: str) -> Iterator[tuple[str, Any]]:
    inputs = declared.get(category) if isinstance(declared, dict) else None
    if isinstance(inputs, dict):
        yield from inputs.items()


def _bound(options: Mapping[str, Any], name: str) -> float | None:
    bound = options.get(name)
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
        return None
    return bound


def _outputs(outputs: Any) -> tuple[str | None, ...] | None:
    if not isinstance(outputs, list):
        return None
    return tuple(kind if isinstance(kind, str) and not kind.startswith(DYNAMIC) else None for kind in outputs)
