"""What a parameter takes, what its schema says of that, and which graph comes of it: for any graph and any values."""

import copy
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from accounts.errors import Refused
from jobs.workflows.definition import define
from jobs.workflows.parameters import FILE_PATTERN, Parameter, Type
from jobs.workflows.run import Loaded, checked, filled, loaded
from jobs.workflows.schema import schema
from tests.workflows.graphs import PARAMETERS, TEXT_TO_IMAGE
from worker.wire import reference

thorough = hypothesis(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
whole, floats = st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
ids = st.text("ab.:é1", min_size=1, max_size=4) | st.sampled_from(["6", "57:8", "x.inputs.y"])
links = st.tuples(ids, st.integers(0, 3)).map(list)
constants = texts | whole | floats | st.booleans()
inputs = st.dictionaries(st.text("abc._", min_size=1, max_size=4), constants | links, max_size=4)
nodes = st.fixed_dictionaries({"class_type": texts, "inputs": inputs}, optional={"_meta": st.just({"title": "T"})})
graphs = st.dictionaries(ids, nodes, min_size=1, max_size=4)
KINDS = {str: "string", bool: "boolean", int: "integer", float: "number"}
VALUES = {"string": texts, "boolean": st.booleans(), "integer": whole, "number": floats | whole}


def defined(graph: Any, parameters: Any) -> Loaded:
    made = define(graph, parameters)
    return loaded(made.graph, made.parameters)


def differences(before: Any, after: Any) -> set[tuple[str, str]]:
    """(node, input) where two graphs of the same nodes and inputs are not alike, to the type."""
    assert {k: {**v, "inputs": list(v["inputs"])} for k, v in before.items()} == {
        k: {**v, "inputs": list(v["inputs"])} for k, v in after.items()
    }
    every = [(node, name) for node in before for name in before[node]["inputs"]]
    return {(n, i) for n, i in every if repr(before[n]["inputs"][i]) != repr(after[n]["inputs"][i])}


@st.composite
def workflows(draw: st.DrawFn) -> tuple[Any, list[Any], dict[str, Any], dict[tuple[str, str], Any]]:
    """A graph, parameters for some of its constants, values for some of these, and what is to be where."""
    graph = draw(graphs)
    places = [(n, i, v) for n, node in graph.items() for i, v in node["inputs"].items() if not isinstance(v, list)]
    chosen = draw(st.lists(st.sampled_from(places), unique_by=lambda place: place[:2])) if places else []
    parameters, values, expected = [], {}, {}
    for number, (node, name, value) in enumerate(chosen):
        path, kind = f"{node}.inputs.{name}", KINDS[type(value)]
        parameters.append({"name": f"p{number}", "type": kind, "paths": [path]})
        if draw(st.booleans()):
            values[f"p{number}"] = expected[node, name] = draw(VALUES[kind])
    return graph, parameters, values, expected


@thorough
@given(workflows())
def test_exactly_the_named_paths_are_set_and_nothing_else(made: Any) -> None:
    graph, parameters, values, expected = made
    before = copy.deepcopy(graph)
    version = defined(graph, parameters)
    result = orjson.loads(orjson.dumps(filled(version, checked(version.parameters, values, "x"))))
    assert graph == before
    for (node, name), value in expected.items():
        assert result[node]["inputs"][name] == value
    assert differences(before, result) <= set(expected)


bounds = st.integers(-20, 20) | st.none()
NUMBERS = {"min": bounds, "max": bounds}
LOOSE = st.none() | st.booleans() | texts | st.integers(-30, 30) | st.integers(-(2**80), 2**80) | floats
LOOSE |= st.sampled_from([4.0, -0.0, 2.5, 1e300, [], {}, ["a"], "a", "b", "x" * 7])
LOOSE |= st.sampled_from(
    ["asset:01a20f1c-0000-7000-8000-000000000000", "https://example.com/a.png", "s3://b/k", "s3://b/"]
)
LOOSE |= st.sampled_from(["https://example.com/a\n", "s3://b/k k", "s3://b/k ", "http://", "file:///x", "asset:1"])
OF_TYPE: dict[str, Any] = {
    "string": {"max_length": st.integers(1, 6)},
    "integer": NUMBERS | {"multiple": st.integers(1, 8) | st.none()},
    "number": NUMBERS,
    "boolean": {},
    "choice": {"choices": st.lists(st.sampled_from(["a", "b", "c", "", 1, 2.5]), min_size=1, unique=True)},
    "file": {},
    "seed": NUMBERS,
}


@st.composite
def declared(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(list(OF_TYPE)))
    more = {name: draw(strategy) for name, strategy in OF_TYPE[kind].items()}
    low, high = more.get("min"), more.get("max")
    if kind == "seed" and low is None and high is not None:
        low = more["min"] = 0
    if low is not None and high is not None and low > high:
        more |= {"min": high, "max": low}
    return {"name": "p", "type": kind, "paths": ["1.inputs.x"], "required": draw(st.booleans()), **more}


def taken_of(parameter: Parameter, params: Any) -> Any:
    """None if they are refused."""
    with suppress(Refused):
        return checked([parameter], params, "x")
    return None


@thorough
@given(declared(), st.lists(LOOSE, min_size=4, max_size=8))
def test_the_schema_takes_what_the_check_takes(told: Any, values: list[Any]) -> None:
    parameter = Parameter.read({name: value for name, value in told.items() if value is not None})
    validator = Draft202012Validator(schema([parameter], "t"))
    validator.check_schema(validator.schema)
    for params in [{}, {"q": 1}, *({"p": value} for value in values)]:
        taken = taken_of(parameter, params)
        assert validator.is_valid(params) == (taken is not None), (told, params)
        assert taken is None or validator.is_valid(taken), "what it becomes is taken again"


def test_a_file_of_the_schema_is_one_that_inputs_take() -> None:
    for text in ("asset:01a20f1c-0000-7000-8000-000000000000", "s3://b/a key", "https://e.com/x"):
        assert Draft202012Validator({"pattern": FILE_PATTERN}).is_valid(text)
        assert reference(text)


@pytest.mark.parametrize(
    ("name", "value", "type", "said"),
    [
        ("steps", 51, "too_large", "must be a whole number, 1 to 50, not 51"),
        ("steps", 0, "too_small", "must be a whole number, 1 to 50, not 0"),
        ("steps", 1.5, "wrong_type", "must be a whole number, 1 to 50, not 1.5"),
        ("steps", True, "wrong_type", "must be a whole number, 1 to 50, not true"),
        ("steps", None, "wrong_type", "must be a whole number, 1 to 50, not null"),
        ("size", 65, "not_a_multiple", "must be a whole number of at least 64, a multiple of 8, not 65"),
        ("cfg", "8", "wrong_type", 'must be a number, 0 to 30, not "8"'),
        ("prompt", 5, "wrong_type", "must be text of at most 100 characters, not 5"),
        ("prompt", "x" * 101, "too_long", "must be text of at most 100 characters; it has 101"),
        (
            "sampler",
            "dpmpp",
            "not_a_choice",
            'must be one of "euler", "dpmpp_2m", "ddim", not "dpmpp"; near: "dpmpp_2m"',
        ),
        ("photo", "cat.png", "not_a_file", None),
        ("photo", "https://10.0.0.1/a.png", "refused_url", "10.0.0.1 is not public"),
        ("stepps", 5, "unknown", 'near: "steps"'),
        ("seed", -1, "too_small", None),
    ],
)
def test_a_fault_says_what_is_allowed(name: str, value: Any, type: str, said: str | None) -> None:
    version = defined(TEXT_TO_IMAGE, PARAMETERS)
    with pytest.raises(Refused) as raised:
        checked(version.parameters, {"prompt": "a dog", name: value}, "portrait@1")
    body = raised.value.body()
    ((fault,),) = [body["params"].pop(name)]
    assert (body["code"], body["params"], fault["type"]) == ("invalid_params", {}, type)
    assert (said or "") in fault["message"]
    assert f'Workflow portrait@1: Parameter "{name}" ' in body["error"]


def test_all_faults_come_in_one_refusal() -> None:
    version = defined(TEXT_TO_IMAGE, PARAMETERS)
    with pytest.raises(Refused) as raised:
        checked(version.parameters, {"steps": 0, "cfg": "x", "colour": 1}, "portrait@1")
    body = raised.value.body()
    assert {name: [fault["type"] for fault in faults] for name, faults in body["params"].items()} == {
        "colour": ["unknown"],
        "prompt": ["required"],
        "steps": ["too_small"],
        "cfg": ["wrong_type"],
    }
    assert body["error"].endswith("And 3 more faults: see `params`.")


def test_what_is_left_out_is_its_default_or_drawn_or_stays() -> None:
    version = defined(TEXT_TO_IMAGE, PARAMETERS)
    values = checked(version.parameters, {"prompt": "a dog"}, "x")
    seed = values.pop("seed")
    assert values == {"prompt": "a dog", "negative": "", "steps": 20, "cfg": 8, "sampler": "euler", "size": 512}
    assert isinstance(seed, int)
    assert 0 <= seed < 2**53
    graph = filled(version, {**values, "seed": seed})
    assert graph["5"]["inputs"] == {"width": 512, "height": 512, "batch_size": 1}
    assert graph["10"]["inputs"]["image"] == "example.png"
    others = {checked(version.parameters, {"prompt": ""}, "x")["seed"] for _ in range(5)}
    assert len(others | {seed}) > 1


def test_a_whole_number_may_be_written_as_a_fraction_and_becomes_whole() -> None:
    version = defined(TEXT_TO_IMAGE, PARAMETERS)
    values = checked(version.parameters, {"prompt": "", "steps": 4.0, "cfg": 7.5}, "x")
    assert (repr(values["steps"]), values["cfg"]) == ("4", 7.5)


def test_a_file_may_be_one_that_comes_with_the_job() -> None:
    version = defined(TEXT_TO_IMAGE, PARAMETERS)
    assert checked(version.parameters, {"prompt": "", "photo": "a.png"}, "x", ["a.png"])["photo"] == "a.png"


def test_every_type_has_a_place_in_the_test_of_the_schema() -> None:
    assert set(OF_TYPE) == {one.value for one in Type}
