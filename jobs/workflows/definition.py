"""A version to be stored, checked: its graph, its parameters, and each path of theirs against the graph."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from accounts.errors import bad_request
from jobs.graph.faults import cut, quoted
from jobs.wire.bodies import kind, shown
from jobs.wire.workflow import EXPORT, graph_fault
from jobs.workflows.faults import Faults, Unfit
from jobs.workflows.parameters import EXACT, LONGEST_TEXT, NAME, WHOLE, Parameter, Type, is_number
from worker.paths import unwrapped

MOST_BYTES = 1024**2  # of a graph, and of its parameters
MOST_PARAMETERS, MOST_PATHS, MOST_CHOICES = 100, 50, 1000
LONGEST_TITLE, LONGEST_DESCRIPTION, LONGEST_CHOICE, LONGEST_PATH = 200, 2000, 500, 500
Place = tuple[str, str]  # a node's id, and the name of its input
INPUTS = ".inputs."


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is stored: both as JSON."""

    graph: str
    parameters: str


def define(graph: Any, parameters: Any) -> Definition:
    """Raises Refused(400): `invalid_workflow` for the graph, `invalid_parameters` with `params` for all that is wrong
    with these."""
    graph = read_graph(graph)
    made = parse(_exact("parameters", parameters, "invalid_parameters"))
    faults, places = Faults(), dict[Place, str]()
    for number, parameter in enumerate(made):
        try:
            made[number] = settled(parameter, graph)
            for path in parameter.paths:
                other = places.setdefault(place_of(graph, path), parameter.name)
                if other != parameter.name:
                    raise Unfit("invalid", f"has the path {quoted([path])}, as parameter {quoted([other])} has")
        except Unfit as fault:
            faults.add(parameter.name, fault)
    if faults:
        raise faults.refused("invalid_parameters")
    told = orjson.dumps([parameter.told() for parameter in made])
    return Definition(graph=orjson.dumps(graph).decode(), parameters=told.decode())


def read_graph(given: Any) -> dict[str, Any]:
    """The graph, which may be JSON text. Raises Refused(400)."""
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"`workflow` is a string that is not valid JSON: {error}.", "invalid_workflow") from error
    if not isinstance(given, dict):
        said = f"`workflow` must be an object (ComfyUI's API format), not {kind(given)}: {EXPORT}"
        raise bad_request(said, "invalid_workflow")
    graph: dict[str, Any] = _exact("workflow", given, "invalid_workflow")
    if fault := graph_fault(graph):
        raise bad_request(fault.replace("`input.workflow`", "`workflow`"), "invalid_workflow")
    return graph


def _exact(field: str, given: Any, code: str) -> Any:
    """What can be written as JSON for every reader, without a change. Raises Refused(400)."""
    try:
        text = orjson.dumps(given)
    except TypeError as error:  # a whole number of more than 64 bits, half a character, more than 254 levels
        raise bad_request(f"`{field}` cannot be stored as it is: {error}.", code) from error
    if orjson.loads(text) != given:
        raise bad_request(f"`{field}` has a number that is too large.", code)
    if len(text) > MOST_BYTES:
        raise bad_request(f"`{field}` has {len(text)} bytes as JSON; at most {MOST_BYTES} are stored.", code)
    return given


def place_of(graph: Mapping[str, Any], path: str) -> Place:
    """`6.inputs.text` → ("6", "text"). Both may have dots. Raises Unfit."""
    begin = path.find(INPUTS)
    known: Mapping[str, Any] | None = None
    while begin > 0:
        node, name = path[:begin], path[begin + len(INPUTS) :]
        if node in graph:
            known = graph[node]
            if name in known["inputs"]:
                return node, name
        begin = path.find(INPUTS, begin + 1)
    said = f"has the path {quoted([path])}, but "
    if known is not None:
        there, name = known["inputs"], path.rpartition(INPUTS)[2]
        raise Unfit(
            "invalid_path", f"{said}that node ({cut(known['class_type'])}) has no such input", path, name, there
        )
    if path.find(INPUTS) <= 0:
        raise Unfit("invalid_path", f"{said}a path is <node id>.inputs.<name of an input>", path)
    node = path.partition(INPUTS)[0]
    raise Unfit("invalid_path", f"{said}the workflow has no node {quoted([node])}", path, node, graph)


def settled(parameter: Parameter, graph: Mapping[str, Any]) -> Parameter:
    """With what it is when it is left out. Raises Unfit: for a path that is not there, or if that, or what stands in
    the graph, is not of its type."""
    values = {path: _standing(graph, path) for path in parameter.paths}
    for path, value in values.items():
        if fault := _stands_wrong(parameter, value):
            raise Unfit("wrong_type", f"is a {parameter.type}, but {quoted([path])} {fault}", value)
    if parameter.default is not None:
        return replace(parameter, default=parameter.taken(parameter.default))
    if parameter.required or parameter.type in (Type.SEED, Type.FILE):
        return parameter
    try:
        return replace(parameter, default=parameter.taken(next(iter(values.values()))))
    except Unfit as fault:
        said = f"has no default, and what stands in the graph is none: it {fault}. Give one, or make it required"
        raise Unfit(fault.type, said, fault.given) from fault


def _standing(graph: Mapping[str, Any], path: str) -> Any:
    node, name = place_of(graph, path)
    return unwrapped(graph[node]["inputs"][name])


