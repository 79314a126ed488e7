"""The jobs in this worker's hands, and how they go back to Hearth: not started or at a shutdown, for another worker."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.answer import Limits
from worker.aside import to_end
from worker.hearth import Away, Hearth, NotOurs
from worker.wire import Source

log = logging.getLogger("hearth.worker")

BEAT_S = 2.0  # of `alive`: several in a lease
AT_SHUTDOWN_S = 5.0  # for a hand-back while the machine waits for us to end
SHUTDOWN = "the worker shuts down", "shutdown"


@dataclass(frozen=True, kw_only=True)
class Job:
    """hearth: this attempt's line to Hearth, if the job came from there. folder: its own on ComfyUI's disk. sources:
    where the files are that its input names. limits: of its result."""

    id: str
    hearth: Hearth | None
    folder: str
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    limits: Limits


class Held:
    """Jobs by the task that handles each. A task that is told to give its job back is cancelled."""

    def __init__(self) -> None:
        self.draining = False
        self._jobs: dict[asyncio.Task[Any], Job] = {}
        self._waiting: set[asyncio.Task[Any]] = set()
        self._given_back: dict[asyncio.Task[Any], tuple[str, str]] = {}

    def take(self, job: Job) -> None:
        self._jobs[_this_task()] = job

    def drop(self) -> None:
        task = _this_task()
        self._waiting.discard(task)
        self._given_back.pop(task, None)
        del self._jobs[task]

    def waits(self, fault: tuple[str, str] | None) -> None:
        """A job that Hearth may have back as long as it has not started, and at once during a shutdown or a fault."""
        if self._jobs[_this_task()].hearth:
            self._waiting.add(_this_task())
        if reason := SHUTDOWN if self.draining else fault:
            self.give_back_waiting(*reason)

    def begins(self) -> None:
        self._waiting.discard(_this_task())

    def give_back_waiting(self, reason: str, code: str) -> None:
        for task in list(self._waiting):
            self._give_back(task, reason, code)

    async def drain(self, grace_s: float) -> None:
        """Give back what has not started; what has, goes on for grace_s."""
        self.draining = True
        self.give_back_waiting(*SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._beat()
        for task, job in self._jobs.items():
            if job.hearth:
                self._give_back(task, *SHUTDOWN)

    async def empty(self) -> None:
        while self._jobs:
            await asyncio.wait(self._jobs)

    async def hand_back_cancelled(self) -> bool:
        """This task was cancelled: tell Hearth, if it was by us. Says whether it was."""
        job = self._jobs[_this_task()]
        why = self._given_back.get(_this_task())
        if job.hearth and why:
            await to_end(self.hand_back(job.id, job.hearth, *why))
        return why is not None

    async def hand_back(self, job_id: str, hearth: Hearth, reason: str, code: str) -> None:
        log.info("%s: handed back, since %s", job_id, reason)
        try:
            await hearth.hand_back(reason, code, within_s=AT_SHUTDOWN_S if self.draining else None)
        except (NotOurs, Away) as error:
            log.warning("%s: not handed back (%s); Hearth will miss it by itself", job_id, error)

    def _give_back(self, task: asyncio.Task[Any], reason: str, code: str) -> None:
        self._waiting.discard(task)
        self._given_back.setdefault(task, (reason, code))
        task.cancel()

    async def _beat(self) -> None:
        """While polls and pings have ended, say what still runs here, and stop what Hearth has ended."""
        while running := [(task, job) for task, job in self._jobs.items() if task not in self._given_back]:
            await asyncio.gather(*(self._alive(task, job) for task, job in running))
            await asyncio.wait([task for task, _ in running], timeout=BEAT_S)

    async def _alive(self, task: asyncio.Task[Any], job: Job) -> None:
        try:
            if job.hearth:
                await job.hearth.alive()
        except NotOurs:
            log.info("%s: stopped, since Hearth has ended it", job.id)
            task.cancel()
        except Away as error:
            log.warning("%s: %s", job.id, error)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task
