"""What is there when: execution_success, the history entry, executing null [recordings 50 and 51]."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from .client import Client
from .recordings import recording


def chain(color: int) -> dict[str, Any]:
    """A medium picture, so that the end of the run takes a real ComfyUI some time."""
    blur = {"blur_radius": 31, "sigma": 9.0}
    size = {"width": 512, "height": 512, "batch_size": 1}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, "color": color}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], **blur}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


async def present_after(url: str, message: str, runs: int) -> AsyncGenerator[bool, None]:
    """For each of some runs, whether the history entry was there as soon as that message came."""
    async with Client.to(url) as client:
        socket = await client.listen("me")
        for color in range(runs):
            prompt_id = await client.submit(chain(color), client_id="me")
            heard = await socket.until(message)
            while message == "executing" and heard[-1]["data"]["node"] is not None:
                heard = await socket.until(message)
            yield bool(await client.json("GET", f"/history/{prompt_id}"))
            await client.idle()
        await socket.close()


def test_success_may_be_told_before_the_history_entry_exists(comfy: str) -> None:
    recorded = recording("50_success_vs_history_tight")[0]["512x3blur"]

    async def ever_absent() -> bool:
        async with contextlib.aclosing(present_after(comfy, "execution_success", 40)) as seen:
            async for present in seen:
                if not present:
                    return True
        return False

    assert asyncio.run(ever_absent()) == (recorded["history_absent_at_first_get"] > 0)


def test_when_executing_null_is_told_the_history_entry_is_there(comfy: str) -> None:
    recorded = recording("51_executing_null_vs_history")[0]

    async def absent() -> int:
        return [present async for present in present_after(comfy, "executing", 5)].count(False)

    assert asyncio.run(absent()) == recorded["history_absent_after_executing_null"]
