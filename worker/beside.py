"""What goes to Hearth while a prompt runs, beside its progress: files of nodes that are done, and previews.

Nothing here is waited for by the run, and nothing that goes wrong here decides its result.
"""

import asyncio
import base64
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from worker import destinations, outputs
from worker.comfy import Comfy
from worker.destinations import Store
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.inputs import JobInput
from worker.outputs import Found
from worker.put import Putter
from worker.wire import PREVIEW_BYTES, Asset

log = logging.getLogger("hearth.worker")
AHEAD_S = 0.3  # a run that ends sooner stores all of its files at once
PREVIEW_EVERY_S = 1.0


class Beside:
    """Of one run; without Hearth there is nothing to it. store: how its files are stored ahead; None: they are not."""

    def __init__(self, comfy: Comfy, hearth: Hearth | None, given: JobInput, store: Store | None) -> None:
        self._comfy, self._hearth, self._given, self._store = comfy, hearth, given, store
        self._seen: set[Found] = set()
        self._twice: set[Found] = set()  # a node that runs in a loop may write them anew: they are left to the end
        self._waiting: list[Found] = []
        self._stored: dict[Found, Stored] = {}
        self._preview: tuple[str, str, bytes] | None = None
        self._over = asyncio.Event()
        self._storing: asyncio.Task[None] | None = None
        self._showing: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, comfy: Comfy, hearth: Hearth | None, given: JobInput, putter: Putter) -> "Beside":
        """Nothing is stored ahead of a job whose files are to go into its result."""
        ahead = hearth is not None and not given.to_base64
        store = destinations.choose(given, "", hearth, None, putter, 0) if ahead else None
        return cls(comfy, hearth, given, store)

    @property
    def wants_previews(self) -> bool:
        return self._given.preview and self._hearth is not None

    def made(self, node: str, output: Any) -> None:
        """A node is done; output: as the history entry will have it."""
        if self._store is None or not isinstance(output, dict):
            return
        found, _ = outputs.collect({"outputs": {node: output}}, {}, temp=self._given.temp)
        self._twice.update(file for file in found if file in self._seen)
        self._waiting += [file for file in found if file not in self._seen]
        self._seen.update(found)
        if self._waiting and self._storing is None:
            self._storing = asyncio.create_task(_quietly(self._store_ahead()))

    def pictured(self, node: str, content_type: str, picture: bytes) -> None:
        """The newest preview goes; those that come while one is on its way are replaced by it."""
        if self.wants_previews and len(picture) <= PREVIEW_BYTES:
            self._preview = node, content_type, picture
            if self._showing is None:
                self._showing = asyncio.create_task(self._show())

    async def over(self) -> Mapping[Found, Stored]:
        """The run has ended: what is stored. What is on its way is waited for, as it would have to be sent anew."""
        self._over.set()
        if self._showing:
            self._showing.cancel()
        if self._storing:
            await self._storing
        return {file: stored for file, stored in self._stored.items() if file not in self._twice}

    def close(self) -> None:
        for task in (self._storing, self._showing, *self._telling):
            if task:
                task.cancel()

    async def _store_ahead(self) -> None:
        assert self._store
        assert self._hearth
        while not await self._is_over_within(AHEAD_S):
            batch, self._waiting = self._waiting, []
            fetched = await outputs.fetch(self._comfy, batch)
            files = {file: got for file, got in zip(batch, fetched, strict=True) if isinstance(got, OutputFile)}
            stored = await self._store(list(files.values())) if files else []
            done = {file: item for file, item in zip(files, stored, strict=True) if isinstance(item, Stored)}
            self._stored |= done
            if done and not self._over.is_set():
                self._tell(self._hearth.outputs([_shown(item.asset) for item in done.values()]))
            if not self._waiting:
                self._storing = None
                return

    async def _is_over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass
        return self._over.is_set()

    async def _show(self) -> None:
        assert self._hearth
        while self._preview:
            (node, content_type, picture), self._preview = self._preview, None
            await _quietly(self._hearth.preview(node, content_type, base64.b64encode(picture).decode()))
            await asyncio.sleep(PREVIEW_EVERY_S)
        self._showing = None

    def _tell(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_quietly(call))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _shown(asset: Asset) -> Asset:
    return replace(asset, name=outputs.hidden(asset.name), subfolder=outputs.hidden(asset.subfolder))


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        log.info("not sent while the job ran: %s: %s", type(error).__name__, error)
