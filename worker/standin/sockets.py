"""The WebSocket side: who is connected under which clientId, and one ordered stream of messages to them."""

import asyncio
import json
import struct
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from worker.standin import log

FEATURES = {"supports_preview_metadata": True, "max_upload_size": 104857600}
PREVIEW_IMAGE, PREVIEW_IMAGE_WITH_METADATA = 1, 4
PNG = 2
Message = tuple[str | int, Any, str | None]


class Hub:
    """Messages may be posted from any thread; they leave in that order.

    ComfyUI's registration is kept with its traps: one socket per clientId, the newest; an older one stays open and
    hears nothing, and when ANY socket of a clientId closes, whatever is registered under that clientId is dropped.
    """

    def __init__(self) -> None:
        self.registered: dict[str, web.WebSocketResponse] = {}
        self.flags: dict[str, dict[str, Any]] = {}
        self.open: set[web.WebSocketResponse] = set()
        self.outbox: asyncio.Queue[Message] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def post(self, event: str | int, data: Any, client_id: str | None) -> None:
        """Send to that client, or to everybody when client_id is None; from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.outbox.put_nowait, (event, data, client_id))

    def post_preview(self, png: bytes, metadata: dict[str, Any], client_id: str | None) -> None:
        """Send a preview image in the form this client asked for."""
        if self.wants_metadata(client_id):
            head = json.dumps({**metadata, "image_type": "image/png"}).encode()
            self.post(PREVIEW_IMAGE_WITH_METADATA, struct.pack(">I", len(head)) + head + png, client_id)
        else:
            self.post(PREVIEW_IMAGE, struct.pack(">I", PNG) + png, client_id)

    def wants_metadata(self, client_id: str | None) -> bool:
        return self.flags.get(client_id or "", {}).get("supports_preview_metadata") is True

    async def publish(self) -> None:
        """Deliver what was posted, for ever."""
        while True:
            message = await self.outbox.get()
            try:
                await self.deliver(*message)
            except Exception:
                log.exception("could not deliver %s to client %r", message[0], message[2])

    async def deliver(self, event: str | int, data: Any, client_id: str | None) -> None:
        targets = list(self.registered.values()) if client_id is None else [self.registered.get(client_id)]
        for socket in targets:
            if socket is not None:
                await _send(socket, event, data)

    async def connect(self, request: web.Request, greeting: list[tuple[str, Any]], sid: str) -> web.WebSocketResponse:
        """Hold one socket until its client leaves; `greeting` is sent to it first."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.registered[sid], self.flags[sid] = socket, {}
        self.open.add(socket)
        try:
            for event, data in greeting:
                await self.deliver(event, data, sid)
            await self._listen(socket, sid)
        finally:
            self.registered.pop(sid, None)
            self.flags.pop(sid, None)
            self.open.discard(socket)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, sid: str) -> None:
        """Only the very first text message counts: it may announce feature flags."""
        first = True
        async for message in socket:
            if message.type != WSMsgType.TEXT or not first:
                continue
            try:
                said = json.loads(message.data)
                if said.get("type") == "feature_flags":
                    self.flags[sid] = said.get("data", {})
                    await self.deliver("feature_flags", FEATURES, sid)
                first = False
            except (ValueError, AttributeError, KeyError) as error:
                log.warning("client %s sent %.100r: %s", sid, message.data, error)

    async def close_all(self) -> None:
        await asyncio.gather(*(socket.close() for socket in list(self.open)), return_exceptions=True)


def new_sid() -> str:
    return uuid.uuid4().hex


async def _send(socket: web.WebSocketResponse, event: str | int, data: Any) -> None:
    try:
        if isinstance(event, int):
            await socket.send_bytes(struct.pack(">I", event) + data)
        else:
            await socket.send_json({"type": event, "data": data})
    except ConnectionError as error:
        log.warning("a client left before it got its %s: %s", event, error)
