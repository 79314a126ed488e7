"""Nothing of a job stays on ComfyUI's disk (COMFYUI_DIR), and where it lies meanwhile nobody can guess."""

import asyncio
import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.fakes import Process, b64, handled, image_workflow, job, load_workflow, png, until, worker_for
from tests.worker.faults import fault_workflow
from worker import traces
from worker.outputs import Found
from worker.traces import clear, remove, saving_into, untold

FOLDER = "hearth-" + "0" * 32


@pytest.fixture
def disk(tmp_path: Path, standin: Callable[..., Process]) -> tuple[str, Path]:
    return standin().url, tmp_path / "own"


def left(folder: Path) -> list[str]:
    """What lies under ComfyUI's three folders, folders too."""
    return sorted(str(path.relative_to(folder)) for kind in traces.KINDS for path in (folder / kind).rglob("*"))


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def previewed(workflow: dict[str, Any]) -> dict[str, Any]:
    return workflow | {"9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


async def test_a_finished_job_leaves_no_file(disk: tuple[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    url, folder = disk
    given = job(previewed(load_workflow("a.png")), files={"a.png": b64(png())})
    result = await handled(url, given, comfyui_dir=str(folder))
    assert [(asset["subfolder"], asset["name"]) for asset in result["assets"]] == [("t", "loaded_00001_.png")]
    assert left(folder) == []
    assert "COMFYUI_DIR" not in caplog.text


async def test_a_failed_job_leaves_no_file(disk: tuple[str, Path]) -> None:
    url, folder = disk
    result = await handled(url, job(load_workflow("a.png"), files={"a.png": b64(b"junk")}), comfyui_dir=str(folder))
    assert result["code"] == "node_failed"
    assert left(folder) == []


async def test_a_cancelled_job_leaves_neither_files_nor_previews(disk: tuple[str, Path]) -> None:
    """Node 9 depends on nothing slow and is shown first; node 2 waits for the sleep."""
    url, folder = disk
    workflow = previewed(load_workflow("a.png"))
    workflow["5"] = {"class_type": "StandinSleep", "inputs": {"seconds": 600, "image": ["1", 0]}}
    workflow["6"] = {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "late"}}
    async with worker_for(url, comfyui_dir=str(folder)) as worker:
        running = asyncio.create_task(worker.handle(job(workflow, files={"a.png": b64(png())})))
        await until(lambda: list((folder / "temp").iterdir()) and list((folder / "output").iterdir()))
        running.cancel()
        await asyncio.wait([running])
    assert left(folder) == []


async def test_files_that_a_node_saved_without_a_prefix_go_too(disk: tuple[str, Path]) -> None:
    url, folder = disk
    make(folder, "output/of-the-operator.png")
    workflow = image_workflow(5) | {"3": {"class_type": "StandinOddities", "inputs": {"images": ["1", 0]}}}
    result = await handled(url, job(workflow), comfyui_dir=str(folder))
    assert [asset["name"] for asset in result["assets"]] == ["x_00001_.png", "oddity_0.png"]
    assert left(folder) == ["output/of-the-operator.png"]


async def test_a_prefix_that_a_node_makes_leaves_nothing_either(disk: tuple[str, Path]) -> None:
    url, folder = disk
    workflow = image_workflow(5) | {"3": {"class_type": "PrimitiveString", "inputs": {"value": "acme/new/x"}}}
    workflow["2"]["inputs"]["filename_prefix"] = ["3", 0]
    results = [await handled(url, job(workflow), comfyui_dir=str(folder)) for _ in range(2)]
    assert [result["assets"][0]["subfolder"] for result in results] == ["acme/new"] * 2
    assert left(folder) == []


async def test_the_same_workflow_again_makes_its_files_and_previews_anew(disk: tuple[str, Path]) -> None:
    url, folder = disk
    given = job(previewed(image_workflow(5)), temp=True)
    results = [await handled(url, given, comfyui_dir=str(folder)) for _ in range(2)]
    assert [len(result.get("files", [])) for result in results] == [2, 2]


async def test_without_the_setting_files_stay_in_a_folder_that_nobody_can_guess(disk: tuple[str, Path]) -> None:
    url, folder = disk
    result = await handled(url, job(image_workflow(5, prefix="sub/y")))
    [path] = (folder / "output").rglob("*.png")
    assert re.fullmatch(r"output/hearth-[0-9a-f]{32}/sub/y_00001_\.png", str(path.relative_to(folder)))
    assert (result["assets"][0]["subfolder"], result["assets"][0]["name"]) == ("sub", "y_00001_.png")


async def test_a_folder_that_is_not_this_comfyuis_is_warned_of(
    disk: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = await handled(disk[0], job(image_workflow(5)), comfyui_dir=str(tmp_path))
    assert len(result["files"]) == 1
    assert f"COMFYUI_DIR={tmp_path} has not all" in caplog.text


def test_removing_stays_inside_of_output_and_temp(tmp_path: Path) -> None:
    kept = ["outside.png", "input/mine.png", "output/other/kept.png", f"custom/{FOLDER}/a.png"]
    make(tmp_path, *kept, "output/gone/gone.png", "output/gone/gone-workflow.png", f"temp/{FOLDER}/a.png")
    os.symlink(tmp_path, tmp_path / "output/link")
    os.symlink(tmp_path / "outside.png", tmp_path / "output/link.png")

    def found(filename: str, subfolder: str = "", type: str = "output", beside: tuple[str, ...] = ()) -> Found:
        return Found(node="1", filename=filename, subfolder=subfolder, type=type, beside=beside)

    files = [found("outside.png", ".."), found("outside.png", "link"), found("link.png"), found("x\0y", "a\0b")]
    files += [found("../outside.png"), found("mine.png", "../input"), found("outside.png", str(tmp_path))]
    files += [found("gone.png", "gone", beside=("gone-workflow.png", "../../outside.png"))]
    remove(str(tmp_path), FOLDER, files)
    clear(str(tmp_path), ["", ".", "..", "other", "../custom", f"{FOLDER}/.."], files)
    assert all((tmp_path / path).exists() for path in kept)
    assert not (tmp_path / "output/gone").exists()
    assert not (tmp_path / "temp" / FOLDER).exists()


def quiet(**prefixes: Any) -> dict[str, Any]:
    """A model is saved by each of these nodes, which tell nobody."""
    workflow: dict[str, Any] = {"vae": {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}}
    for id, prefix in prefixes.items():
        workflow[id] = {"class_type": "VAESave", "inputs": {"vae": ["vae", 0], "filename_prefix": prefix}}
    return workflow


async def test_what_a_node_saved_without_a_word_is_a_file_all_the_same(disk: tuple[str, Path]) -> None:
    url, folder = disk
    workflow = image_workflow(5, prefix="vae/m") | quiet(a="vae/mine", b="vae/mine_too", c="%year%-%month%/x")
    result = await handled(url, job(workflow), comfyui_dir=str(folder))
    picture, *models = result["assets"]
    assert (picture["node"], picture["name"]) == ("2", "m_00001_.png")
    assert [(asset["node"], re.sub(r"\d", "9", asset["subfolder"]), asset["name"]) for asset in models] == [
        ("c", "9999-99", "x_00001_.safetensors"),
        ("a", "vae", "mine_00001_.safetensors"),
        ("b", "vae", "mine_too_00001_.safetensors"),
    ]
    contents = [base64.b64decode(text) for text in result["files"][1:]]
    assert [(len(content), content[8:12]) for content in contents] == [(asset["bytes"], b'{"__') for asset in models]
    assert left(folder) == []


async def test_what_can_be_told_of_nobody_is_said_in_a_warning(disk: tuple[str, Path]) -> None:
    result = await handled(disk[0], job(quiet(a="vae/mine")))
    assert (result["files"], len(result["warnings"])) == ([], 1)
    assert "node a (VAESave) saves a file" in result["warnings"][0]


async def test_after_a_failure_what_was_saved_without_a_word_is_kept_too(disk: tuple[str, Path]) -> None:
    url, folder = disk
    result = await handled(url, job(quiet(a="vae/mine") | fault_workflow("error", "no")), comfyui_dir=str(folder))
    assert (result["code"], [asset["node"] for asset in result["assets"]]) == ("node_failed", ["a"])


def test_of_files_beside_each_other_only_those_of_quiet_nodes_are_found(tmp_path: Path) -> None:
    """film: tells of one of its files; half: it failed; x, y: equal prefixes."""
    names = ["clips/c_1.png", "clips/c_1.mp4", "lora/l_1.safetensors", "half/h_1.safetensors", "x_1.png", "x_2.pt", "s"]
    make(tmp_path, *(f"output/{FOLDER}/{name}" for name in names), "output/other.pt")
    os.symlink(tmp_path / "output/other.pt", tmp_path / f"output/{FOLDER}/lora/l_2.safetensors")
    given = {"film": "clips/c", "lora": "lora/l", "half": "half/h", "x": "x", "y": "x", "linked": ["1", 0]}
    workflow: dict[str, Any] = {id: {"inputs": {"filename_prefix": prefix}} for id, prefix in given.items()}
    prefixes = traces.prefixes(FOLDER, saving_into(FOLDER, workflow) | {"odd": None})
    assert prefixes == {id: prefix for id, prefix in given.items() if id != "linked"}
    told = [Found(node="film", filename="c_1.mp4", subfolder=f"{FOLDER}/clips", type="output")]
    told += [Found(node="x", filename="x_1.png", subfolder=FOLDER, type="output")]
    found = untold(str(tmp_path), FOLDER, prefixes, told, {"half"})
    assert [(file.node, file.asked_subfolder, file.filename) for file in found] == [
        ("lora", "lora", "l_1.safetensors"),
        ("y", "", "x_2.pt"),
    ]


@pytest.mark.parametrize("kind", ["VAESave", "SaveLoRANode", "LossGraphNode", "SaveImage"])
def test_a_linked_prefix_stays_but_where_nothing_would_tell_where_it_leads(kind: str) -> None:
    name = "prefix" if kind == "SaveLoRANode" else "filename_prefix"
    saved = saving_into("f", {"1": {"class_type": kind, "inputs": {name: ["2", 0]}}})["1"]["inputs"]
    expected = {"VAESave": "f/ComfyUI", "SaveLoRANode": "f/ComfyUI", "LossGraphNode": "ComfyUI", "SaveImage": ["2", 0]}
    assert saved[name] == expected[kind]


@pytest.mark.parametrize(
    ("prefix", "saved"),
    [
        ({"__value__": "a/b"}, "f/a/b"),  # what ComfyUI makes of it
        (5, "f/5"),
        ("x", "f/x"),
        ("a/b", "f/a/b"),
        ("%year%/x", "f/%year%/x"),
        ("", "f/ComfyUI"),
        ("./", "f/ComfyUI"),
        (f"{FOLDER}/a/b", "f/a/b"),
        (FOLDER, "f/ComfyUI"),
    ],
)
def test_a_prefix_is_put_into_the_jobs_folder_once(prefix: Any, saved: str) -> None:
    workflow = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix, "y": 1}}}
    assert saving_into("f", workflow)["1"]["inputs"] == {"filename_prefix": saved, "y": 1}


def test_nodes_that_show_without_a_prefix_are_told_from_those_of_other_jobs() -> None:
    linked = {"class_type": "SaveImage", "inputs": {"filename_prefix": ["1", 0]}}
    other: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {"y": 1}}, "3": {"inputs": None}, "4": "odd"}
    saved = saving_into("f", other | {"2": linked})
    assert saved["2"]["inputs"] == {"filename_prefix": ["1", 0], "hearth": "f"}
    assert {node: saved[node] for node in other} == other


def test_the_lora_saver_has_a_prefix_of_its_own_name_and_the_loss_graph_none() -> None:
    nodes = {"1": {"class_type": "SaveLoRANode", "inputs": {"prefix": "x"}}}
    nodes["2"] = {"class_type": "LossGraphNode", "inputs": {"filename_prefix": "x"}}
    saved = saving_into("f", nodes)
    assert saved["1"]["inputs"] == {"prefix": "f/x"}
    assert saved["2"]["inputs"] == {"filename_prefix": "x", "hearth": "f"}
