"""The life of one job: parse, upload its inputs, wait for the turn, run, fetch the outputs, store them, answer.

One prompt runs at a time; the jobs before and behind it upload meanwhile. The handler raises nothing but
CancelledError, after which the SDK sends no job-done: the job was stopped or is not this worker's (rules.md 4).
"""

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp

from worker import destinations, inputs, outputs, settings, traces
from worker.aside import to_end
from worker.comfy import Comfy
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.follow import Follow
from worker.hearth import Away, Hearth, NotOurs, take_field
from worker.inputs import JobInput
from worker.progress import Report
from worker.put import Putter
from worker.rejected import failure, warnings

log = logging.getLogger("hearth.worker")

SendProgress = Callable[[dict[str, Any], Any], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """hearth: this attempt's line to Hearth, if the job came from there. folder: its own on ComfyUI's disk."""

    id: str
    hearth: Hearth | None
    folder: str


class Worker:
    """One ComfyUI's worker, in one event loop. send_progress(job, progress) must not block."""

    def __init__(self, settings: settings.Settings, send_progress: SendProgress | None = None) -> None:
        self.draining = False
        self._settings = settings
        self._send_progress = send_progress
        self._turn = asyncio.Lock()
        self._active: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()  # jobs of Hearth that have not said `started`
        self._session = aiohttp.ClientSession()
        self._putter = Putter(settings.url_allow)
        self._comfy = Comfy(settings, self._session)

    async def close(self) -> None:
        await self._session.close()
        await self._putter.close()

    async def drain(self) -> None:
        """Hand back what has not started, let the rest finish; the last one closes the door."""
        self.draining = True
        for task in self._waiting:
            task.cancel()
        if not self._active:
            await self.close()

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """{files, datas, assets} or {error, code, …}, as the reference says."""
        task, ours = _this_task(), self._ours(job)
        self._active.add(task)
        try:
            return await self._answer(ours, job)
        except asyncio.CancelledError:
            if ours.hearth and self.draining and task in self._waiting:
                await to_end(_hand_back(ours.hearth, ours.id))
            raise
        finally:
            self._waiting.discard(task)
            self._active.discard(task)
            if self.draining and not self._active:
                await self.close()

    def _ours(self, job: dict[str, Any]) -> Job:
        field = take_field(job)
        hearth = Hearth(*field, self._session, self._settings.hearth_retry_s) if field else None
        return Job(id=str(job.get("id")), hearth=hearth, folder=traces.new_folder())

    async def _answer(self, ours: Job, job: dict[str, Any]) -> dict[str, Any]:
        """The job's result, whatever happens to it, in the one shape."""
        began = time.monotonic()
        try:
            result = await self._life(ours, inputs.parse(job))
        except JobError as error:
            result = error.output()
        except (NotOurs, Away) as error:
            log.info("%s: dropped, since %s", ours.id, error)
            raise asyncio.CancelledError from error
        except Exception as error:
            log.exception("%s: a defect of the worker", ours.id)
            text = f"the worker failed on this job: {type(error).__name__}: {error}; its log has more"
            result = JobError(text, "worker_error").output()
        log.info("%s: %s, after %.2f s", ours.id, _summary(result), time.monotonic() - began)
        return result

    async def _life(self, ours: Job, given: JobInput) -> dict[str, Any]:
        if ours.hearth:
            self._waiting.add(_this_task())
            if self.draining:
                _this_task().cancel()
        try:
            workflow = await inputs.place(self._comfy, given, ours.folder)
            if self._settings.comfyui_dir:
                workflow = traces.saving_into(ours.folder, workflow)
            return await self._followed(ours, given, Follow(self._comfy, workflow, self._report(ours)))
        finally:
            if self._settings.comfyui_dir:
                await to_end(asyncio.to_thread(traces.remove, self._settings.comfyui_dir, ours.folder))

    async def _followed(self, ours: Job, given: JobInput, follow: Follow) -> dict[str, Any]:
        try:
            entry = await self._in_turn(ours, follow)
        except BaseException:
            await to_end(follow.close())
            raise
        tidy = asyncio.ensure_future(follow.tidy())
        try:
            return await self._deliver(ours, given, follow, entry)
        finally:
            await to_end(tidy)

    async def _in_turn(self, ours: Job, follow: Follow) -> dict[str, Any]:
        """Run when it is this job's turn, and leave ComfyUI free for the next."""
        async with self._turn:
            await follow.open()
            self._waiting.discard(_this_task())
            if ours.hearth:
                await ours.hearth.started()
            log.info("%s: runs as prompt %s", ours.id, follow.prompt_id)
            try:
                return await follow.run()
            except (asyncio.CancelledError, JobError):
                await to_end(follow.stop())
                raise

    async def _deliver(self, ours: Job, given: JobInput, follow: Follow, entry: dict[str, Any]) -> dict[str, Any]:
        """Fetch and store what the run made, also when it failed half-way."""
        found, datas = outputs.collect(entry, given.workflow, temp=given.temp)
        fetched = [*await outputs.fetch(self._comfy, found), *follow.images]
        files = [file for file in fetched if isinstance(file, OutputFile)]
        store = destinations.choose(given, files, ours.id, ours.hearth, self._settings.bucket, self._putter)
        stored = await store(files)
        why = failure(entry, given.workflow)
        errors = [error for error in (why, *fetched, *stored) if isinstance(error, JobError)]
        kept = [item for item in stored if isinstance(item, Stored)]
        return _result(kept, datas, errors, warnings(follow.node_errors, given.workflow))

    def _report(self, ours: Job) -> Report | None:
        send = self._send_progress
        return send and (lambda progress: send({"id": ours.id}, progress))


_workers: WeakKeyDictionary[asyncio.AbstractEventLoop, Worker] = WeakKeyDictionary()


async def handle(job: dict[str, Any]) -> dict[str, Any]:
    """A job in whatever event loop this is, with the settings of the environment."""
    loop = asyncio.get_running_loop()
    if loop not in _workers:
        _workers[loop] = Worker(settings.read(os.environ))
    return await _workers[loop].handle(job)


async def close() -> None:
    """What handle() holds open in this event loop."""
    worker = _workers.pop(asyncio.get_running_loop(), None)
    if worker:
        await worker.close()


def _result(
    kept: Sequence[Stored], datas: outputs.Datas, errors: Sequence[JobError], said: Sequence[str]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if kept or datas or not errors:
        assets = [dataclasses.asdict(item.asset) for item in kept]
        result = {"files": [item.entry for item in kept], "datas": datas, "assets": assets}
    if said:
        result["warnings"] = list(said)
    if errors:
        text = " · ".join(dict.fromkeys(str(error) for error in errors))
        result |= JobError(text, errors[0].code, errors[0].nodes).output()
    return result


def _summary(result: dict[str, Any]) -> str:
    failed = f"{result['code']}: {result['error']}" if "error" in result else "done"
    return f"{failed}, {len(result.get('files', ()))} files"


async def _hand_back(hearth: Hearth, job_id: str) -> None:
    log.info("%s: handed back, since this worker shuts down", job_id)
    try:
        await hearth.hand_back("the worker shuts down")
    except (NotOurs, Away) as error:
        log.warning("%s: not handed back (%s); Hearth will miss it by itself", job_id, error)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task
