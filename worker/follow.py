"""One prompt in ComfyUI, from its submission to its history entry.

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

from worker.aside import to_end
from worker.beside import Beside
from worker.comfy import Comfy
from worker.errors import JobError
from worker.files import OutputFile
from worker.listener import Listener
from worker.outputs import shown_in
from worker.progress import Progress, Report

log = logging.getLogger("hearth.worker")

SUCCESS = "execution_success"
SAID_ALL = {SUCCESS, "execution_error", "execution_interrupted"}
ENTRY_LATE_S = 0.3  # after one of SAID_ALL: the history entry may be so late, usually `executing: null` comes first
DEAF_S = 2.0  # a reopened socket may hear nothing at all (comfyui.md, WebSocket), so ask more often
SOON_S = 0.1
WEDGED_LOOKS = 3  # so often, silence_s apart, a prompt is found running that the executor says nothing of


class Follow:
    """run(), result(), tidy(); stop() before tidy() if one of the first two did not return. images: what nodes sent
    over the socket. shown: what they said they made, as in a history entry's outputs, also of a prompt that was
    stopped.
    untold: nodes that another expanded into and that sent a PNG, which may have been meant as output.
    entry: the history entry, once it is there. cached: the nodes whose outputs ComfyUI took from its cache.
    beside: hears what nodes made, and their previews, as they come."""

    def __init__(
        self,
        comfy: Comfy,
        listener: Listener,
        workflow: Mapping[str, Any],
        report: Report | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.prompt_id = str(uuid.uuid4())
        self.images: list[OutputFile] = []
        self.untold: set[str] = set()
        self.cached: set[str] = set()
        self.shown: dict[str, Any] = {}
        self.node_errors: dict[str, Any] = {}
        self._comfy = comfy
        self._listener = listener
        self._settings = comfy.settings
        self._workflow = dict(workflow)
        self._progress = Progress(workflow, report)
        self._beside = beside
        self.entry: dict[str, Any] | None = None
        self._drops = 0
        self._looks = 0
        self._lost = self._begun = self._succeeded = False
        self._is_in_comfyui = False
        self._spoilt: OSError | None = None  # an image of the socket that could not be kept
        self._over_at: float | None = None
        self._ask_at = 0.0
        self._sooner = asyncio.Event()

    async def run(self) -> None:
        """Submit, and follow until ComfyUI is free for the next prompt. JobError: the prompt came to nothing."""
        self._listener.follow(self)
        previews = self._beside is not None and self._beside.wants_previews
        submit = self._comfy.submit(self.prompt_id, self._listener.client_id, self._workflow, previews=previews)
        self._submitted_at = time.monotonic()
        self._is_in_comfyui = True
        self._ask_in(self._settings.silence_s)
        self.node_errors = await to_end(submit)  # to its end: a request given up half-way may still be queued
        while self.entry is None and not self._succeeded:
            await self._step()

    async def result(self) -> dict[str, Any]:
        """The history entry, of a success or a failure. JobError: there is none."""
        while self.entry is None:
            await self._step()
        if self._spoilt:
            raise self._spoilt
        self._leave()
        return self.entry

    async def stop(self) -> bool:
        """Make ComfyUI let go of this prompt, for at most stop_s; it ends only between two nodes or steps. Says
        whether it has; if not, what is to be tidied up is not known yet."""
        self._leave()
        pause = 0.05
        try:
            async with asyncio.timeout(self._settings.stop_s):
                while await self._comfy.let_go(self.prompt_id):
                    await asyncio.sleep(pause)
                    pause = min(0.5, pause * 2)
                self.shown |= shown_in(await self._comfy.history(self.prompt_id))
            return True
        except TimeoutError:
            log.warning("prompt %s still runs %g s after its interrupt", self.prompt_id, self._settings.stop_s)
        except JobError as error:
            log.warning("prompt %s could not be stopped: %s", self.prompt_id, error)
        self._is_in_comfyui = False
        return False

    async def tidy(self) -> None:
        """Leave nothing of the prompt in ComfyUI's history. Its result does not depend on it."""
        if not self._is_in_comfyui:
            return
        self._is_in_comfyui = False
        try:
            async with asyncio.timeout(self._settings.http_s):
                await self._comfy.forget(self.prompt_id)
        except (JobError, TimeoutError) as error:
            log.warning("prompt %s stays in ComfyUI's history: %r", self.prompt_id, error)

    def hear(self, message: dict[str, Any]) -> None:
        """A message about this prompt."""
        kind, data = str(message.get("type")), message["data"]
        self._progress.hear(kind, data)
        if kind == "executed":
            self.shown[str(data.get("node"))] = data.get("output")
            if self._beside:
                self._beside.made(str(data.get("node")), data.get("output"))
        self._begun = self._begun or kind != "execution_start"
        if kind in SAID_ALL:
            self._over_at = time.monotonic()
            self._succeeded = kind == SUCCESS
            self._ask_in(ENTRY_LATE_S)
        elif kind == "executing" and data.get("node") is None:
            self._over_at = self._over_at or time.monotonic()
            self._ask_in(0)
        elif self._over_at is None:
            self._ask_in(self._settings.silence_s)

    def see(self, frame: bytes) -> None:
        """Binary event 4 names prompt and node, event 1 belongs to the node that executes. Only nodes that send
        their result so are outputs (SaveImageWebsocket and its like): the rest are previews."""
        if len(frame) < 8:
            return
        event, second = struct.unpack_from(">II", frame)
        if event == 4:
            about = json.loads(frame[8 : 8 + second])
            node, prompt_id = str(about.get("node_id")), about.get("prompt_id")
            kind, data = str(about.get("image_type")), frame[8 + second :]
        elif event == 1 and self._over_at is None:
            node, prompt_id, data = self._progress.node or "", self.prompt_id, frame[8:]
            kind = "image/png" if second == 2 else "image/jpeg"
        else:
            return
        if prompt_id != self.prompt_id:
            return
        class_type = self._progress.class_type(node)
        if "websocket" in class_type.lower():
            self._keep(node, kind, data)
            return
        if not class_type and kind == "image/png":
            self.untold.add(node)
        if self._beside:
            self._beside.pictured(node, kind, data)

    def _keep(self, node: str, kind: str, data: bytes) -> None:
        name = f"websocket_{node}_{len(self.images) + 1:05}.{'png' if kind == 'image/png' else 'jpg'}"
        self.images.append(OutputFile(node=node, name=name))
        try:
            self.images[-1].write(data)
        except OSError as error:
            self._spoilt = error

    def lose(self) -> None:
        """The socket dropped."""
        self._lost = True
        self._drops += 1
        self._ask_in(0)

    async def _step(self) -> None:
        """Wait until it is time to ask, ask, and see when to ask again."""
        await self._quiet()
        if self._succeeded and self._ask_at > time.monotonic():
            return
        self.entry = await self._look()
        if self.entry is not None:
            self.shown |= shown_in(self.entry)
            self._note_cached()
        elif self._lost:
            await self._reopen()
        deaf = self._drops or self._listener.may_be_deaf
        self._ask_in(SOON_S if self._over_at else DEAF_S if deaf else self._settings.silence_s)

    async def _quiet(self) -> None:
        """Until it is time to ask by HTTP; a success ends it early, once."""
        was_over = self._succeeded
        while (left := self._ask_at - time.monotonic()) > 0 and (was_over or not self._succeeded):
            self._sooner.clear()
            try:
                async with asyncio.timeout(left):
                    await self._sooner.wait()
            except TimeoutError:
                return

    async def _look(self) -> dict[str, Any] | None:
        """The history entry; None while ComfyUI still has the prompt; JobError when it knows nothing of it."""
        if (entry := await self._comfy.history(self.prompt_id)) is not None:
            return entry
        place = await self._comfy.place(self.prompt_id)
        if place == "pending" and time.monotonic() - self._submitted_at > self._settings.busy_s:
            raise self._busy()
        if place == "running" and self._is_wedged():
            raise self._wedged()
        if place is not None:
            return None
        # It may have ended between the two questions.
        if (entry := await self._comfy.history(self.prompt_id)) is not None:
            return entry
        raise self._gone()

    def _is_wedged(self) -> bool:
        """The executor's thread has died: HTTP answers for ever, but nothing moves. ComfyUI says execution_cached as
        soon as it runs a prompt, and writes the entry as soon as it has ended it. Only a socket that has not dropped
        and heard of the queue since can tell."""
        if self._over_at is not None:
            return time.monotonic() - self._over_at > self._settings.silence_s
        hears = not self._drops and not self._listener.may_be_deaf and self._listener.heard_at > self._submitted_at
        self._looks += hears and not self._begun
        return self._looks >= WEDGED_LOOKS

    async def _reopen(self) -> None:
        log.info("prompt %s: the socket to ComfyUI dropped, reopening it", self.prompt_id)
        await asyncio.sleep(min(2.0, 0.1 * (self._drops - 1)))
        self._lost = False
        await self._listener.reopen()

    def _note_cached(self) -> None:
        for kind, said in ((self.entry or {}).get("status") or {}).get("messages") or []:
            if kind == "execution_cached":
                self.cached = {str(node) for node in said.get("nodes") or []}

    def _ask_in(self, seconds: float) -> None:
        at = time.monotonic() + seconds
        if at < self._ask_at or self._succeeded:
            self._sooner.set()
        self._ask_at = at

    def _leave(self) -> None:
        self._progress.close()
        self._listener.leave(self)

    def _busy(self) -> JobError:
        waited = f"{self._settings.busy_s:g} s"
        return JobError(
            f"ComfyUI was busy with somebody else's prompt for {waited}; run the job again, and see who uses it",
            "comfyui_busy",
        )

    def _wedged(self) -> JobError:
        return JobError(
            "ComfyUI answers but its executor has died: it took the prompt and does nothing with it; restart ComfyUI",
            "comfyui_wedged",
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
