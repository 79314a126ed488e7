"""Which names in a workflow lead out of what is a job's own, and that ordinary text does not."""

import itertools
import os.path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.paths import LONGEST_PATH, name_fault, paths_fault, plain_prefix
from worker.wire import file_names

FOLDER = "hearth-" + "0123456789abcdef" * 2
PROMPTS = [
    "a cat ... and/or a dog, ../weird",
    "line one\nline two/../three",
    "see https://example.com/a/../b",
    "https://example.com/a/../b",
    "/imagine a castle",
    "/imagine",
    "C: is a drive",
    "...",
    "a..b",
    "1.5/2.5",
    "what [output] means",
    "1girl, solo [output]",
    "",
]


def fault(name: str, value: Any, *names: str) -> str:
    return paths_fault({"7": {"class_type": "X", "inputs": {name: value}}}, names)


@pytest.mark.parametrize("value", PROMPTS)
@pytest.mark.parametrize("name", ["text", "prompt", "value", "string_a"])
def test_ordinary_text_is_let_through(name: str, value: str) -> None:
    assert fault(name, value) == ""


@pytest.mark.parametrize("name", ["image", "audio", "video", "file", "latent", "model_file", "filename_prefix", "any"])
@pytest.mark.parametrize(
    "value",
    [
        "..",
        "../x.png",
        "a/../../x.png",
        "a\\..\\x.png",
        "../x.png [output]",
        "..X[output]",
        "a/..",
        "./../x",
    ],
)
def test_a_way_up_is_refused_in_any_input(name: str, value: str) -> None:
    assert "leaves its folder" in fault(name, value)


@pytest.mark.parametrize("name", ["image", "filename_prefix", "subfolder", "video", "directory"])
@pytest.mark.parametrize(
    "value", ["/etc/passwd", "\\\\host\\share", "C:\\x", "c:x", "a\0b", "a\nb", "/" + "./" * 3000 + "etc"]
)
def test_an_absolute_path_a_drive_and_control_characters_are_refused_where_a_path_belongs(
    name: str, value: str
) -> None:
    assert fault(name, value)


@pytest.mark.parametrize(
    "value", ["a.png", "sub/a.png", "a.png [input]", "a b (1).png", "video/x.mp4", "…/ü.png", "/9j/4AAQSkZ"]
)
@pytest.mark.parametrize("name", ["image", "filename_prefix", "file"])
def test_a_plain_name_is_let_through(name: str, value: str) -> None:
    assert fault(name, value) == ""


def test_a_way_up_that_only_windows_sees_is_refused_where_a_path_belongs() -> None:
    assert "leaves its folder" in fault("image", "a/.. /x")


def test_bytes_in_base64_are_no_path() -> None:
    assert fault("image", "/" + "AbC+/9" * LONGEST_PATH) == ""


@pytest.mark.parametrize("value", ["a.png [output]", "a.png [temp]", "a.png[temp]"])
def test_the_folders_that_all_jobs_share_are_refused_but_for_names_of_the_jobs_own_files(value: str) -> None:
    assert "in input.files" in fault("image", value)
    assert bool(fault("image", value, "a.png")) == ("[t" in value and " " not in value)


@pytest.mark.parametrize(
    "value", [f"{FOLDER}/a.png", FOLDER, f"x {FOLDER}/y", f"sub/{FOLDER}", [f"{FOLDER}"], {"a": FOLDER}]
)
@pytest.mark.parametrize("name", ["image", "text", "folder"])
def test_another_jobs_folder_is_refused_wherever_it_is_named(name: str, value: Any) -> None:
    assert "a job's own folder" in fault(name, value)


def test_a_prefix_copied_from_an_earlier_jobs_file_is_taken_without_its_folder() -> None:
    assert fault("filename_prefix", f"{FOLDER}/sub/x") == ""
    assert plain_prefix(f"{FOLDER}/sub/x") == "sub/x"
    assert fault("filename_prefix", f"{FOLDER}/{FOLDER}/x")
    assert fault("filename_prefix", f"{FOLDER}/../x")


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "a.png [output]", "a.png [temp]", "../x.png", "c:x", f"{FOLDER}/a.png"]
)
def test_what_comfyui_unwraps_is_judged_as_the_input_it_becomes(value: str) -> None:
    said = fault("image", {"__value__": value})
    assert said == fault("image", value) != ""
    assert fault("image", {"__value__": "a.png"}) == ""


def test_the_fault_names_node_input_and_value_at_any_depth() -> None:
    said = fault("image", {"image": "ok.png", "mask": ["3d/../../m.png"]})
    assert "node '7', input 'mask': '3d/../../m.png'" in said


@pytest.mark.parametrize(
    "workflow", [{"1": None}, {"1": {}}, {"1": {"inputs": []}}, {"1": {"inputs": {"a": ["1", 0]}}}]
)
def test_odd_nodes_and_links_are_not_judged_here(workflow: dict[str, Any]) -> None:
    assert paths_fault(workflow, ()) == ""


@pytest.mark.parametrize("given_files", [None, 3, "a", [3, None, {"name": 4}], {}])
def test_odd_files_have_no_names(given_files: Any) -> None:
    assert [name for name in file_names({"files": given_files}) if name] == []


def test_names_come_from_both_shapes_and_both_keys() -> None:
    listed = [{"name": "b", "image": ""}]
    assert file_names({"files": {"a": "", "c": ""}, "images": listed}) == ["a", "c", "b"]


def test_a_file_cannot_be_called_like_a_jobs_folder() -> None:
    assert name_fault(f"{FOLDER}/x.png")


PARTS = st.sampled_from(["..", ".", "a", "", " ", "…", "x.png"])


@given(parts=st.lists(PARTS, min_size=1, max_size=6), folder=st.sampled_from(["", " [output]", "[temp]", " [input]"]))
def test_no_name_that_is_let_through_leads_out_of_its_folder(parts: list[str], folder: str) -> None:
    """As ComfyUI joins it: annotation cut, one character with it."""
    name = "/".join(parts) + folder
    if fault("image", name):
        return
    plain = name[: -len(folder.strip()) - 1] if folder else name
    assert os.path.normpath(os.path.join("/base/input", plain)).startswith("/base/input")


def test_each_path_input_of_comfyuis_own_loaders_is_known() -> None:
    loaders = ["image", "audio", "file", "latent", "model_file", "folder", "filename_prefix"]
    assert all(fault(*pair) for pair in itertools.product(loaders, ["/x"]))
