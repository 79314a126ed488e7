"""Whether this worker's ComfyUI can take a prompt. While it cannot, jobs go to other workers and none is taken."""

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable

import aiohttp

from worker.comfy import Comfy
from worker.errors import JobError, disk_full
from worker.leftover import Clean, Leftover, kept
from worker.outputs import shown_in

log = logging.getLogger("hearth.worker")
FIRST_LOOK_S, LOOK_S = 0.2, 3.0
DISK_PAUSE_S = 30.0  # the disk may be one that we do not see
ROOM_BYTES = 256 * 1024**2
HOPELESS = ("comfyui_hangs", "comfyui_wedged")  # it does not come back by itself


class Health:
    """fault: why this worker takes nothing, or None. ill: called with each new fault, to give away what waits here.
    leftover: what has to go before the first job."""

    def __init__(self, comfy: Comfy, ill: Callable[[JobError], None], leftover: Leftover) -> None:
        self.fault: JobError | None = None
        self._comfy = comfy
        self._leftover = leftover
        self._settings = comfy.settings
        self._ill = ill
        self._stuck: dict[str, Clean] = {}
        self._seen = False
        self._not_before = 0.0
        self._restart_at = 0.0
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self._well = asyncio.Event()
        self._shut_at = asyncio.get_running_loop().time()

    async def well(self, patience_s: float | None = None) -> None:
        """Return when a job may be taken; at first, as soon as ComfyUI answers. patience_s: so long after the fault
        began, return all the same."""
        if not self._seen:
            self._look_after()
        until = None if patience_s is None else self._shut_at + patience_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._well.wait()

    def doubt(self) -> None:
        """Something was odd while nothing ran: look."""
        self._look_after()

    async def cleared(self) -> None:
        """Return when nothing of a worker that was killed is in ComfyUI. JobError: it keeps it for busy_s."""
        if not self._leftover.cleared.is_set():
            self._look_after()
            try:
                async with asyncio.timeout(self._settings.busy_s):
                    await self._leftover.cleared.wait()
            except TimeoutError:
                raise kept() from None

    def is_stuck(self, prompt_id: str, clean: Clean) -> None:
        """ComfyUI has not let go of a prompt of ours. clean, in a thread: when it has, which may be late."""
        self._stuck[prompt_id] = clean

    def fell_ill(self, fault: JobError) -> None:
        if fault.code == "disk_full":
            self._not_before = time.monotonic() + DISK_PAUSE_S
        self._close_gate(fault)
        self._look_after()

    def close(self) -> None:
        self._closed = True
        if self._watch:
            self._watch.cancel()

    def _close_gate(self, fault: JobError) -> None:
        self._seen = True
        self._well.clear()
        if self.fault is None:
            log.warning("takes no jobs, since %s", fault)
            self._shut_at = asyncio.get_running_loop().time()
        self.fault = fault
        self._ill(fault)

    def _look_after(self) -> None:
        if not self._closed and (self._watch is None or self._watch.done()):
            self._watch = asyncio.create_task(self._until_well())

    async def _until_well(self) -> None:
        began, pause = time.monotonic(), FIRST_LOOK_S
        while (wrong := await self._wrong()) is not None:
            if self.fault is None:
                self._close_gate(wrong)
            if self._settings.comfyui_restart and self._is_hopeless(time.monotonic() - began):
                await self._restart()
            await asyncio.sleep(pause)
            pause = min(LOOK_S, pause * 1.5)
        if self.fault:
            log.warning("takes jobs again, after %.1f s", time.monotonic() - began)
        self.fault, self._seen = None, True
        self._well.set()

    def _is_hopeless(self, ill_s: float) -> bool:
        """Whether only a restart of ComfyUI helps; a stopped prompt may be in a step of minutes."""
        hopeless = self.fault is not None and self.fault.code in HOPELESS
        return time.monotonic() > self._restart_at and (
            hopeless or (bool(self._stuck) and ill_s > self._settings.busy_s)
        )

    async def _restart(self) -> None:
        """Run COMFYUI_RESTART; once more only when ComfyUI had the time to come up."""
        log.warning("restarts ComfyUI by COMFYUI_RESTART")
        self._restart_at = time.monotonic() + self._settings.start_s
        command = self._settings.comfyui_restart
        try:
            shell = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.DEVNULL)
            if code := await _ended(shell, self._settings.start_s):
                log.warning("COMFYUI_RESTART ended with code %d", code)
        except OSError as error:
            log.warning("COMFYUI_RESTART could not be run: %s", error)

    async def _wrong(self) -> JobError | None:
        """What is wrong now. After a fault ComfyUI must have nothing to do: what it still has may never move."""
        try:
            await self._unstick()
            if self._stuck or not self._leftover.over():
                return self.fault or kept()
            free = await self._comfy.is_free()
            fit = free and time.monotonic() >= self._not_before and self._has_room()
        except JobError as error:
            return error
        except (aiohttp.ClientError, TimeoutError) as error:
            return JobError(f"ComfyUI does not answer ({type(error).__name__})", "comfyui_unreachable")
        except OSError as error:
            return disk_full(f"the worker cannot keep a file ({error})")
        except Exception as error:  # nobody else looks again
            log.warning("cannot see whether ComfyUI is well", exc_info=error)
            return JobError(f"ComfyUI answers oddly ({type(error).__name__})", "comfyui_unreachable")
        return None if fit else self.fault

    async def _unstick(self) -> None:
        """The files before the history entry, which is all that tells of them should this worker be killed."""
        if not self._leftover.cleared.is_set():
            await self._comfy.is_free()  # asked once, and no fault of its own, while ComfyUI boots
            self._stuck |= await self._leftover.prompts()
        for prompt_id, clean in list(self._stuck.items()):
            if not await self._comfy.let_go(prompt_id):
                await asyncio.to_thread(clean, shown_in(await self._comfy.history(prompt_id)))
                await self._comfy.forget(prompt_id)
                del self._stuck[prompt_id]

    def _has_room(self) -> bool:
        """OSError: there is no place for a temporary file. Where one is, Python finds out once, by writing there."""
        places = [tempfile.gettempdir(), *filter(None, [self._settings.comfyui_dir])]
        return not self.fault or self.fault.code != "disk_full" or all(map(_room, places))


async def _ended(shell: asyncio.subprocess.Process, within_s: float) -> int:
    try:
        async with asyncio.timeout(within_s):
            return await shell.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            shell.kill()
        return await shell.wait()


def _room(place: str) -> bool:
    return shutil.disk_usage(place).free >= ROOM_BYTES
