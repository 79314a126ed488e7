"""What the `runpod` SDK needs around it: its environment, its ping process, its poll, its shutdown.

Nothing here imports runpod at the top: it takes two seconds and reads the environment while it does.
"""

import asyncio
import ctypes
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from worker.catalogue import Catalogue
from worker.handler import Worker
from worker.settings import Settings

log = logging.getLogger("hearth.worker")
T = TypeVar("T")

# Many, so that the poll is always open: how many jobs come is Hearth's to decide (rules.md 4). RunPod's own queue
# decides nothing: it would hand all it has to the first worker that asks.
SLOTS_IN_HEARTH, SLOTS_ON_RUNPOD = 16, 1
POLL_PAUSE_S = 1.0
PR_SET_PDEATHSIG = 1
OWN_MACHINE = {
    "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",  # they want 8.8.8.8:53 to answer
    "RUNPOD_SKIP_GPU_CHECK": "true",  # ComfyUI has looked at the GPU, and it may be another machine's
}


def prepare(env: MutableMapping[str, str], settings: Settings) -> None:
    """Set what the SDK reads while it is imported. A worker's id is new at each start, so that Hearth sees at once
    that the jobs of the one before are lost (rules.md 2); on RunPod's cloud the id stays RunPod's."""
    if not env.get("RUNPOD_DEBUG_LEVEL"):
        env.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # its own default, DEBUG, logs every output
    if settings.worker_name:
        env["RUNPOD_POD_ID"] = f"{settings.worker_name}-{secrets.token_hex(4)}"
        for name, value in OWN_MACHINE.items():
            env.setdefault(name, value)


def start(settings: Settings) -> None:
    """Run jobs until SIGTERM. Without RUNPOD_WEBHOOK_GET_JOB the SDK runs --test_input or test_input.json and ends."""
    die_with_parent()
    if settings.worker_name and Path("~/.runpod/config.toml").expanduser().exists():
        log.warning("~/.runpod/config.toml exists: its api_key is sent to Hearth in place of RUNPOD_AI_API_KEY")
    import runpod.serverless

    progress = runpod.serverless.progress_update if settings.pulls_jobs else None
    shutdown = Shutdown(lambda: Worker(settings, progress))
    if settings.pulls_jobs:
        _wrap_polls(shutdown, settings)

    async def handler(job: dict[str, Any]) -> Any:
        return await shutdown.worker().handle(job)

    slots = SLOTS_IN_HEARTH if settings.worker_name else SLOTS_ON_RUNPOD
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: slots})


def die_with_parent() -> None:
    """The SDK pings from a process of its own, which would go on for ever, jobs listed, if this one is killed."""
    if not sys.platform.startswith("linux"):
        return
    prctl = ctypes.CDLL(None).prctl
    parent = 0

    def in_parent() -> None:
        nonlocal parent
        parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl was heard
            os._exit(1)

    os.register_at_fork(before=in_parent, after_in_child=in_child)


class Shutdown:
    """What SIGTERM and SIGINT do beside the SDK's own handler, which stops polling and lets jobs finish.

    Held polls end at once: a job that one of them still brought would be run by nobody (runpod.md 1.8), and the worker
    would stay until they end. Jobs that only wait are handed back, and so is what runs when its grace is over.
    """

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._make = make
        self._worker: Worker | None = None
        self._takes: set[asyncio.Task[Any]] = set()
        self._stops: set[asyncio.Task[Any]] = set()
        self._begun = False

    def worker(self) -> Worker:
        """The worker, made by the first who asks from inside the event loop, which the SDK makes itself, after its
        signal handlers."""
        if self._worker is None:
            self._worker = self._make()
            self._worker.cut_poll = lambda: _cut(self._takes)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._chain(number, loop)
        return self._worker

    def _chain(self, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> None:
        sdk_handler = signal.getsignal(number)

        def begin(signum: int, frame: FrameType | None) -> None:
            if callable(sdk_handler):
                sdk_handler(signum, frame)
            loop.call_soon_threadsafe(self._begin)

        signal.signal(number, begin)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        _cut(self._takes | self._stops)
        self._draining = asyncio.ensure_future(self.worker().drain())

    async def take(self, poll: Coroutine[Any, Any, T]) -> T | None:
        """The poll's answer; None if the shutdown or a fault ended it."""
        return await _ended_by(self._takes, poll)

    async def stop(self, poll: Coroutine[Any, Any, T]) -> T | None:
        return await _ended_by(self._stops, poll)


def _cut(polls: set[asyncio.Task[Any]]) -> None:
    for poll in polls:
        poll.cancel()


async def _ended_by(polls: set[asyncio.Task[Any]], poll: Coroutine[Any, Any, T]) -> T | None:
    task = asyncio.ensure_future(poll)
    polls.add(task)
    try:
        await asyncio.wait({task})
        return None if task.cancelled() else task.result()
    finally:
        polls.discard(task)
        task.cancel()


async def _take(
    shutdown: Shutdown, settings: Settings, catalogue: Catalogue | None, get_job: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """A poll for jobs, once the worker's ComfyUI is well and Hearth knows its nodes. On RunPod's cloud a job is taken
    even so after start_s: its failure is what has the machine replaced."""
    await shutdown.worker().health.well(None if settings.worker_name else settings.start_s)
    if catalogue:
        await catalogue.posted()
    return await get_job()


def _wrap_polls(shutdown: Shutdown, settings: Settings) -> None:
    """Polls begin when the worker is well and end with it; and one that failed is followed by a pause: while Hearth is
    down the SDK would poll 7,000 times a second and log each (runpod.md 1.3). It offers no setting for any of it."""
    from runpod.serverless.modules import rp_scale

    get_job, get_stop_signals = rp_scale.get_job, rp_scale.get_stop_signals
    catalogue = Catalogue.of(os.environ, settings)

    async def take(*args: Any) -> Any:
        shutdown.worker()
        try:
            return await shutdown.take(_take(shutdown, settings, catalogue, lambda: get_job(*args)))
        except asyncio.CancelledError:
            raise
        except Exception:
            await asyncio.sleep(POLL_PAUSE_S)
            raise

    async def stops(*args: Any) -> Any:
        return await shutdown.stop(get_stop_signals(*args)) or []

    rp_scale.get_job, rp_scale.get_stop_signals = take, stops
