"""The worker: what it adds to ComfyUI, what Hearth adds to both, and how busy ComfyUI is kept."""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks.bench import Bench
from benchmarks.comfyui import Workflow, a_comfyui, can_sleep, direct, said_in, slept_image, small_image, watched
from benchmarks.measure import Figure, Row, interleaved
from benchmarks.processes import running, wait
from benchmarks.tenants import Place, new_place
from hearth.local import instance
from jobs.ids import parse_job_id
from jobs.models import Endpoint, Event, Job
from jobs.states import FINAL
from worker.handler import Worker
from worker.settings import Settings

JOB_S = 0.2
LONGEST_S = 60.0


def handler(bench: Bench) -> Row:
    """The handler alone, with base64, over the same prompt straight to ComfyUI; both with one kept session."""
    count = bench.count(40, 3)
    url, folder = bench.kept(a_comfyui)
    with asyncio.Runner() as runner:
        found = interleaved(
            bench.rounds,
            {
                "ComfyUI": lambda: runner.run(_direct(url, count)),
                "handler": lambda: runner.run(_handled(url, folder, count)),
            },
        )
    middle = {name: [median(times) for times in rounds] for name, rounds in found.items()}
    more = [a - b for a, b in zip(middle["handler"], middle["ComfyUI"], strict=True)]
    figures = [Figure(name=name, unit="ms", rounds=rounds) for name, rounds in middle.items()]
    return Row(
        figures=[*figures, Figure(name="handler over ComfyUI", unit="ms more", rounds=more, at_most=2)], raw=found
    )


async def _direct(url: str, count: int) -> list[float]:
    """ms of each."""
    async with direct(url) as comfyui:
        await comfyui.picture(small_image())
        return [await _ms(comfyui.picture(small_image())) for _ in range(count)]


async def _handled(url: str, folder: str, count: int) -> list[float]:
    own = Worker(Settings(comfyui_url=url, comfyui_dir=folder))
    try:
        await _base64(own)
        return [await _ms(_base64(own)) for _ in range(count)]
    finally:
        await own.close()


async def _base64(own: Worker) -> None:
    result = await own.handle({"id": "bench", "input": {"workflow": small_image(), "tobase64": True}})
    if len(result.get("files", ())) != 1:
        raise RuntimeError(f"the handler answered {str(result)[:500]}")


async def _ms(work: Any) -> float:
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1000


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """An endpoint with one worker of ours that tells its times."""

    place: Place
    url: str
    comfyui_url: str
    log: Path


@contextmanager
def fleet(bench: Bench) -> Iterator[Fleet]:
    place, home = new_place(), bench.instance.home
    comfyui_url, folder = bench.kept(a_comfyui)
    part = instance.worker(home, 99, place.worker_environment(bench.instance.url), comfyui_url, folder)
    part = replace(part, argv=[sys.executable, "-m", "benchmarks.timed_worker"], name="timed-worker")
    with running(part, home) as child:
        wait(child, lambda: place.endpoint.workers.filter(take_at__isnull=False).exists())
        yield Fleet(place=place, url=f"{bench.instance.url}{place.path}", comfyui_url=comfyui_url, log=child.log)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One runsync: seconds since the epoch, ours and the worker's (one clock), and the id it was answered."""

    sent: float
    answered: float
    id: str


def runsync(bench: Bench) -> Row:
    """runsync of a 64×64 picture with its upload to S3, over the same prompt straight to ComfyUI.

    The SDK's own wait, from the poll that brought a job to the call of the handler, is each job's own, as the worker
    saw it. What is left of the way from `run` to the handler is ours.
    """
    count = bench.count(25, 2)
    ours = bench.kept(fleet)
    with asyncio.Runner() as runner:
        runner.run(_synced(ours, 2))
        found = interleaved(
            bench.rounds,
            {
                "ComfyUI": lambda: runner.run(_direct(ours.comfyui_url, count)),
                "runsync": lambda: runner.run(_synced(ours, count)),
            },
        )
        told = said_in(ours.log)
    straight = [median(times) for times in found["ComfyUI"]]
    rounds = [[_parts(job, told[job.id]) for job in jobs] for jobs in found["runsync"]]
    middle = {name: [median(job[name] for job in jobs) for jobs in rounds] for name in rounds[0][0]}
    more = [ours - bare for ours, bare in zip(middle.pop("without the SDK's wait"), straight, strict=True)]
    figures = [
        Figure(name="ComfyUI", unit="ms", rounds=straight),
        *(Figure(name=name, unit="ms", rounds=values, at_most=AIMS.get(name)) for name, values in middle.items()),
        Figure(name="runsync over ComfyUI, without the SDK's wait", unit="ms more", rounds=more, at_most=25),
    ]
    return Row(figures=figures, raw={"ComfyUI": found["ComfyUI"], "runsync": rounds})


