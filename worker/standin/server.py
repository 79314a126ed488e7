"""ComfyUI's HTTP routes, each also under /api. Where ComfyUI answers with a 500, an exception here does likewise."""

import asyncio
import contextlib
import ipaddress
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from worker.standin import PRODUCT, log
from worker.standin.executor import Executor
from worker.standin.files import Folders, upload, view
from worker.standin.nodes import NODES, object_info
from worker.standin.queue import PromptQueue
from worker.standin.sockets import FEATURES, Hub, new_sid
from worker.standin.validate import Refused, validate

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
COMFYUI_VERSION = "0.3.64"
"""The release whose recordings this is held to."""
MAX_UPLOAD_BYTES = 104857600
MEMORY_BYTES = 16 * 2**30
MODEL_FOLDERS = [
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models"),
    *("embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models", "custom_nodes"),
    *("hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders"),
]


class Server:
    def __init__(self, folders: Folders, delay_s: float = 0):
        self.folders = folders
        self.hub = Hub()
        self.queue = PromptQueue(changed=self._announce)
        self.executor = Executor(self.queue, self.hub, folders, delay_s)
        self.number = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[same_origin])
        for prefix in ("/api", ""):
            for path, handler in self._gets().items():
                app.router.add_get(prefix + path, handler)
            for path, handler in self._posts().items():
                app.router.add_post(prefix + path, handler)
        app.router.add_get("/", front_page)
        app.router.add_get("/{anything:.*}", not_found)
        app.cleanup_ctx.append(self._at_work)
        app.on_shutdown.append(self._hang_up)
        return app

    def _gets(self) -> dict[str, Handler]:
        return {
            "/ws": self.socket,
            "/prompt": self.get_prompt,
            "/queue": self.get_queue,
            "/history": self.get_history,
            "/history/{prompt_id}": self.get_history_entry,
            "/view": self.get_view,
            "/object_info": self.get_object_info,
            "/object_info/{node_class}": self.get_object_info_of,
            "/system_stats": _answering(system_stats),
            "/features": _answering(lambda: FEATURES),
            "/models": _answering(lambda: MODEL_FOLDERS),
            "/models/{folder}": get_models,
            "/embeddings": _answering(list),
            "/users": _answering(lambda: {"storage": "server", "migrated": False}),
            "/settings": _answering(dict),
        }

    def _posts(self) -> dict[str, Handler]:
        return {
            "/prompt": self.post_prompt,
            "/queue": self.post_queue,
            "/history": self.post_history,
            "/interrupt": self.post_interrupt,
            "/free": self.post_free,
            "/upload/image": self.post_upload,
        }

    async def _at_work(self, app: web.Application) -> AsyncIterator[None]:
        publishing = asyncio.create_task(self.hub.publish())
        self.executor.start()
        yield
        publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publishing

    async def _hang_up(self, app: web.Application) -> None:
        self.executor.interrupted.set()
        await self.hub.close_all()

    def _status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def _announce(self) -> None:
        self.hub.post("status", {"status": self._status()}, None)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        sid = request.query.get("clientId") or new_sid()
        greeting: list[tuple[str, Any]] = [("status", {"status": self._status(), "sid": sid})]
        if self.executor.client_id == sid and self.executor.last_node is not None:
            greeting.append(("executing", {"node": self.executor.last_node}))
        return await self.hub.connect(request, greeting, sid)

    async def post_prompt(self, request: web.Request) -> web.Response:
        """Numbers count from 0 at each start; a refused prompt uses one up, one that brings its own does not."""
        body = await request.json()
        if "number" in body:
            number = float(body["number"])
        else:
            number = -self.number if _said(body, "front") else self.number
            self.number += 1
        try:
            return web.json_response(self._accept(body, number))
        except Refused as refused:
            log.info("refused a prompt: %s %s", refused, json.dumps(refused.body["node_errors"])[:500])
            return web.json_response(refused.body, status=400)

    def _accept(self, body: Any, number: float) -> dict[str, Any]:
        if "prompt" not in body:
            raise Refused("no_prompt", "No prompt provided", "No prompt provided", {})
        graph, prompt_id = body["prompt"], str(body.get("prompt_id", uuid.uuid4()))
        outputs, node_errors = validate(graph, body.get("partial_execution_targets"), self.folders)
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        self.queue.put((number, prompt_id, graph, extra_data, outputs))
        log.info("queued prompt %s", prompt_id)
        return {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}

    async def get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def get_queue(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.listed())

    async def post_queue(self, request: web.Request) -> web.Response:
        body = await request.json()
        if _said(body, "clear"):
            self.queue.clear()
        for prompt_id in _said(body, "delete") or ():
            self.queue.delete(prompt_id)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """With a prompt_id only if that one runs; else whatever runs. When nothing runs it has no effect."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self.queue.is_running(prompt_id):
            self.executor.interrupted.set()
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("free_memory", False):
            self.queue.ask_to_free_memory()
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        max_items, offset = request.query.get("max_items"), request.query.get("offset")
        limit = None if max_items is None else int(max_items)
        return web.json_response(self.queue.history(limit, -1 if offset is None else int(offset)))

    async def get_history_entry(self, request: web.Request) -> web.Response:
        return web.json_response(self.queue.entry(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        body = await request.json()
        if _said(body, "clear"):
            self.queue.forget_all()
        for prompt_id in _said(body, "delete") or ():
            self.queue.forget(prompt_id)
        return web.Response()

    async def get_view(self, request: web.Request) -> web.StreamResponse:
        return await view(request, self.folders)

    async def post_upload(self, request: web.Request) -> web.Response:
        return await upload(request, self.folders)

    async def get_object_info(self, request: web.Request) -> web.Response:
        return web.json_response({name: object_info(name, self.folders) for name in NODES})

    async def get_object_info_of(self, request: web.Request) -> web.Response:
        name = request.match_info["node_class"]
        return web.json_response({name: object_info(name, self.folders)} if name in NODES else {})


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """403 if a browser comes from another site to a loopback host. OPTIONS is answered without looking at routes."""
    if "Origin" in request.headers and not _matches(request.headers["Origin"], request.headers.get("Host", "")):
        log.warning("Origin %s is not %s", request.headers["Origin"], request.headers.get("Host"))
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def _matches(origin: str, host: str) -> bool:
    """Ports count only where both sides name one."""
    theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
    if not _is_loopback(ours.hostname or "") or not theirs.hostname:
        return True
    same_port = theirs.port == ours.port or theirs.port is None or ours.port is None
    return theirs.hostname == ours.hostname and same_port


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _said(body: Any, key: str) -> Any:
    """body[key] if it is there. A body may also be a list or a string, as with ComfyUI, which then says nothing."""
    return key in body and body[key]


def _answering(content: Callable[[], Any]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(content())

    return answer


async def front_page(request: web.Request) -> web.Response:
    return web.Response(text=f"{PRODUCT}: HTTP and WebSocket API only, there is no page here\n")


async def not_found(request: web.Request) -> web.Response:
    return web.Response(status=404, content_type="application/octet-stream")


async def get_models(request: web.Request) -> web.Response:
    if request.match_info["folder"] not in MODEL_FOLDERS:
        return web.Response(status=404)
    return web.json_response([])


def system_stats() -> dict[str, Any]:
    """The shape of a server without a GPU; sizes in bytes, invented."""
    none = f"none: {PRODUCT}"
    system = {"os": "posix", "ram_total": MEMORY_BYTES, "ram_free": MEMORY_BYTES, "comfyui_version": COMFYUI_VERSION}
    system |= {"required_frontend_version": none, "installed_templates_version": none}
    system |= {"required_templates_version": none, "python_version": sys.version, "pytorch_version": none}
    system |= {"embedded_python": False, "argv": sys.argv}
    sizes = ("vram_total", "vram_free", "torch_vram_total", "torch_vram_free")
    device = {"name": "cpu", "type": "cpu", "index": None, **dict.fromkeys(sizes, MEMORY_BYTES)}
    return {"system": system, "devices": [device]}
