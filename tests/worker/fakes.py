"""What the worker's tests run against: the stand-in as a process, a ComfyUI that misbehaves, a Hearth that records."""

import asyncio
import base64
import io
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from PIL import Image

from worker.handler import Worker
from worker.settings import Settings
from worker.wire import networks

logging.getLogger("asyncio").setLevel(logging.WARNING)
LOCAL = networks(["127.0.0.0/8"])
FAST = {"start_s": 0.3, "http_s": 0.4, "http_tries": 2, "silence_s": 0.3, "stop_s": 3.0, "hearth_retry_s": 1.0}


def png(color: str = "red", size: int = 16) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_workflow(color: int = 1, size: int = 32, prefix: str = "t/x") -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def load_workflow(name: str) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t/loaded"}},
    }


def chain(color: int, class_type: str, length: int = 8) -> dict[str, Any]:
    """Nodes "10" to "17", one after the other, between an image and its saving."""
    workflow = image_workflow(color, size=640)
    for number in range(10, 10 + length):
        inputs = {"image": ["1" if number == 10 else str(number - 1), 0]}
        inputs |= {"seconds": 0.5} if class_type == "StandinSleep" else {"blur_radius": 31, "sigma": 9.0}
        workflow[str(number)] = {"class_type": class_type, "inputs": inputs}
    workflow["2"]["inputs"]["images"] = [str(9 + length), 0]
    return workflow


def job(workflow: Any, id: str = "job-1", **more: Any) -> dict[str, Any]:
    return {"id": id, "input": {"workflow": workflow, **more}}


@asynccontextmanager
async def worker_for(url: str, progress: Any = None, **settings: Any) -> AsyncIterator[Worker]:
    """One of Hearth's own; with worker_name="" it is RunPod's."""
    worker = Worker(Settings(comfyui_url=url, **{"url_allow": LOCAL, "worker_name": "gpu", **settings}), progress)
    try:
        yield worker
    finally:
        await worker.close()


async def handled(url: str, given: dict[str, Any], **settings: Any) -> dict[str, Any]:
    async with worker_for(url, **settings) as worker:
        return await worker.handle(given)


async def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for what another process or task is about to do."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def free_port(low: int = 0, high: int = 1) -> int:
    """SeaweedFS wants one of 11000 to 22000: it opens port + 10000 too, and both must lie below the ephemeral ones."""
    for _ in range(100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(low, high)))
            port: int = probe.getsockname()[1]
            return port
    raise AssertionError(f"no free port between {low} and {high}")


