"""The life of one job: parse, upload its inputs, wait for the turn, run, fetch the outputs, store them, answer.

One prompt runs at a time; the jobs before and behind it upload meanwhile. The handler raises nothing but
CancelledError, after which the SDK sends no job-done: the job was stopped, handed back or is not this worker's
(rules.md 4). RunPod, which would wait for it until its time-out, is told instead.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiohttp

from worker import answer, destinations, inputs, outputs, settings, traces
from worker.aside import to_end
from worker.beside import Beside
from worker.comfy import Comfy
from worker.errors import GIVEN_BACK, JobError, defect, not_run
from worker.fetch import Fetcher
from worker.files import OutputFile, Stored
from worker.follow import Follow
from worker.health import Health
from worker.hearth import Away, Hearth, NotOurs, take_field
from worker.held import Held, Job
from worker.inputs import JobInput
from worker.leftover import Leftover
from worker.listener import Listener
from worker.outputs import Fetched
from worker.progress import Report
from worker.put import Putter
from worker.rejected import failure, warnings

log = logging.getLogger("hearth.worker")

T = TypeVar("T")
SendProgress = Callable[[dict[str, Any], Any], None]
LATE_JOB_S = 0.5  # after the last poll ended, the SDK may still hand us a job
PREVIEW = "node {node}, into which another one expanded, sent PNG pictures over ComfyUI's socket: taken for previews"
RERUNS = 2  # a /free may be heard only after the first


class Worker:
    """One ComfyUI's worker, in one event loop. send_progress(job, progress) must not block.

    cut_poll: ends a poll for jobs that is held, so that what is handed back does not come here again.
    """

    def __init__(self, settings: settings.Settings, send_progress: SendProgress | None = None) -> None:
        self.cut_poll: Callable[[], None] = lambda: None
        self._settings = settings
        self._send_progress = send_progress
        self._turn = asyncio.Lock()
        self._held = Held()
        self._session = aiohttp.ClientSession()
        self._putter = Putter(settings.url_allow, settings.hearth_retry_s)
        self._fetcher = Fetcher(settings.url_allow, settings.hearth_retry_s, settings.input_max_bytes, settings.input_s)
        self._comfy = Comfy(settings, self._session)
        self._leftover = Leftover(self._comfy)
        self.health = Health(self._comfy, self._fell_ill, self._leftover)
        self._listener = Listener(self._comfy, self.health.doubt)

    async def close(self) -> None:
        self.health.close()
        await self._listener.close()
        await self._session.close()
        await self._putter.close()
        await self._fetcher.close()
        self._leftover.close()

    async def drain(self) -> None:
        """Hand back what has not started, let the rest go on for grace_s; then close."""
        try:
            await self._held.drain(self._settings.grace_s)
            await asyncio.sleep(LATE_JOB_S)
            await self._held.empty()
        finally:  # the SDK's event loop may end before
            await self.close()

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """{files, datas, assets} or {error, code, …}, as the reference says."""
        ours = self._ours(job)
        self._held.take(ours)
        try:
            return await self._answer(ours, job)
        except asyncio.CancelledError:
            if await self._held.hand_back_cancelled() and not self._settings.worker_name:
                return not_run(GIVEN_BACK)
            raise
        finally:
            self._held.drop()

    def _ours(self, job: dict[str, Any]) -> Job:
        way, id = take_field(job), str(job.get("id"))
        hearth = Hearth(way.url, way.token, self._session, self._settings.hearth_retry_s) if way else None
        sources, limits = way.sources if way else {}, answer.Limits.of(id, way.answer_bytes if way else None)
        return Job(id=id, hearth=hearth, folder=traces.new_folder(), sources=sources, limits=limits)

    def _fell_ill(self, fault: JobError) -> None:
        self.cut_poll()
        self._held.give_back_waiting(*_not_started(fault))

    async def _answer(self, ours: Job, job: dict[str, Any]) -> dict[str, Any]:
        """The job's result, whatever happens to it, in the one shape."""
        began = time.monotonic()
        try:
            result = await self._life(ours, inputs.parse(job))
        except JobError as error:
            result = await self._failed(ours, error)
        except (NotOurs, Away) as error:
            log.info("%s: dropped, since %s", ours.id, error)
            if self._settings.worker_name:
                raise asyncio.CancelledError from error
            result = not_run(str(error))
        except Exception as error:
            result = await self._failed(ours, defect(error, ours.id))
        log.info("%s: %s, after %.2f s", ours.id, answer.summary(result), time.monotonic() - began)
        return {key: value if key == "files" else outputs.hidden(value) for key, value in result.items()}

    async def _failed(self, ours: Job, error: JobError) -> dict[str, Any]:
        """The result; or, where another worker shall try, none: the job goes back to Hearth."""
        self._held.begins()
        more = self._blamed(error)
        if error.elsewhere and ours.hearth:
            await to_end(self._held.hand_back(ours.id, ours.hearth, outputs.hidden(str(error)), error.code))
            if self._settings.worker_name:
                raise asyncio.CancelledError from error
            return not_run(GIVEN_BACK) | more
        return error.output() | more

    def _blamed(self, error: JobError) -> dict[str, Any]:
        """What a result says beside the error. No job is taken while this worker is at fault."""
        if error.elsewhere and error.code != "prompt_gone":
            self.health.fell_ill(error)
        return {"refresh_worker": True} if error.replace else {}

    async def _life(self, ours: Job, given: JobInput) -> dict[str, Any]:
        fault = self.health.fault
        self._held.waits(_not_started(fault) if fault else None)
        ran: list[Follow] = []
        try:
            workflow = traces.saving_into(ours.folder, await self._placed(ours, given))
            return await self._runs(ours, given, workflow, ran)
        finally:
            await to_end(self._leave_nothing(ours, ran))

    async def _placed(self, ours: Job, given: JobInput) -> dict[str, Any]:
        return await inputs.place(self._comfy, given, ours.folder, self._fetcher, ours.sources)

    async def _leave_nothing(self, ours: Job, ran: Sequence[Follow]) -> None:
        """The files first: the history is all that tells of those outside of the job's folder, if this is killed."""
        try:
            if self._settings.comfyui_dir:
                files = [file for follow in ran for file in outputs.named(follow.shown)]
                await asyncio.to_thread(traces.remove, self._settings.comfyui_dir, ours.folder, files)
        finally:
            for follow in ran:
                await follow.tidy()

    async def _tidy_early(self, ours: Job, follow: Follow) -> None:
        if not self._settings.comfyui_dir or traces.is_inside(ours.folder, outputs.named(follow.shown)):
            await follow.tidy()

    async def _runs(self, ours: Job, given: JobInput, workflow: Mapping[str, Any], ran: list[Follow]) -> dict[str, Any]:
        """Run it; again, with ComfyUI's cache emptied, where the cache named files that are gone (comfyui.md [42])."""
        for left in reversed(range(RERUNS + 1)):
            with closing(Beside.of(self._comfy, ours.hearth, given, self._putter)) as beside:
                follow = Follow(self._comfy, self._listener, workflow, self._report(ours), beside)
                ran.append(follow)
                await self._in_turn(ours, follow)
                entry = await self._or_stopped(ours, follow, follow.result())
                tidy = asyncio.ensure_future(self._tidy_early(ours, follow))
                try:
                    found, datas = outputs.collect(entry, given.workflow, temp=given.temp)
                    found += await self._untold(ours, workflow, entry)
                    fetched = await outputs.fetch(self._comfy, found, await beside.over())
                    if not left or not _is_cached_and_gone(follow, found, fetched):
                        return await self._deliver(ours, given, follow, datas, fetched)
                finally:
                    await to_end(tidy)
            log.info("%s: ComfyUI's cache names files that are gone, so it runs again without it", ours.id)
            await self._comfy.free(models=False)
        raise AssertionError("the last run returns")

    async def _untold(self, ours: Job, workflow: Mapping[str, Any], entry: Mapping[str, Any]) -> list[outputs.Found]:
        """What nodes saved without a word, where this worker can see it."""
        why, told = failure(entry, {}), outputs.named(entry.get("outputs") or {})
        prefixes = traces.prefixes(ours.folder, workflow)
        all_told = prefixes.keys() <= {file.node for file in told}
        if all_told or not self._settings.comfyui_dir or (why and not why.nodes):
            return []
        failed = why.nodes or () if why else ()
        return await asyncio.to_thread(traces.untold, self._settings.comfyui_dir, ours.folder, prefixes, told, failed)

    async def _in_turn(self, ours: Job, follow: Follow) -> None:
        """Run when it is this job's turn. It passes on as soon as ComfyUI is free for the next."""
        await self._listener.open()
        async with self._turn:
            await self._listener.open()  # it may have dropped
            await self.health.cleared()
            self._held.begins()
            if ours.hearth:
                await ours.hearth.started()
            log.info("%s: runs as prompt %s", ours.id, follow.prompt_id)
            await self._or_stopped(ours, follow, self._run(follow))

    async def _run(self, follow: Follow) -> None:
        await follow.run()
        if follow.entry and (why := failure(follow.entry, {})) and why.code == "out_of_memory":
            await self._comfy.free(models=True)

    async def _or_stopped(self, ours: Job, follow: Follow, work: Awaitable[T]) -> T:
        """What comes of the work. If it is given up or fails in any way, ComfyUI shall let go of the prompt."""
        try:
            return await work
        except (asyncio.CancelledError, Exception) as error:
            stuck = JobError("ComfyUI does not let go of a prompt that was stopped", "comfyui_busy")
            await to_end(self._stop(ours, follow, error if isinstance(error, JobError) else stuck))
            raise

    async def _stop(self, ours: Job, follow: Follow, error: JobError) -> None:
        if not await follow.stop():
            where = self._settings.comfyui_dir, [ours.folder]
            self.health.is_stuck(follow.prompt_id, lambda shown: traces.clear(*where, outputs.named(shown)))
            self.health.fell_ill(error)

    async def _deliver(
        self,
        ours: Job,
        given: JobInput,
        follow: Follow,
        datas: outputs.Datas,
        fetched: Sequence[Fetched],
    ) -> dict[str, Any]:
        """Store what the run made, also when it failed half-way, unless another worker shall make it."""
        why = failure(follow.entry or {}, given.workflow)
        errors = [error for error in (why, *fetched) if isinstance(error, JobError)]
        if ours.hearth and (elsewhere := [error for error in errors if error.elsewhere]):
            raise elsewhere[0]
        made = [item for item in (*fetched, *follow.images) if not isinstance(item, JobError)]
        where = given, ours.id, ours.hearth, self._settings.bucket, self._putter
        store = destinations.choose(*where, ours.limits.base64_bytes)
        late = iter(await store([item for item in made if isinstance(item, OutputFile)]))
        datas, large = answer.apart(datas, ours.limits.datas_bytes)
        moved = await destinations.choose_apart(*where)(large)
        stored = [*(next(late) if isinstance(item, OutputFile) else item for item in made), *moved]
        errors += [error for error in stored if isinstance(error, JobError)]
        kept = [item for item in stored if isinstance(item, Stored)]
        datas |= answer.links([item for item in moved if isinstance(item, Stored)])
        said = warnings(follow.node_errors, given.workflow) + [item.note for item in kept if item.note]
        said += [PREVIEW.format(node=node) for node in sorted(follow.untold)]
        said += [] if self._settings.comfyui_dir else traces.unseen(given.workflow)
        result = answer.result(kept, datas, errors, said)
        for error in errors:
            result |= self._blamed(error)
        return result

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


def _is_cached_and_gone(follow: Follow, found: Sequence[outputs.Found], fetched: Sequence[Fetched]) -> bool:
    pairs = zip(found, fetched, strict=True)
    return any(isinstance(g, JobError) and g.code == "output_missing" and f.node in follow.cached for f, g in pairs)


def _not_started(fault: JobError) -> tuple[str, str]:
    """What another job is told: the fault's own words may be of another tenant's job."""
    return f"it was not started: the worker or its ComfyUI is not fit ({fault.code})", fault.code
