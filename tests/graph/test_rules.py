"""What the recordings do not have: classes of others, the V3 schema, and shapes that are not known."""

from typing import Any

import pytest

from jobs.graph.check import check
from jobs.graph.classes import Catalogue, Malformed
from jobs.graph.faults import Fault
from tests.graph.judges import Graph

MODELS = ["sdxl_base.safetensors", "SD15/v1-5.ckpt"]


def info(module: str = "nodes", output: Any = ("IMAGE",), output_node: bool = False, **inputs: Any) -> dict[str, Any]:
    """A class; `inputs` are required, those whose name ends in _opt optional."""
    required = {name: config for name, config in inputs.items() if not name.endswith("_opt")}
    optional = {name: config for name, config in inputs.items() if name.endswith("_opt")}
    declared = {"required": required, "optional": optional}
    return {"input": declared, "output": list(output), "output_node": output_node, "python_module": module}


CLASSES: dict[str, Any] = {
    "Image": info(),
    "Latent": info(output=["LATENT"]),
    "Two": info(output=["IMAGE", "MASK"]),
    "Any": info(output=["*"]),
    "Either": info(output=["INT,FLOAT"]),
    "Save": info(output=[], output_node=True, images=["IMAGE"]),
    "Show": info(output=[], output_node=True, source=["*"]),
}
OTHERS = "custom_nodes.pack"


def faults_of(node: dict[str, Any], kind: dict[str, Any], above: str = "Image") -> list[tuple[str, str]]:
    """(type, input) of what is wrong with a node "x" of this class, which an output needs; its links may name "a"."""
    graph = {"x": {"class_type": "X", "inputs": node}, "a": {"class_type": above, "inputs": {}}}
    graph["out"] = {"class_type": "Show", "inputs": {"source": ["x", 0]}}
    return [(fault.type, fault.input) for fault in check(Catalogue(CLASSES | {"X": kind}), graph)]


@pytest.mark.parametrize("given", ["sdxl_base.safetensors", "SD15/v1-5.ckpt"])
def test_an_installed_model_passes(given: str) -> None:
    assert faults_of({"model": given}, info(model=[MODELS])) == []


@pytest.mark.parametrize("module", ["nodes", "comfy_extras.nodes_x", "comfy_api_nodes.nodes_y", OTHERS])
def test_a_model_that_is_not_installed_is_refused_in_every_class(module: str) -> None:
    assert faults_of({"model": "nope.safetensors"}, info(module, model=[MODELS])) == [("value_not_in_list", "model")]


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ("magic", [["a", "b"]]),  # its VALIDATE_INPUTS may take it
        ({"content": "nope.safetensors", "image": None}, [MODELS]),  # a list that shows pictures
        ("made at run.safetensors", [[]]),  # its list may be filled by a script
        (99, ["INT", {"max": 5}]),
        (-99, ["INT", {"min": 5}]),
    ],
)
def test_what_a_class_of_others_may_take_passes(given: Any, config: list[Any]) -> None:
    assert faults_of({"value": given}, info(OTHERS, value=config)) == []
    if not isinstance(given, dict):
        assert len(faults_of({"value": given}, info("nodes", value=config))) == 1


@pytest.mark.parametrize("link", [["a", 0], ["a", 7], ["a", "slot"]])
def test_types_and_slots_of_a_class_of_others_pass(link: list[Any]) -> None:
    class_of_others = info(OTHERS, output=["IMAGE"], source=["STRING"])
    graph = {"x": {"class_type": "X", "inputs": {"source": ["a", 0]}}, "a": {"class_type": "Latent", "inputs": {}}}
    graph["out"] = {"class_type": "Save", "inputs": {"images": ["x", link[1]]}}
    assert check(Catalogue(CLASSES | {"X": class_of_others}), graph) == []