AIMS = {"run → handler, without the SDK's wait": 10.0}


def _parts(job: Timed, told: tuple[float, float]) -> dict[str, float]:
    """ms of each stretch of one job."""
    taken, called = told
    found = parse_job_id(job.id)
    assert found
    at = {event.kind: event.at.timestamp() for event in Event.objects.filter(job_id=found.uuid)}
    stretches = {
        "runsync": job.answered - job.sent,
        "the SDK's wait": called - taken,
        "run → handler, without the SDK's wait": taken - job.sent,
        "of it created → handed": at["handed"] - at["created"],
        "handler → started": at["started"] - called,
        "started → completed": at["completed"] - at["started"],
        "completed → answered": job.answered - at["completed"],
        "without the SDK's wait": job.answered - job.sent - (called - taken),
    }
    return {name: seconds * 1000 for name, seconds in stretches.items()}


async def _synced(ours: Fleet, count: int) -> list[Timed]:
    """One after the other, with pauses in which the worker comes to rest; not in step with the SDK's own pauses."""
    headers = {"Authorization": f"Bearer {ours.place.api_keys[0]}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        jobs = []
        for _ in range(count):
            await asyncio.sleep(random.uniform(0.03, 0.13))
            jobs.append(await _sync(session, ours.url))
        return jobs


async def _sync(session: aiohttp.ClientSession, url: str) -> Timed:
    sent = time.time()
    async with session.post(f"{url}/runsync", json={"input": {"workflow": small_image()}}) as answer:
        said = await answer.json()
    answered = time.time()
    if said.get("status") != "COMPLETED":
        raise RuntimeError(f"runsync answered {str(said)[:500]}")
    return Timed(sent=sent, answered=answered, id=said["id"])


def busy(bench: Bench) -> Row:
    """Jobs of 200 ms, all queued at first: how much of the time ComfyUI had one. Prefetch: jobs that a worker is
    handed beside the one that runs."""
    count = bench.count(20, 2)
    ours = bench.kept(fleet)
    with asyncio.Runner() as runner:
        if not can_sleep(ours.comfyui_url):
            return Row(left_out="it needs the stand-in's StandinSleep: run it without COMFYUI_URL")
        runner.run(_synced(ours, 2))
        found = interleaved(
            min(bench.rounds, 3), {f"prefetch {n}": (lambda n=n: _share(runner, ours, count, n)) for n in (0, 1)}
        )
    aims = {"prefetch 1": 95.0}
    shares = {name: [100 * share for share in rounds] for name, rounds in found.items()}
    return Row(figures=[Figure(name=name, unit="%", rounds=shares[name], at_least=aims.get(name)) for name in shares])


def _share(runner: asyncio.Runner, ours: Fleet, count: int, prefetch: int) -> float:
    Endpoint.objects.filter(pk=ours.place.endpoint.pk).update(prefetch=prefetch)
    share: float = runner.run(_watched_share(ours, count))
    return share


async def _watched_share(ours: Fleet, count: int) -> float:
    headers = {"Authorization": f"Bearer {ours.place.api_keys[0]}"}
    async with watched(ours.comfyui_url) as seen, aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(_submit(session, ours.url, slept_image(JOB_S)) for _ in range(count)))
        async with asyncio.timeout(LONGEST_S):
            while await asyncio.to_thread(_unfinished, ours.place):
                await asyncio.sleep(0.1)
        return seen.share()


async def _submit(session: aiohttp.ClientSession, url: str, workflow: Workflow) -> None:
    async with session.post(f"{url}/run", json={"input": {"workflow": workflow}}) as answer:
        answer.raise_for_status()


def _unfinished(place: Place) -> bool:
    return Job.all_tenants.filter(endpoint=place.endpoint).exclude(state__in=FINAL).exists()
