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
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any

from worker.handler import Worker
from worker.settings import Settings

log = logging.getLogger("hearth.worker")

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

    if settings.pulls_jobs:
        _pace_polls()
    progress = runpod.serverless.progress_update if settings.pulls_jobs else None
    slots = SLOTS_IN_HEARTH if settings.worker_name else SLOTS_ON_RUNPOD
    handler = _in_loop(lambda: Worker(settings, progress))
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


def _in_loop(make: Callable[[], Worker]) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """The SDK makes its event loop and its signal handlers itself; the first job is the first to be inside both."""
    worker: Worker | None = None

    async def handler(job: dict[str, Any]) -> Any:
        nonlocal worker
        if worker is None:
            worker = make()
            for number in (signal.SIGTERM, signal.SIGINT):
                _drain_on(number, worker)
        return await worker.handle(job)

    return handler


def _drain_on(number: signal.Signals, worker: Worker) -> None:
    """The SDK's own handler stops the polls and lets jobs finish; ours hands back those that only wait."""
    loop = asyncio.get_running_loop()
    sdk_handler = signal.getsignal(number)

    def drain(signum: int, frame: FrameType | None) -> None:
        if callable(sdk_handler):
            sdk_handler(signum, frame)
        asyncio.run_coroutine_threadsafe(worker.drain(), loop)

    signal.signal(number, drain)


def _pace_polls() -> None:
    """While Hearth is down the SDK polls 7,000 times a second and logs each (runpod.md 1.3); it offers no setting."""
    from runpod.serverless.modules import rp_scale

    poll = rp_scale.get_job

    async def paced(*args: Any) -> Any:
        try:
            return await poll(*args)
        except asyncio.CancelledError:
            raise
        except Exception:
            await asyncio.sleep(POLL_PAUSE_S)
            raise

    rp_scale.get_job = paced