def _stands_wrong(parameter: Parameter, value: Any) -> str:
    if isinstance(value, list):
        return f"is a link to another node: {quoted([value])}"
    match parameter.type:
        case Type.STRING | Type.FILE:
            fits = isinstance(value, str)
        case Type.BOOLEAN:
            fits = isinstance(value, bool)
        case Type.CHOICE:
            fits = kind(value) in {kind(choice) for choice in parameter.choices}
        case Type.NUMBER:
            fits = is_number(value)
        case _:
            fits = is_number(value) and value == int(value)
    return "" if fits else f"is {quoted([value])} in the graph"


def parse(given: Any) -> list[Parameter]:
    """Raises Refused(400): all that is wrong with any of them, by name."""
    if not isinstance(given, list):
        raise bad_request(f"`parameters` must be a list, not {kind(given)}.", "invalid_parameters")
    if len(given) > MOST_PARAMETERS:
        error = f"There are {len(given)} parameters; a workflow has at most {MOST_PARAMETERS}."
        raise bad_request(error, "invalid_parameters")
    faults, made, names = Faults(), list[Parameter](), set[str]()
    for number, one in enumerate(given):
        known = {k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else {}
        name = known.get("name")
        found = (
            list(_faults(known)) if isinstance(one, dict) else [Unfit("invalid", f"must be an object, not {kind(one)}")]
        )
        if isinstance(name, str) and name in names:
            found.append(Unfit("invalid", "is there twice"))
        for fault in found:
            faults.add(name if isinstance(name, str) and name else f"parameters[{number}]", fault)
        if not found:
            names.add(str(name))
            made.append(Parameter.read(known))
    if faults:
        raise faults.refused("invalid_parameters")
    return made


OF_ALL = {"name", "type", "paths", "title", "description", "required"}
NUMERIC = {"default", "min", "max", "step"}
OF_TYPE = {
    Type.STRING: {"default", "max_length"},
    Type.INTEGER: {*NUMERIC, "multiple"},
    Type.NUMBER: NUMERIC,
    Type.BOOLEAN: {"default"},
    Type.CHOICE: {"default", "choices"},
    Type.FILE: {"default"},
    Type.SEED: {"min", "max"},
}


def _faults(given: Mapping[str, Any]) -> Iterator[Unfit]:
    if not isinstance(given.get("name"), str) or not NAME.fullmatch(given["name"]):
        yield _invalid("name", given.get("name"), "1 to 63 letters, digits and _, not beginning with a digit")
    if given.get("type") not in list(Type):
        yield _invalid("type", given.get("type"), f"one of {', '.join(Type)}")
        return
    type = Type(given["type"])
    if unknown := [field for field in given if field not in OF_ALL | OF_TYPE[type]]:
        known = sorted(OF_ALL | OF_TYPE[type])
        yield Unfit("unknown_field", f"is a {type} and has no {quoted(unknown[:1])}", word=str(unknown[0]), among=known)
    paths = given.get("paths")
    if not _are_paths(paths):
        yield _invalid("paths", paths, f'a list of 1 to {MOST_PATHS} paths, as "6.inputs.text"')
    for field, most in (("title", LONGEST_TITLE), ("description", LONGEST_DESCRIPTION)):
        text = given.get(field, "")
        if not isinstance(text, str) or len(text) > most:
            yield _invalid(field, text, f"text of at most {most} characters")
    if not isinstance(given.get("required", False), bool):
        yield _invalid("required", given["required"], "true or false")
    elif given.get("required") and "default" in given:
        yield Unfit("invalid", "is required, so its default would never be used: leave one of them out")
    yield from _faults_of_type(type, given)


def _faults_of_type(type: Type, given: Mapping[str, Any]) -> Iterator[Unfit]:
    whole = type in (Type.INTEGER, Type.SEED)
    for field in ("min", "max", "step"):
        if field in given and not _is_bound(given[field], whole):
            yield _invalid(field, given[field], "a whole number" if whole else "a number")
            return
    if "step" in given and not given["step"] > 0:
        yield _invalid("step", given["step"], "more than 0")
    least = given.get("min", 0 if type == Type.SEED else None)
    if least is not None and "max" in given and least > given["max"]:
        yield _invalid("max", given["max"], f"no less than its min, {least}")
    for field, most in (("multiple", EXACT), ("max_length", LONGEST_TEXT)):
        if field in given and (not _is_bound(given[field], True) or not 0 < given[field] <= most):
            yield _invalid(field, given[field], f"a whole number, 1 to {most}")
    if type == Type.CHOICE and not _are_choices(given.get("choices")):
        each = f"text of at most {LONGEST_CHOICE} characters or a number"
        yield _invalid("choices", given.get("choices"), f"a list of 1 to {MOST_CHOICES}, each {each}, none twice")


def _invalid(field: str, value: Any, must_be: str) -> Unfit:
    return Unfit("invalid", f"{field} must be {must_be}, not {shown(value)}")


def _are_paths(given: Any) -> bool:
    """`place_of` looks at each part of a path anew."""
    is_list = isinstance(given, list) and 0 < len(given) <= MOST_PATHS
    return is_list and all(isinstance(one, str) and len(one) <= LONGEST_PATH for one in given)


def _is_bound(value: Any, whole: bool) -> bool:
    return is_number(value) and WHOLE[0] <= value <= WHOLE[1] and isinstance(value, int) >= whole


def _are_choices(given: Any) -> bool:
    if not isinstance(given, list) or not 0 < len(given) <= MOST_CHOICES:
        return False
    texts = [one for one in given if isinstance(one, str)]
    numbers = [one for one in given if _is_bound(one, False)]
    is_good = all(len(text) <= LONGEST_CHOICE for text in texts)
    return is_good and len(texts) + len(numbers) == len(given) and len(set(given)) == len(given)
