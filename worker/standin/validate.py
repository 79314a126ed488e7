"""ComfyUI's check of a prompt before it is queued, with its error bodies. Coerces constants in place, as ComfyUI does.

Where ComfyUI stumbles (a KeyError for a link to nowhere) this stumbles likewise, since the exception is in the reply.
"""

import traceback
from typing import Any

from worker.standin.files import Folders
from worker.standin.graph import Graph, is_link
from worker.standin.node import Node
from worker.standin.nodes import NODES

MESSAGES = {
    "required_input_missing": "Required input is missing",
    "bad_linked_input": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
    "return_type_mismatch": "Return type mismatch between linked nodes",
    "exception_during_inner_validation": "Exception when validating inner node",
    "exception_during_validation": "Exception when validating node",
    "value_not_in_list": "Value not in list",
    "custom_validation_failed": "Custom validation failed for node",
}
CONVERSIONS: dict[str, type] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
LONGEST_LIST_SHOWN = 20


class Refused(Exception):
    """A whole prompt is refused: `error` and `node_errors` as in the 400 reply."""

    def __init__(self, kind: str, message: str, details: str, node_errors: dict[str, Any]):
        super().__init__(message)
        self.body = {
            "error": {"type": kind, "message": message, "details": details, "extra_info": {}},
            "node_errors": node_errors,
        }


def full_type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def validate(graph: Any, targets: list[str] | None, folders: Folders) -> tuple[list[str], dict[str, Any]]:
    """(valid outputs, node_errors of the others). Refused if there is none; any exception a 500 on the wire.

    The outputs come in an order that is not the graph's: ComfyUI keeps them in a set. Here it is the reverse.
    """
    outputs = [node for node in _outputs(graph) if targets is None or node in targets][::-1]
    if not outputs:
        raise Refused("prompt_no_outputs", "Prompt has no outputs", "", {})
    check = Validation(graph, folders)
    good = [output for output in outputs if check.output(output)]
    if not good:
        kind, message = "prompt_outputs_failed_validation", "Prompt outputs failed validation"
        raise Refused(kind, message, "\n".join(check.details), check.node_errors)
    return good, check.node_errors


def _outputs(graph: Any) -> list[str]:
    found = []
    for node in graph:
        if "class_type" not in graph[node]:
            message = "Cannot execute because a node is missing the class_type property."
            raise Refused("invalid_prompt", message, f"Node ID '#{node}'", {})
        kind = NODES.get(graph[node]["class_type"])
        if kind is None:
            message = f"Cannot execute because node {graph[node]['class_type']} does not exist."
            raise Refused("invalid_prompt", message, f"Node ID '#{node}'", {})
        if kind.output_node:
            found.append(node)
    return found


