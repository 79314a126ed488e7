"""One prompt in ComfyUI, from its socket to its history entry.

The socket is only a hint that is heard early: what counts is what /history says. A socket that drops, or says
nothing about this prompt for silence_s, makes us ask /history and /queue, and go on, or fail, by what they know.
"""

import asyncio
import json
import logging
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp

from worker.aside import to_end
from worker.comfy import Comfy
from worker.errors import JobError
from worker.files import OutputFile
from worker.progress import Progress, Report

log = logging.getLogger("hearth.worker")

SAID_ALL = {"execution_success", "execution_error", "execution_interrupted"}
ENTRY_LATE_S = 0.3  # after one of SAID_ALL: the history entry may be so late, usually `executing: null` comes first
DEAF_S = 2.0  # a reopened socket may hear nothing at all (comfyui.md, WebSocket), so ask more often
CLOSED = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


class Follow:
    """open(), run(), tidy(); stop() if run() did not return. images: what nodes sent over the socket."""

    def __init__(self, comfy: Comfy, workflow: Mapping[str, Any], report: Report | None = None) -> None:
        self.prompt_id = str(uuid.uuid4())
        self.images: list[OutputFile] = []
        self.node_errors: dict[str, Any] = {}
        self._comfy = comfy
        self._settings = comfy.settings
        self._workflow = dict(workflow)
        self._client_id = uuid.uuid4().hex
        self._progress = Progress(workflow, report)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._drops = 0
        self._over = False
        self._ask_at = 0.0

    async def open(self) -> None:
        """Connect before anything is started, so that no message is missed; waits for ComfyUI to come up."""
        self._socket = await self._comfy.when_up(lambda: self._comfy.connect(self._client_id))

    async def run(self) -> dict[str, Any]:
        """Submit and follow to the end; the history entry, of a success or a failure. JobError: there is none."""
        submit = self._comfy.submit(self.prompt_id, self._client_id, self._workflow)
        self.node_errors = await to_end(submit)  # to its end: a request given up half-way may still be queued
        self._submitted_at = time.monotonic()
        self._ask_in(self._settings.silence_s)
        while True:
            lost = not await self._listen()
            self._drops += lost
            if (entry := await self._entry()) is not None:
                return entry
            if lost:
                await self._reopen()
            self._ask_in(0.1 if self._over else DEAF_S if self._drops else self._settings.silence_s)

    async def stop(self) -> None:
        """Make ComfyUI let go of this prompt, for at most stop_s; it ends only between two nodes or steps."""
        pause = 0.05
        try:
            async with asyncio.timeout(self._settings.stop_s):
                while (place := await self._comfy.place(self.prompt_id)) is not None:
                    await self._comfy.let_go(self.prompt_id, place)
                    await asyncio.sleep(pause)
                    pause = min(0.5, pause * 2)
                await self._comfy.forget(self.prompt_id)
        except TimeoutError:
            log.warning("prompt %s still runs %g s after its interrupt", self.prompt_id, self._settings.stop_s)
        except JobError as error:
            log.warning("prompt %s could not be stopped: %s", self.prompt_id, error)

    async def close(self) -> None:
        self._progress.close()
        if self._socket:
            await self._socket.close()

    async def tidy(self) -> None:
        """Close, and leave nothing of the prompt in ComfyUI's history. Its result does not depend on it."""
        await self.close()
        try:
            async with asyncio.timeout(self._settings.http_s):
                await self._comfy.forget(self.prompt_id)
        except (JobError, TimeoutError) as error:
            log.warning("prompt %s stays in ComfyUI's history: %r", self.prompt_id, error)

    async def _listen(self) -> bool:
        """Hear messages until it is time to ask by HTTP; False if the socket is gone."""
        assert self._socket
        while (left := self._ask_at - time.monotonic()) > 0:
            try:
                message = await self._socket.receive(timeout=left)
            except TimeoutError:
                return True
            if message.type in CLOSED:
                return False
            if message.type is aiohttp.WSMsgType.BINARY:
                self._take_image(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._hear(json.loads(message.data))
        return True

    def _hear(self, message: Any) -> None:
        """Only messages about this prompt count: others come as well, and tell nothing about ours."""
        data = message.get("data") if isinstance(message, dict) else None
        if not isinstance(data, dict) or data.get("prompt_id") != self.prompt_id:
            return
        kind = message.get("type")
        self._progress.hear(kind, data)
        if kind in SAID_ALL:
            self._over = True
            self._ask_in(ENTRY_LATE_S)
        elif kind == "executing" and data.get("node") is None:
            self._over = True
            self._ask_in(0)
        elif not self._over:
            self._ask_in(self._settings.silence_s)

    def _take_image(self, frame: bytes) -> None:
        """Binary event 4 names prompt and node, event 1 belongs to the node that executes. Only nodes that send
        their result so are kept (SaveImageWebsocket and its like): the rest are previews."""
        if len(frame) < 8:
            return
        event, second = struct.unpack_from(">II", frame)
        if event == 4:
            about = json.loads(frame[8 : 8 + second])
            node, prompt_id = str(about.get("node_id")), about.get("prompt_id")
            png, data = about.get("image_type") == "image/png", frame[8 + second :]
        elif event == 1:
            node, prompt_id, png, data = self._progress.node or "", self.prompt_id, second == 2, frame[8:]
        else:
            return
        if prompt_id == self.prompt_id and "websocket" in self._progress.class_type(node).lower():
            name = f"websocket_{node}_{len(self.images) + 1:05}.{'png' if png else 'jpg'}"
            self.images.append(OutputFile(node=node, name=name))
            self.images[-1].write(data)

    async def _entry(self) -> dict[str, Any] | None:
        """The history entry; None while ComfyUI still has the prompt; JobError when it knows nothing of it."""
        if (entry := await self._comfy.history(self.prompt_id)) is not None:
            return entry
        place = await self._comfy.place(self.prompt_id)
        if place == "pending" and time.monotonic() - self._submitted_at > self._settings.busy_s:
            raise self._busy()
        if place is not None:
            return None
        # It may have ended between the two questions.
        if (entry := await self._comfy.history(self.prompt_id)) is not None:
            return entry
        raise self._gone()

    async def _reopen(self) -> None:
        """The same client id, since ComfyUI sends this prompt's messages to no other, and the old socket first shut."""
        assert self._socket
        log.info("prompt %s: the socket to ComfyUI dropped, reopening it", self.prompt_id)
        await self._socket.close()
        await asyncio.sleep(min(2.0, 0.1 * (self._drops - 1)))
        self._socket = await self._comfy.connect(self._client_id)

    def _ask_in(self, seconds: float) -> None:
        self._ask_at = time.monotonic() + seconds

    def _busy(self) -> JobError:
        waited = f"{self._settings.busy_s:g} s"
        return JobError(
            f"ComfyUI was busy with somebody else's prompt for {waited}; run the job again, and see who uses it",
            "comfyui_busy",
        )

    def _gone(self) -> JobError:
        if self._drops:
            return JobError(
                "ComfyUI restarted during the run and lost the prompt; look at its log and run the job again",
                "comfyui_crashed",
            )
        return JobError(
            "ComfyUI no longer knows the prompt: somebody deleted it from its queue or history; run the job again",
            "prompt_gone",
        )
