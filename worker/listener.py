"""The worker's one WebSocket to ComfyUI, read at all times, so that ComfyUI never waits for us.

ComfyUI sends a prompt's messages to one socket: the newest of the client id that the prompt was sent with. A socket
that was opened again under the same id may be deaf (comfyui.md, WebSocket). So that is done only for a prompt that
runs, and the next prompt gets a socket of a new id.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from worker.comfy import Comfy

log = logging.getLogger("hearth.worker")
OURS = "hearth-worker-"  # so begins the client id of each worker, by which its prompts are known after its death


class Follower(Protocol):
    """Who follows a prompt; called from the listener's own task, so it must not block."""

    prompt_id: str

    def hear(self, message: dict[str, Any]) -> None: ...

    def see(self, frame: bytes) -> None: ...

    def lose(self) -> None: ...


class Listener:
    """idle_drop is called when the socket drops while nobody follows a prompt.

    client_id: what a prompt is sent with. may_be_deaf: the socket was opened again under the same id.
    heard_at: monotonic time of the last message, whosesoever.
    """

    def __init__(self, comfy: Comfy, idle_drop: Callable[[], None] = lambda: None) -> None:
        self.client_id = ""
        self.may_be_deaf = False
        self.heard_at = 0.0
        self._comfy = comfy
        self._idle_drop = idle_drop
        self._opening = asyncio.Lock()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._followers: list[Follower] = []

    @property
    def is_open(self) -> bool:
        return self._socket is not None and not self._socket.closed

    async def open(self) -> None:
        """Make sure of a socket that misses nothing of the next prompt; waits for ComfyUI to come up."""
        async with self._opening:
            if not self.is_open or (self.may_be_deaf and not self._followers):
                await self._comfy.when_up(lambda: self._connect(f"{OURS}{uuid.uuid4().hex}"))
                self.may_be_deaf = False

    async def reopen(self) -> None:
        """Under the same id, for the sake of a prompt that runs, and only after the old socket is shut."""
        async with self._opening:
            if not self.is_open:
                await self._connect(self.client_id)
                self.may_be_deaf = True

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)
        if not self.is_open:
            follower.lose()

    def leave(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers.remove(follower)

    async def close(self) -> None:
        if self._reader:
            self._reader.cancel()
        if self._socket:
            await self._socket.close()

    async def _connect(self, client_id: str) -> None:
        await self.close()
        self._socket = await self._comfy.connect(client_id)
        self.client_id = client_id
        self._reader = asyncio.create_task(self._read(self._socket))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self.heard_at = time.monotonic()
            try:
                self._hand_on(message)
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                log.warning("ComfyUI sent what cannot be read: %r", error)
        log.info("the socket to ComfyUI dropped")
        await socket.close()
        for follower in self._followers:
            follower.lose()
        if not self._followers:
            self._idle_drop()

    def _hand_on(self, message: aiohttp.WSMessage) -> None:
        """To whom it concerns: messages of other prompts come as well."""
        if message.type is aiohttp.WSMsgType.BINARY:
            for follower in self._followers:
                follower.see(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            said = json.loads(message.data)
            prompt_id = (said.get("data") or {}).get("prompt_id")
            for follower in self._followers:
                if prompt_id == follower.prompt_id:
                    follower.hear(said)
