"""ComfyUI as somebody uses it who has nothing else: the floor of the worker's rows. And what it says of its queue."""

import asyncio
import json
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp

from benchmarks.bench import Bench
from benchmarks.processes import running, wait
from hearth.local import instance
from hearth.local.seaweed import free_ports, is_free

Workflow = dict[str, Any]


@contextmanager
def a_comfyui(bench: Bench) -> Iterator[tuple[str, str]]:
    """(URL, folder that the worker may clean or ""): the one that COMFYUI_URL names, else a stand-in of our own."""
    if given := os.environ.get("COMFYUI_URL"):
        yield given.rstrip("/"), ""
        return
    port = free_ports(1)[0]
    home = bench.instance.home
    with running(instance.comfyui(home, "bench", port), home) as child:
        wait(child, lambda: not is_free(port))
        yield f"http://127.0.0.1:{port}", str(home.folder("comfyui-bench"))


def small_image() -> Workflow:
    """64×64, of a colour that no cache knows."""
    color = secrets.randbelow(2**24)
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


def slept_image(seconds: float) -> Workflow:
    """The same after a sleep that costs no CPU."""
    made = small_image()
    made["3"] = {"class_type": "StandinSleep", "inputs": {"seconds": seconds, "image": ["1", 0]}}
    made["2"]["inputs"]["images"] = ["3", 0]
    return made


def can_sleep(url: str) -> bool:
    with urlopen(f"{url}/object_info/StandinSleep") as answer:
        return bool(json.load(answer))


class Direct:
    """One kept session and one kept socket."""

    def __init__(self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, me: str):
        self._url, self._session, self._socket, self._me = url, session, socket, me

    async def picture(self, workflow: Workflow) -> bytes:
        """Run it; its file, by POST /prompt, the socket until the end, /history and /view."""
        prompt_id = str(uuid.uuid4())
        prompt = {"prompt": workflow, "prompt_id": prompt_id, "client_id": self._me}
        async with self._session.post(f"{self._url}/prompt", json=prompt) as answer:
            answer.raise_for_status()
        await self._end(prompt_id)
        async with self._session.get(f"{self._url}/history/{prompt_id}") as answer:
            (image,) = (await answer.json())[prompt_id]["outputs"]["2"]["images"]
        async with self._session.get(f"{self._url}/view", params=image) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def _end(self, prompt_id: str) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                said = json.loads(message.data)
                data = said["data"]
                if said["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                    return
        raise ConnectionResetError("ComfyUI closed the socket")


@asynccontextmanager
async def direct(url: str) -> AsyncIterator[Direct]:
    me = uuid.uuid4().hex
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={me}") as socket:
        yield Direct(url, session, socket, me)


class Busy:
    """When its queue was empty and when not, as `status` tells every socket."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, bool]] = []

    async def watch(self, url: str) -> None:
        """Until it is cancelled."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws?clientId={uuid.uuid4().hex}") as socket,
        ):
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._hear(json.loads(message.data))

    def _hear(self, said: dict[str, Any]) -> None:
        if said["type"] == "status":
            waiting = said["data"]["status"]["exec_info"]["queue_remaining"]
            self.changes.append((time.monotonic(), waiting > 0))

    def share(self) -> float:
        """Of the time from its first job's begin to its last job's end; 1 is always."""
        began = next(at for at, busy in self.changes if busy)
        spans = zip(self.changes, self.changes[1:], strict=False)
        busy = sum(end - start for (start, is_busy), (end, _) in spans if is_busy)
        ended = max(at for at, is_busy in self.changes if not is_busy)
        return busy / (ended - began)


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[Busy]:
    busy = Busy()
    task = asyncio.create_task(busy.watch(url))
    try:
        yield busy
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def said_in(log: Path) -> dict[str, tuple[float, float]]:
    """By attempt: what timed_worker.py wrote, (taken, called)."""
    lines = [line.split() for line in log.read_text(errors="replace").splitlines() if line.startswith("TIMED ")]
    return {name: (float(taken), float(called)) for _, name, taken, called in lines}
