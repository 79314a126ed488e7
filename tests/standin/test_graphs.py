"""Graphs that no recording has, and what both a real ComfyUI and the stand-in make of them."""

import asyncio
import io
from typing import Any

import pytest
from PIL import Image

from .client import Client
from .servers import Standin

EMPTY: dict[str, Any] = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 5}}
LATENT = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
WHITE = {"class_type": "EmptyImage", "inputs": {"width": 2, "height": 1, "batch_size": 1, "color": 0xFFFFFF}}
SLOW = {"width": 1024, "height": 1024, "batch_size": 1, "color": 7}


def invert(source: str) -> dict[str, Any]:
    return {"class_type": "ImageInvert", "inputs": {"image": [source, 0]}}


def preview(source: str) -> dict[str, Any]:
    return {"class_type": "PreviewImage", "inputs": {"images": [source, 0]}}


def save(prefix: str) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}}


def show(source: Any) -> dict[str, Any]:
    return {"class_type": "PreviewAny", "inputs": {"source": source}}


def run(url: str, graph: dict[str, Any], **more: Any) -> dict[str, Any]:
    async def entry() -> Any:
        async with Client.to(url) as client:
            return await client.run(graph, **more)

    found: dict[str, Any] = asyncio.run(entry())
    return found


@pytest.mark.parametrize("length", [60, 180])
def test_a_long_chain_is_executed(comfy: str, length: int) -> None:
    chain = {str(place): invert(str(place - 1)) for place in range(2, length)}
    entry = run(comfy, {"1": EMPTY, **chain, "last": preview(str(length - 1))})
    assert entry["status"]["status_str"] == "success"


def test_a_failed_save_leaves_nothing_in_the_pictures_that_are_saved_later(comfy: str) -> None:
    async def save_twice() -> tuple[str, str]:
        async with Client.to(comfy) as client:
            failed = await client.run({"1": EMPTY, "2": save("nul\0nul")})
            entry = await client.run({"1": EMPTY, "2": save("whole")})
            content = await client.file(entry["outputs"]["2"]["images"][0])
            return failed["status"]["status_str"], Image.open(io.BytesIO(content)).info["prompt"]

    status, text = asyncio.run(save_twice())
    assert status == "error"
    assert '"whole"' in text


def test_the_history_shows_constants_as_they_were_coerced(comfy: str) -> None:
    given = {"width": "16", "height": 8.9, "batch_size": True, "color": {"__value__": 5}}
    entry = run(comfy, {"1": {**EMPTY, "inputs": given}, "2": preview("1")})
    assert entry["prompt"][2]["1"]["inputs"] == {"width": 16, "height": 8, "batch_size": 1, "color": 5}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        (5, "5"),
        (None, "None"),
        (True, "True"),
        ({"a": 1}, '{"a": 1}'),
        (["1", 0], "{'samples': tensor([[[[0., 0., 0., 0., 0., 0., 0., 0.],"),
        (["3", 0], "tensor([[[[1., 1., 1.],\n          [1., 1., 1.]]]])"),
    ],
)
def test_anything_is_shown_as_text(comfy: str, source: Any, text: str) -> None:
    entry = run(comfy, {"1": LATENT, "2": show(source), "3": WHITE})
    assert entry["outputs"]["2"]["text"][0].startswith(text)


def test_a_name_without_a_counter_does_not_confuse_the_counter(comfy: str) -> None:
    folder = "counted/%year%-%month%-%day%"
    first, second = (run(comfy, {"1": EMPTY, "2": save(f"{folder}/{name}")}) for name in ("a", "a_b"))
    third = run(comfy, {"1": {**EMPTY, "inputs": {**EMPTY["inputs"], "color": 6}}, "2": save(f"{folder}/a")})
    names = [entry["outputs"]["2"]["images"][0]["filename"] for entry in (first, second, third)]
    counters = [int(name.split("_")[-2]) for name in names]
    assert names[1].startswith("a_b_")
    assert counters[2] == counters[0] + 1


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param({"1": EMPTY, "2": preview("1"), "9": {"class_type": "EmptyImage"}}, id="no inputs"),
        pytest.param({"1": {**EMPTY, "inputs": {**EMPTY["inputs"], "x": ["99", 0]}}, "2": preview("1")}, id="no node"),
    ],
)
def test_a_graph_that_passes_validation_can_stop_the_executor_for_good(standin: Standin, graph: Any) -> None:
    async def poison() -> dict[str, Any]:
        async with Client.to(standin.url) as client:
            poisoned = await client.submit(graph)
            await client.submit({"1": EMPTY, "2": preview("1")})
            await asyncio.sleep(0.3)
            assert await client.json("GET", "/history") == {}
            listed: dict[str, Any] = await client.json("GET", "/queue")
            assert [item[1] for item in listed["queue_running"]] == [poisoned]
            return listed

    assert len(asyncio.run(poison())["queue_pending"]) == 1


def slow_graph() -> dict[str, Any]:
    """Two nodes that take their time: an interrupt takes effect between them."""
    blur = {"blur_radius": 31, "sigma": 9.0}
    return {
        "1": {"class_type": "EmptyImage", "inputs": SLOW},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], **blur}},
        "3": {"class_type": "ImageBlur", "inputs": {"image": ["2", 0], **blur}},
        "4": preview("3"),
    }


def test_frames_for_the_socket_are_sent_again_although_nothing_changed(comfy: str) -> None:
    graph = {"1": EMPTY, "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}}

    async def frames_of_two_runs() -> int:
        async with Client.to(comfy) as client:
            socket = await client.listen("me")
            for _ in range(2):
                await client.run(graph, client_id="me")
            heard = [await socket.next()]
            while ends_of_runs(heard) < 2:
                heard.append(await socket.next())
            await socket.close()
            return sum(isinstance(message, bytes) for message in heard)

    assert asyncio.run(frames_of_two_runs()) == 2


def ends_of_runs(heard: list[Any]) -> int:
    return sum(isinstance(message, dict) and message["type"] == "execution_success" for message in heard)


def test_real_nodes_make_a_job_that_is_slow_enough_to_be_seen_running(comfy: str) -> None:
    async def seen_running() -> None:
        async with Client.to(comfy) as client:
            prompt_id = await client.submit(slow_graph())
            await client.is_running(prompt_id)
            assert await client.json("GET", f"/history/{prompt_id}") == {}
            await client.json("POST", "/interrupt", {"prompt_id": prompt_id})
            await client.idle()

    asyncio.run(seen_running())


def test_an_interrupt_of_another_prompt_leaves_the_running_one_alone(comfy: str) -> None:
    async def status() -> str:
        async with Client.to(comfy) as client:
            prompt_id = await client.submit(slow_graph())
            await client.is_running(prompt_id)
            await client.json("POST", "/interrupt", {"prompt_id": "another"})
            await client.idle()
            entry = await client.json("GET", f"/history/{prompt_id}")
            return str(entry[prompt_id]["status"]["status_str"])

    assert asyncio.run(status()) == "success"


def test_everybody_hears_that_a_prompt_of_no_client_was_interrupted(comfy: str) -> None:
    async def heard() -> str:
        async with Client.to(comfy) as client:
            socket = await client.listen("bystander")
            prompt_id = await client.submit(slow_graph())
            await socket.until("progress_state")
            await client.json("POST", "/interrupt")
            told = (await socket.until("execution_interrupted"))[-1]
            await client.idle()
            await socket.close()
            return str(told["data"]["prompt_id"] == prompt_id and told["data"]["node_type"])

    assert asyncio.run(heard()) in ("EmptyImage", "ImageBlur")