def test_what_comfyui_always_checks_is_refused_in_a_class_of_others_too() -> None:
    kind = info(OTHERS, size=["INT"], image=["IMAGE"], mask_opt=["MASK"])
    found = faults_of({"size": "abc", "image": ["gone", 0], "mask_opt": ["a"]}, kind)
    assert set(found) == {
        ("invalid_input_type", "size"),
        ("exception_during_inner_validation", "image"),
        ("bad_linked_input", "mask_opt"),
    }
    assert faults_of({}, kind) == [("required_input_missing", "size"), ("required_input_missing", "image")]


@pytest.mark.parametrize(
    ("given", "above", "passes"),
    [
        ("IMAGE", "Image", True),
        ("IMAGE", "Latent", False),
        ("IMAGE,LATENT", "Latent", True),
        ("LATENT , MASK", "Latent", True),
        ("FLOAT", "Either", True),
        ("STRING", "Either", False),
        ("*", "Latent", True),
        ("IMAGE", "Any", True),
        ("COMFY_MATCHTYPE_V3", "Latent", True),
    ],
)
def test_types_match_as_in_comfyui(given: str, above: str, passes: bool) -> None:
    found = faults_of({"source": ["a", 0]}, info(source=[given]), above)
    assert found == ([] if passes else [("return_type_mismatch", "source")])


@pytest.mark.parametrize(("slot", "passes"), [(0, True), (1, True), (-1, True), (-2, True), (2, False), (-3, False)])
def test_slots_count_from_both_ends_as_in_comfyui(slot: int, passes: bool) -> None:
    found = faults_of({"source": ["a", slot]}, info(source=["*"]), "Two")
    assert found == ([] if passes else [("exception_during_inner_validation", "source")])


@pytest.mark.parametrize(
    ("kind", "given", "passes"),
    [
        ("INT", "64", True),
        ("INT", " 1_0 ", True),
        ("INT", 64.9, True),
        ("INT", True, True),
        ("INT", {"__value__": "8"}, True),
        ("INT", "64.5", False),
        ("INT", None, False),
        ("INT", {}, False),
        ("INT", 1e999, False),
        ("FLOAT", "1e3", True),
        ("FLOAT", "nan", True),
        ("FLOAT", "abc", False),
        ("FLOAT", {"__value__": ["a", 0]}, False),
        ("STRING", {"any": ["thing"]}, True),
        ("STRING", None, True),
        ("BOOLEAN", "false", True),
        ("IMAGE", 5, True),  # fails when it runs
    ],
)
def test_values_are_converted_as_in_comfyui(kind: str, given: Any, passes: bool) -> None:
    found = faults_of({"value": given}, info(value=[kind]))
    assert found == ([] if passes else [("invalid_input_type", "value")])


@pytest.mark.parametrize("given", [["one", "two"], "three", ["a", 0]])
@pytest.mark.parametrize(
    "config",
    [
        ["COMFY_AUTOGROW_V3", {"template": {}}],
        ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "one"}]}],
        {"not": "a list"},
        [],
        [None],
        [{"type": "odd"}],
    ],
)
def test_inputs_of_a_shape_that_is_not_known_pass(config: Any, given: Any) -> None:
    assert faults_of({"value": given}, info(value=config)) == []
    assert faults_of({}, info(value=config)) == []


@pytest.mark.parametrize(
    "config",
    [
        ["COMBO", {"options": ["a"], "multiselect": False}],  # ComfyUI 0.3.64 does not look
        ["COMBO", {"remote": {"route": "/models"}}],
        [["a"], {"image_upload": True}],
        [["a"], {"file_upload": True}],
        [["a", {"odd": 1}]],
    ],
)
def test_choices_that_comfyui_does_not_hold_a_value_to_pass(config: Any) -> None:
    assert faults_of({"value": "other"}, info(value=config)) == []


