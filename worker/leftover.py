"""What a worker that was killed with -9 left in this ComfyUI: its prompts, and their files. The next worker removes it
before its own first prompt, if no other is there now, which a lock in COMFYUI_DIR tells.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from worker import outputs, traces
from worker.comfy import Comfy
from worker.errors import JobError
from worker.listener import OURS
from worker.paths import JOB_FOLDER

log = logging.getLogger("hearth.worker")
LOCK = ".hearth-worker.lock"
Clean = Callable[[Mapping[str, Any]], None]
"""Given the outputs of a prompt that ComfyUI has let go of, removes its files."""


class Leftover:
    """cleared: nothing is left, or it is not this worker's to remove: without COMFYUI_DIR nothing tells a prompt of a
    dead worker from one of a live worker beside.

    A worker that is alone holds the lock for itself until it has cleared up, and shares it from then on for as long as
    it lives."""

    def __init__(self, comfy: Comfy) -> None:
        self.cleared = asyncio.Event()
        self._comfy, self._dir = comfy, comfy.settings.comfyui_dir
        self._lock = os.open(os.path.join(self._dir, LOCK), os.O_CREAT | os.O_RDWR, 0o644) if self._dir else None
        self._is_alone = self._got(fcntl.LOCK_EX)
        if self._is_alone:
            traces.clear(self._dir, traces.folders(self._dir), [])
        elif self._got(fcntl.LOCK_SH):
            log.info("another worker uses %s: what is left over there stays", self._dir)
            self.cleared.set()
        elif self._lock is None:
            self.cleared.set()

    async def prompts(self) -> dict[str, Clean]:
        """Those that ComfyUI still has, by id. JobError: it does not say."""
        found = await self._comfy.sent_by(OURS) if self._is_alone else {}
        return {id: partial(self._clean, graph) for id, graph in found.items()}

    def over(self) -> bool:
        """All of it is cleared. False: another worker began before this one, and still clears up."""
        if not self.cleared.is_set() and self._got(fcntl.LOCK_SH):
            self.cleared.set()
        return self.cleared.is_set()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _got(self, kind: int) -> bool:
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _clean(self, graph: Any, shown: Mapping[str, Any]) -> None:
        """No tenant's workflow can name a job's folder, so those in the graph are its own."""
        traces.clear(self._dir, JOB_FOLDER.findall(json.dumps(graph)), outputs.named(shown))


def kept() -> JobError:
    text = "ComfyUI still has a prompt of a worker that was killed, and does not let go of it"
    return JobError(f"{text}; if that lasts, restart ComfyUI", "comfyui_busy")
