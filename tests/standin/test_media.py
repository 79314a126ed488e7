"""Audio, video and latents: what loaders and savers make of what is wrong, beyond the recordings."""

import asyncio
from typing import Any

import pytest

from .client import Client
from .pictures import CORRUPT, tone
from .test_graphs import EMPTY, LATENT, run, show

LOADERS = [("LoadAudio", "audio", "audio"), ("LoadVideo", "file", "video"), ("LoadLatent", "latent", "latent")]


def load(class_type: str, given: str, name: str) -> dict[str, Any]:
    return {"1": {"class_type": class_type, "inputs": {given: name}}, "2": show(["1", 0])}


def refused(url: str, graph: dict[str, Any]) -> Any:
    async def answer() -> Any:
        async with Client.to(url) as client:
            status, response, _ = await client.request("POST", "/prompt", json={"prompt": graph})
            assert status == 400
            return await response.json()

    return asyncio.run(answer())


def uploaded(url: str, name: str, content: bytes) -> None:
    async def upload() -> None:
        async with Client.to(url) as client:
            await client.upload(name, content, overwrite="true")

    asyncio.run(upload())


@pytest.mark.parametrize(("class_type", "given", "word"), LOADERS)
def test_a_loader_names_the_file_that_is_not_there(comfy: str, class_type: str, given: str, word: str) -> None:
    [error] = refused(comfy, load(class_type, given, "gone"))["node_errors"]["1"]["errors"]
    assert (error["type"], error["details"]) == ("custom_validation_failed", f"{given} - Invalid {word} file: gone")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codec": "vp9"}, "Only H264 codec is supported for now"),
        ({"format": "avi"}, "'avi' is not a valid VideoContainer"),
    ],
)
def test_a_choice_of_the_newer_kind_is_checked_by_the_node_alone(
    comfy: str, wrong: dict[str, str], message: str
) -> None:
    """["COMBO", {"options": …}], in this release."""
    video = {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}}
    inputs = {"video": ["2", 0], "filename_prefix": "x", "format": "auto", "codec": "auto", **wrong}
    graph = {"1": EMPTY, "2": video, "3": {"class_type": "SaveVideo", "inputs": inputs}}
    kind, said = run(comfy, graph)["status"]["messages"][-1]
    assert (kind, said["exception_message"], said["exception_type"]) == (
        "execution_error",
        f"{message}\n",
        "ValueError",
    )


@pytest.mark.parametrize(("class_type", "given"), [("LoadAudio", "audio"), ("LoadLatent", "latent")])
def test_a_file_that_is_something_else_fails_its_node(comfy: str, class_type: str, given: str) -> None:
    uploaded(comfy, "corrupt.bin", CORRUPT)
    entry = run(comfy, load(class_type, given, "corrupt.bin"))
    assert entry["status"]["messages"][-1][0] == "execution_error"
    assert entry["status"]["messages"][-1][1]["node_type"] == class_type


def test_a_film_without_pictures_or_sound_says_so(comfy: str) -> None:
    uploaded(comfy, "sound-only.wav", tone(0.1))
    graph = load("LoadVideo", "file", "sound-only.wav")
    graph["3"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}}
    graph["2"] = show(["3", 2])
    assert run(comfy, graph)["status"]["messages"][-1][0] == "execution_error"


def test_a_saved_latent_is_loaded_again(comfy: str) -> None:
    async def saved() -> bytes:
        async with Client.to(comfy) as client:
            saver = {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "again"}}
            entry = await client.run({"1": LATENT, "2": saver})
            return await client.file(entry["outputs"]["2"]["latents"][0])

    uploaded(comfy, "again.latent", asyncio.run(saved()))
    entry = run(comfy, load("LoadLatent", "latent", "again.latent"))
    assert entry["outputs"]["2"]["text"][0].startswith("{'samples': tensor([[[[0., 0., 0., 0.,")