def test_several_choices_at_once_pass() -> None:
    assert faults_of({"value": {"__value__": ["a", "b"]}}, info(value=[["a", "b"], {"multiselect": True}])) == []


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.safetensors [input]"])
def test_a_file_that_the_job_brings_passes(name: str) -> None:
    graph = {"x": {"class_type": "X", "inputs": {"model": name}}}
    kind = info(output=[], output_node=True, model=[MODELS])
    assert check(Catalogue({"X": kind}), graph, {"mine.safetensors"}) == []
    assert [fault.type for fault in check(Catalogue({"X": kind}), graph)] == ["value_not_in_list"]


def save(source: str) -> dict[str, Any]:
    return {"class_type": "Save", "inputs": {"images": [source, 0]}}


def checked(graph: Graph) -> list[Fault]:
    return check(Catalogue(CLASSES), graph)


def test_one_sound_output_is_enough() -> None:
    image, bad = {"class_type": "Image", "inputs": {}}, {"class_type": "Latent", "inputs": {}}
    assert checked({"i": image, "l": bad, "1": save("i"), "2": save("l")}) == []
    assert [fault.node for fault in checked({"l": bad, "2": save("l"), "3": save("l")})] == ["2", "3"]


def test_what_no_output_needs_is_not_looked_at_but_for_its_class() -> None:
    graph = {"i": {"class_type": "Image", "inputs": {}}, "1": save("i"), "x": save("nowhere")}
    assert checked(graph) == []
    assert [(f.node, f.type) for f in checked(graph | {"y": {"class_type": "Nope", "inputs": {}}})] == [
        ("y", "invalid_prompt")
    ]


def test_a_link_to_nowhere_in_an_input_that_is_not_declared_would_stop_comfyui_and_is_refused() -> None:
    graph: Graph = {"i": {"class_type": "Image", "inputs": {"odd": ["j", 0]}}, "1": save("i")}
    graph["j"] = {"class_type": "Latent", "inputs": {"odd": ["gone", 0.5]}}
    assert [(fault.node, fault.type, fault.input) for fault in checked(graph)] == [("j", "node_missing", "odd")]
    graph["j"]["inputs"] = {"odd": ["i", 0], "gone": ["gone", "0"], "text": ["gone"]}
    assert checked(graph) == []


def test_a_circle_is_refused_and_told_once() -> None:
    kind = info(image=["IMAGE"], more_opt=["IMAGE"])
    graph: Graph = {str(n): {"class_type": "X", "inputs": {"image": [str(n + 1), 0]}} for n in range(30)}
    graph["30"] = {"class_type": "X", "inputs": {"image": ["10", 0], "more_opt": ["3", 0]}}
    graph |= {"out": save("0"), "other": save("20")}
    (fault,) = check(Catalogue(CLASSES | {"X": kind}), graph)
    assert (fault.node, fault.type) == ("30", "dependency_cycle")
    assert fault.said.startswith('the links run in a circle: "10" ← "11" ←')


def test_a_chain_of_thousands_is_no_matter_for_the_stack() -> None:
    graph: Graph = {str(n): {"class_type": "X", "inputs": {"image": [str(n - 1), 0]}} for n in range(1, 20_000)}
    graph |= {"0": {"class_type": "Image", "inputs": {}}, "out": save("19999")}
    assert check(Catalogue(CLASSES | {"X": info(image=["IMAGE"])}), graph) == []


@pytest.mark.parametrize("given", [None, [], {}, "x", {"X": None}, {"X": []}])
def test_what_is_no_catalogue_is_refused(given: Any) -> None:
    with pytest.raises(Malformed):
        Catalogue(given)


def test_an_odd_class_is_not_judged() -> None:
    odd = {"Odd": {}, "Odder": {"input": [], "output": "IMAGE", "output_node": 1, "python_module": 5}}
    graph = {"1": {"class_type": "Odd", "inputs": {"a": 1}}, "2": {"class_type": "Odder", "inputs": {"b": ["1", 9]}}}
    assert check(Catalogue(odd), graph) == []