class Validation:
    """errors: of each node looked at; an empty list with `valid` False means that something above it is wrong."""

    def __init__(self, graph: Graph, folders: Folders):
        self.graph, self.folders = graph, folders
        self.valid: dict[str, bool] = {}
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self.details: list[str] = []
        self.node_errors: dict[str, Any] = {}
        self._open: set[str] = set()

    def output(self, output: str) -> bool:
        try:
            if self.node(output):
                return True
        except Exception as error:
            extra = {"exception_type": full_type_name(error), "traceback": traceback.format_tb(error.__traceback__)}
            self._settle(output, [_error("exception_during_validation", str(error), extra)])
        self.details += [f"{error['message']}: {error['details']}" for error in self.errors[output]]
        for node, errors in self.errors.items():
            if errors:
                kind = self.graph[node]["class_type"]
                report = {"errors": errors, "dependent_outputs": [], "class_type": kind}
                self.node_errors.setdefault(node, report)["dependent_outputs"].append(output)
        return False

    def node(self, node: str) -> bool:
        """Check a node and all above it. A cycle is invalid without an error of its own."""
        if node in self.valid or node in self._open:
            return self.valid.get(node, False)
        self._open.add(node)
        inputs, kind = self.graph[node]["inputs"], NODES[self.graph[node]["class_type"]]
        errors: list[dict[str, Any]] = []
        above = [self._input(kind, name, inputs, errors) for name in kind.inputs]
        if kind.check is not None:
            errors += _custom(kind, inputs, self.folders)
        self._settle(node, errors, all(above) and not errors)
        return self.valid[node]

    def _settle(self, node: str, errors: list[dict[str, Any]], valid: bool = False) -> None:
        self._open.discard(node)
        self.valid[node], self.errors[node] = valid, errors

    def _input(self, kind: Node, name: str, inputs: dict[str, Any], errors: list[dict[str, Any]]) -> bool:
        """Add to `errors` what is wrong with the input itself; False if a node above it is invalid."""
        if name not in inputs:
            if name in kind.required:
                errors.append(_error("required_input_missing", name, {"input_name": name}))
        elif isinstance(inputs[name], list):
            return self._link(kind, name, inputs[name], errors)
        else:
            errors += _constant(kind, name, inputs)
        return True

    def _link(self, kind: Node, name: str, link: list[Any], errors: list[dict[str, Any]]) -> bool:
        about = {"input_name": name, "input_config": kind.config(name)}
        if len(link) != 2:
            errors.append(_error("bad_linked_input", name, {**about, "received_value": link}))
            return True
        received = NODES[self.graph[link[0]]["class_type"]].outputs[link[1]]
        wanted = kind.config(name)[0]
        if not _types_match(received, wanted):
            details = f"{name}, received_type({received}) mismatch input_type({wanted})"
            about |= {"received_type": received, "linked_node": link}
            errors.append(_error("return_type_mismatch", details, about))
            return True
        try:
            return self.node(link[0])
        except Exception as error:
            about |= {"exception_message": str(error), "exception_type": full_type_name(error)}
            about |= {"traceback": traceback.format_tb(error.__traceback__), "linked_node": link}
            self._settle(link[0], [_error("exception_during_inner_validation", str(error), about)])
            return False


def _error(kind: str, details: str, extra_info: dict[str, Any], message: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message or MESSAGES[kind], "details": details, "extra_info": extra_info}


def _types_match(received: Any, wanted: Any) -> bool:
    if wanted == "*" or received == wanted:
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool({part.strip() for part in received.split(",")} & {part.strip() for part in wanted.split(",")})


def _constant(kind: Node, name: str, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Coerce inputs[name] in place and check it: at most one error."""
    (wanted, options), value = kind.config(name), inputs[name]
    about: dict[str, Any] = {"input_name": name, "input_config": kind.config(name)}
    try:
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        if isinstance(wanted, str) and wanted in CONVERSIONS:
            value = CONVERSIONS[wanted](value)
        inputs[name] = value
    except Exception as error:
        message = f"Failed to convert an input value to a {wanted} value"
        about |= {"received_value": value, "exception_message": str(error)}
        return [_error("invalid_input_type", f"{name}, {value}, {error}", about, message)]
    about["received_value"] = value
    if kind.check is not None and name in kind.checked:
        return []
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_error("value_smaller_than_min", name, about, message)]
    if "max" in options and value > options["max"]:
        return [_error("value_bigger_than_max", name, about, f"Value {value} bigger than max of {options['max']}")]
    if isinstance(wanted, list) and value not in wanted:  # a COMBO's options are not checked in this release
        return [_not_in_list(name, value, wanted, about)]
    return []


def _not_in_list(name: str, value: Any, wanted: list[Any], about: dict[str, Any]) -> dict[str, Any]:
    shown = str(wanted)
    if len(wanted) > LONGEST_LIST_SHOWN:
        shown, about["input_config"] = f"(list of length {len(wanted)})", None
    return _error("value_not_in_list", f"{name}: '{value}' not in {shown}", about)


def _custom(kind: Node, inputs: dict[str, Any], folders: Folders) -> list[dict[str, Any]]:
    assert kind.check is not None
    given = {name: None if is_link(inputs[name]) else inputs[name] for name in kind.checked if name in inputs}
    verdict = kind.check(folders, **given)
    if verdict is None:
        return []
    return [_error("custom_validation_failed", f"{name} - {verdict}", {"input_name": name}) for name in given]
