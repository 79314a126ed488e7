"""ComfyUI's check of a prompt, on the compiled catalogue: every fault of a workflow that it would refuse.

As in ComfyUI only what the outputs need is looked at, but for unknown classes; and one sound output is enough, since
ComfyUI then runs that part. Without recursion: a chain of thousands of nodes is a workflow too.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from jobs.graph.classes import ANY, Catalogue, Choices, Input, NodeClass
from jobs.graph.faults import MANY, Fault, quoted
from worker.kinds import is_model
from worker.paths import unwrapped

Graph = Mapping[str, Mapping[str, Any]]
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
FEW_CHOICES = 8
FOLDERS = (" [input]", " [output]", " [temp]")


def check(catalogue: Catalogue, graph: Graph, brought: Collection[str] = ()) -> list[Fault]:
    """The faults of a workflow; none if ComfyUI might accept it. `brought`: the names of the job's own files.

    Each node is an object with `class_type` and `inputs`.
    """
    return _Check(catalogue, graph, brought).faults()


class _Check:
    """sound: the verdict on each node that was looked at, with all above it. above: the nodes its inputs link to."""

    def __init__(self, catalogue: Catalogue, graph: Graph, brought: Collection[str]) -> None:
        self._classes = catalogue.classes
        self._graph = graph
        self._brought = brought
        self._sound: dict[str, bool] = {}
        self._above: dict[str, list[str]] = {}
        self._faults: dict[str, list[Fault]] = {}
        self._circle: list[Fault] = []
        self._found = 0
        self._unfollowed = False  # whether there was a link where none is declared, or its type cannot be judged

    def faults(self) -> list[Fault]:
        if unknown := [node for node, about in self._graph.items() if about["class_type"] not in self._classes]:
            return [self._unknown_class(node) for node in unknown]
        outputs = [node for node, about in self._graph.items() if self._classes[about["class_type"]].is_output]
        if not outputs:
            said = "no node of it is an output, such as SaveImage: nothing would be made"
            return [Fault(node="", type="prompt_no_outputs", said=said)]
        good = [output for output in outputs if self._is_sound(output)]
        if good:
            return list(self._dead_ends(good)) if self._unfollowed else []
        return [*self._circle, *(fault for faults in self._faults.values() for fault in faults)]

    def _unknown_class(self, node: str) -> Fault:
        given = self._graph[node]["class_type"]
        said = f"class {quoted([given])}"
        return Fault(node=node, type="invalid_prompt", said=said, word=given, among=self._classes, absent=True)

    def _is_sound(self, output: str) -> bool:
        """Look at a node and all above it, each once, those above first."""
        if output in self._sound:
            return self._sound[output]
        path = {output: iter(self._look_at(output))}
        while path:
            node, above = next(reversed(path.items()))
            source = next(above, None)
            if source is None:
                del path[node]
                # not yet known of a node is whether it is sound when it leads back to itself
                self._sound[node] = not self._faults[node] and all(self._sound.get(s) for s in self._above[node])
            elif source in path:
                self._circle = self._circle or [_cycle(source, list(path))]
            elif source not in self._sound:
                path[source] = iter(self._look_at(source))
        return self._sound[output]

    def _look_at(self, node: str) -> list[str]:
        """Note the faults of a node's own inputs; the nodes that the others link to."""
        about = self._graph[node]
        kind, given = self._classes[about["class_type"]], about["inputs"]
        faults: list[Fault] = []
        above: list[str] = []
        for name, wanted in kind.inputs.items():
            if faults and self._found > MANY:  # one more is enough to know that this node is not sound
                break
            if name not in given:
                if wanted.required:
                    faults.append(_missing(node, name, kind, given))
            elif not isinstance(given[name], list):
                if fault := self._constant(node, name, kind, wanted, given[name]):
                    faults.append(fault)
            elif wanted.type is None:
                self._unfollowed = True
            elif fault := self._link(node, name, kind, wanted, given[name]):
                faults.append(fault)
            else:
                above.append(given[name][0])
        if not given.keys() <= kind.inputs.keys():
            self._unfollowed |= any(isinstance(given[name], list) for name in given.keys() - kind.inputs.keys())
        self._faults[node], self._above[node] = faults, above
        self._found += len(faults)
        return above

    def _link(self, node: str, name: str, kind: NodeClass, wanted: Input, link: list[Any]) -> Fault | None:
        def fault(type: str, said: str, word: str = "", among: Collection[str] = ()) -> Fault:
            return Fault(node=node, type=type, said=said, input=name, given=link, word=word, among=among)

        if len(link) != 2:
            return fault("bad_linked_input", f"input {quoted([name])} is a list, but no link [node id, slot]")
        raised = "exception_during_validation" if kind.is_output else "exception_during_inner_validation"
        source, slot = link
        if not isinstance(source, str) or source not in self._graph:
            said = f"input {quoted([name])} links to node {quoted([source])}, which is not there"
            return fault(raised, said, _text(source), self._graph)
        outputs = self._classes[self._graph[source]["class_type"]].outputs
        if outputs is None:
            return None
        if not isinstance(slot, int) or not -len(outputs) <= slot < len(outputs):
            said = f"input {quoted([name])} links to slot {quoted([slot])} of node {quoted([source])}, which has "
            return fault(raised, said + (f"slots 0 to {len(outputs) - 1}" if outputs else "none"))
        if kind.core and not _match(outputs[slot], wanted.type):
            said = f"input {quoted([name])} is {wanted.type}, but node {quoted([source])} gives {outputs[slot]}"
            return fault("return_type_mismatch", said)
        return None

    def _constant(self, node: str, name: str, kind: NodeClass, wanted: Input, value: Any) -> Fault | None:
        value = unwrapped(value)
        convert = CONVERSIONS.get(wanted.type or "")
        if convert is not None:
            try:
                value = convert(value)
            except (ValueError, TypeError, OverflowError):
                said = f"input {quoted([name])} must be {wanted.type}, not {quoted([value])}"
                return Fault(node=node, type="invalid_input_type", said=said, input=name, given=value)
        if wanted.choices is not None:
            chosen = self._chosen(kind, wanted.choices, value)
            return None if chosen else _not_in_list(node, name, wanted.choices, value)
        return _out_of_bounds(node, name, wanted, value) if isinstance(value, int | float) else None

    def _chosen(self, kind: NodeClass, choices: Choices, value: Any) -> bool:
        try:
            if value in choices.valid:
                return True
        except TypeError:  # an object or a list is no choice
            return not kind.core
        return self._brings(value) or not (kind.core or is_model(value))

    def _brings(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        return value in self._brought or any(value.removesuffix(folder) in self._brought for folder in FOLDERS)

    def _dead_ends(self, good: list[str]) -> Iterator[Fault]:
        """Links to nowhere in what would run. ComfyUI accepts one in an input that the class does not declare, and its
        executor then stops for good."""
        seen, left = set(good), list(good)
        while left:
            node = left.pop()
            for name, value in self._graph[node]["inputs"].items():
                if not _is_link(value) or value[0] in seen:
                    continue
                if value[0] in self._graph:
                    seen.add(value[0])
                    left.append(value[0])
                    continue
                said = f"input {quoted([name])} links to node {quoted([value[0]])}, which is not there"
                yield Fault(node=node, type="node_missing", said=said, input=name, given=value)


def _missing(node: str, name: str, kind: NodeClass, given: Mapping[str, Any]) -> Fault:
    unknown = [other for other in given if other not in kind.inputs]
    said = f"required input {quoted([name])} is missing"
    return Fault(node=node, type="required_input_missing", said=said, input=name, word=name, among=unknown)


def _cycle(again: str, path: list[str]) -> Fault:
    """`path`: nodes, each fed by the next; the last is fed by `again`, which is among them."""
    circle = path[path.index(again) :]
    shown = [*circle[:FEW_CHOICES], again] if len(circle) <= FEW_CHOICES else [*circle[:FEW_CHOICES], "…", again]
    said = "the links run in a circle: " + " ← ".join(quoted([each]) for each in shown)
    return Fault(node=path[-1], type="dependency_cycle", said=said)


def _out_of_bounds(node: str, name: str, wanted: Input, value: float) -> Fault | None:
    if wanted.low is not None and value < wanted.low:
        type, word = "value_smaller_than_min", f"smaller than its minimum of {wanted.low}"
    elif wanted.high is not None and value > wanted.high:
        type, word = "value_bigger_than_max", f"bigger than its maximum of {wanted.high}"
    else:
        return None
    return Fault(node=node, type=type, said=f"input {quoted([name])} is {value}, {word}", input=name, given=value)


def _not_in_list(node: str, name: str, choices: Choices, value: Any) -> Fault:
    model = is_model(value) or choices.are_models
    said = f"model {quoted([value])}" if model else f"input {quoted([name])} has no choice {quoted([value])}"
    if not model and len(choices.listed) <= FEW_CHOICES:
        said += f", but {quoted(choices.listed) or 'none at all'}"
    return Fault(
        node=node,
        type="value_not_in_list",
        said=said,
        input=name,
        given=value,
        word=_text(value),
        among=choices.listed,
        absent=model,
    )


def _match(given: str | None, wanted: str | None) -> bool:
    """ComfyUI's rule for types: two lists as in "INT,FLOAT" have one in common."""
    if given is None or wanted is None or given == wanted:
        return True
    ours, theirs = ({kind.strip() for kind in kinds.split(",")} for kinds in (given, wanted))
    return ANY in ours | theirs or not ours.isdisjoint(theirs)


def _is_link(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