class Process:
    """A child that says READY and its URL; killed at the end whatever state it is in."""

    def __init__(self, *arguments: str) -> None:
        self.child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout
        readable, _, _ = select.select([self.child.stdout], [], [], 20)
        line = self.child.stdout.readline() if readable else ""
        assert line.startswith("READY "), f"{arguments} did not start: {line!r}"
        self.url = line.split()[1]

    def send(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()


def standin(folder: Path, port: int = 0) -> Process:
    return Process("worker.standin", "--port", str(port), "--dir", str(folder))


class Server:
    """An aiohttp application on a free port for the length of an `async with`."""

    def __init__(self) -> None:
        self.app = web.Application(client_max_size=64 * 1024**2)

    async def __aenter__(self) -> Any:
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


Play = Callable[["FakeComfy", str], Awaitable[None]]


class FakeComfy(Server):
    """Answers as ComfyUI does, and plays on each prompt what the test says: `play(comfy, prompt_id)`."""

    content: bytes | None = None
    classes = {
        "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}},
        "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}}},
    }

    def __init__(self, play: Play | None = None, prompt_status: int = 200, prompt_body: Any = None) -> None:
        super().__init__()
        self.play, self.prompt_status, self.prompt_body = play, prompt_status, prompt_body
        self.prompts: list[dict[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self.before_queued = asyncio.Event()
        self.before_queued.set()
        self.uploads: list[str] = []
        self.uploaded: list[bytes] = []
        self.clients: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.running: list[str] = []
        self.pending: list[str] = []
        self.history: dict[str, Any] = {}
        self._plays: list[asyncio.Task[None]] = []
        self.app.add_routes(
            [
                web.get("/ws", self._ws),
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.get("/history", self._entries),
                web.get("/history/{id}", self._entry),
                web.post("/{what:queue|history|interrupt|free}", self._told),
                web.get("/view", self._view),
                web.get("/object_info/{name}", self._object_info),
                web.get("/features", self._features),
                web.post("/upload/image", self._upload),
            ]
        )

    async def say(self, kind: str, prompt_id: str | None, **data: Any) -> None:
        await self.sockets[-1].send_json({"type": kind, "data": {**data, "prompt_id": prompt_id}})

    def succeed(self, prompt_id: str, outputs: dict[str, Any] | None = None) -> None:
        self.running = []
        self.history[prompt_id] = {"outputs": outputs or {}, "status": {"status_str": "success", "messages": []}}

    async def finish(self, prompt_id: str, outputs: dict[str, Any] | None = None) -> None:
        self.succeed(prompt_id, outputs)
        await self.say("executing", prompt_id, node=None)

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.clients.append(request.query["clientId"])
        self.sockets.append(socket)
        async for _ in socket:
            pass
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        prompt = await request.json()
        self.prompts.append(prompt)
        await self.before_queued.wait()
        prompt_id = prompt["prompt_id"]
        self.running.append(prompt_id)
        if self.play:
            self._plays.append(asyncio.create_task(self._perform(prompt_id)))
        body = (
            {"prompt_id": prompt_id, "number": 1, "node_errors": {}} if self.prompt_body is None else self.prompt_body
        )
        if isinstance(body, str):
            return web.Response(status=self.prompt_status, text=body)
        return web.json_response(body, status=self.prompt_status)

    async def _perform(self, prompt_id: str) -> None:
        assert self.play
        await self.play(self, prompt_id)

    async def _queue(self, request: web.Request) -> web.Response:
        self.asked.append(("queue", None))
        items = {key: [[1, id, {}, {}, []] for id in ids] for key, ids in self._lists().items()}
        return web.json_response(items)

    def _lists(self) -> dict[str, list[str]]:
        return {"queue_running": self.running, "queue_pending": self.pending}

    async def _entries(self, request: web.Request) -> web.Response:
        return web.json_response(self.history)

    async def _entry(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        self.asked.append(("history", prompt_id))
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _told(self, request: web.Request) -> web.Response:
        self.asked.append((f"POST {request.match_info['what']}", await request.json()))
        return web.Response()

    async def _object_info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response({name: self.classes[name]} if name in self.classes else {})

    async def _features(self, request: web.Request) -> web.Response:
        return web.json_response({"max_upload_size": 10_000})

    async def _view(self, request: web.Request) -> web.Response:
        if request.query["filename"].startswith("gone"):
            return web.Response(status=404)
        if ".." in request.query["filename"]:
            return web.Response(status=400)
        return web.Response(body=self.content or b"bytes of " + request.query["filename"].encode())

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        name, subfolder = form["image"].filename, form["subfolder"]  # type: ignore[union-attr]
        self.uploads.append(f"{subfolder}/{name}")
        self.uploaded.append(form["image"].file.read())  # type: ignore[union-attr]
        return web.json_response({"name": name, "subfolder": subfolder, "type": "input"})


class FakeHearth(Server):
    """Takes the worker's calls and the PUTs; statuses[what] are answered first, one each, then 200. absent: so often it
    says of each file that S3 has it not. small: what it answers to previews. hangs: the calls that it never answers."""

    def __init__(self, trusted: bool = True, slot_url: str = "") -> None:
        super().__init__()
        self.trusted, self.slot_url = trusted, slot_url
        self.calls: list[tuple[str, Any]] = []
        self.puts: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: dict[str, list[int]] = {}
        self.before_put: Callable[[], Awaitable[Any]] | None = None
        self.hangs: tuple[str, ...] = ()
        self.absent = 0
        self.found: dict[str, Any] = {}
        self.small: Any = None
        self._slots = 0
        self.app.add_routes(
            [web.post("/hooks/worker/tok-secret/{verb}", self._call), web.put("/s3/{key:.*}", self._put)]
        )

    @property
    def field(self) -> dict[str, str]:
        return {"url": self.url, "token": "tok-secret"}

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls]

    async def _call(self, request: web.Request) -> web.Response:
        verb, body = request.match_info["verb"], await request.json()
        self.calls.append((verb, body))
        if verb in self.hangs:
            await asyncio.Event().wait()
        if self.statuses.get(verb):
            return web.json_response({}, status=self.statuses[verb].pop(0))
        if verb == "uploads":
            return web.json_response({"uploads": [self._slot(file) for file in body["files"]]})
        if verb == "stored":
            self.absent -= 1
            found = {"there": self.absent < 0, "status": 200, "code": ""} | self.found
            return web.json_response({"stored": [{"id": id} | found for id in body["ids"]]})
        if verb == "small":
            small = {"small": [self._small(file) for file in body["files"]]}
            return web.json_response(small if self.small is None else self.small)
        return web.json_response({})

    def _slot(self, file: dict[str, Any]) -> dict[str, Any]:
        self._slots += 1
        key = f"acme/job/a1/{self._slots}-{file['name']}"
        url = self.slot_url or f"{self.url}/s3/{quote(key)}?X-Amz-Signature=a%2Fb"
        headers = {"Content-Type": file["content_type"], "x-amz-meta-slot": str(self._slots)}
        return {"id": f"asset-{self._slots}", "key": key, "url": url, "headers": headers, "trusted": self.trusted}

    def _small(self, file: dict[str, Any]) -> dict[str, Any]:
        key = f"acme/job/a1/{file['id']}.preview.webp"
        headers = {"Content-Type": "image/webp"}
        return {
            "id": file["id"],
            "key": key,
            "url": f"{self.url}/s3/{key}",
            "headers": headers,
            "trusted": self.trusted,
        }

    async def _put(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.before_put:
            await self.before_put()
        statuses = self.statuses.get("put") or self.statuses.get("put " + request.match_info["key"].split("-", 1)[-1])
        if statuses and (status := statuses.pop(0)) != 200:
            headers = {"Location": f"{self.url}/s3/elsewhere"} if status == 307 else None
            return web.Response(status=status, text="<Error><Code>NoLuck</Code></Error>", headers=headers)
        self.puts.append((request.raw_path, dict(request.headers), body))
        return web.Response()
