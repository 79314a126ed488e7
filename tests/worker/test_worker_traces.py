"""COMFYUI_DIR: nothing of a job stays on ComfyUI's disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.fakes import Process, b64, handled, image_workflow, job, load_workflow, png
from worker.traces import saving_into


@pytest.fixture
def disk(tmp_path: Path, standin: Callable[..., Process]) -> tuple[str, Path]:
    return standin().url, tmp_path / "own"


def files_of(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]


async def test_a_finished_job_leaves_no_file(disk: tuple[str, Path]) -> None:
    url, folder = disk
    given = job(load_workflow("a.png"), files={"a.png": b64(png())})
    result = await handled(url, given, comfyui_dir=str(folder))
    assert [asset["name"] for asset in result["assets"]] == ["loaded_00001_.png"]
    assert files_of(folder) == []


async def test_a_failed_job_leaves_no_file(disk: tuple[str, Path]) -> None:
    url, folder = disk
    result = await handled(url, job(load_workflow("a.png"), files={"a.png": b64(b"junk")}), comfyui_dir=str(folder))
    assert result["code"] == "node_failed"
    assert files_of(folder) == []


async def test_the_same_workflow_again_makes_its_files_anew(disk: tuple[str, Path]) -> None:
    url, folder = disk
    results = [await handled(url, job(image_workflow(5)), comfyui_dir=str(folder)) for _ in range(2)]
    assert [len(result.get("files", [])) for result in results] == [1, 1]


async def test_without_the_setting_files_stay_where_the_workflow_says(disk: tuple[str, Path]) -> None:
    url, folder = disk
    await handled(url, job(image_workflow(5, prefix="sub/y")))
    assert (folder / "output/sub/y_00001_.png").exists()


def test_only_prefixes_that_are_text_are_changed() -> None:
    linked: dict[str, Any] = {"inputs": {"filename_prefix": ["1", 0]}}
    workflow = {"1": {"inputs": {"filename_prefix": "x", "y": 1}}, "2": linked, "3": {"inputs": None}, "4": "odd"}
    expected = workflow | {"1": {"inputs": {"filename_prefix": "f/x", "y": 1}}}
    assert saving_into("f", workflow) == expected
