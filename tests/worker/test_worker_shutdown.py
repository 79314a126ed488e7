"""SIGTERM: what waits goes back, what runs goes on for its grace, Hearth hears that it is alive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.worker.fakes import FakeComfy, FakeHearth, image_workflow, job, until, worker_for
from worker.handler import Worker

WORKFLOW = image_workflow()


@dataclass
class World:
    comfy: FakeComfy
    hearth: FakeHearth
    worker: Worker
    job: asyncio.Task[Any]

    def begin_drain(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.worker.drain())

    @property
    def interrupts(self) -> list[Any]:
        return [body for what, body in self.comfy.asked if what == "POST interrupt"]


@asynccontextmanager
async def running(grace_s: float, *, ours: bool = True) -> AsyncIterator[World]:
    """One job that runs, and ends when the test says so."""
    async with (
        FakeComfy() as comfy,
        FakeHearth() as hearth,
        worker_for(comfy.url, grace_s=grace_s, stop_s=0.3) as worker,
    ):
        given = job(WORKFLOW, _hearth=hearth.field) if ours else job(WORKFLOW)
        world = World(comfy, hearth, worker, asyncio.create_task(worker.handle(given)))
        await until(lambda: comfy.prompts)
        yield world


async def test_a_job_that_ends_in_its_grace_is_finished() -> None:
    async with running(20) as world:
        draining = world.begin_drain()
        await until(lambda: "alive" in world.hearth.verbs())
        await world.comfy.finish(world.comfy.prompts[0]["prompt_id"])
        assert "error" not in await world.job
        await draining
    assert set(world.hearth.verbs()) == {"started", "alive"}


async def test_a_job_that_outlasts_its_grace_is_interrupted_and_handed_back() -> None:
    async with running(0.1) as world:
        await world.begin_drain()
        assert world.job.cancelled()
    assert world.interrupts[0] == {"prompt_id": world.comfy.prompts[0]["prompt_id"]}
    assert world.hearth.calls[-1] == ("hand-back", {"reason": "the worker shuts down", "code": "shutdown"})


async def test_the_upload_of_a_finished_run_has_the_grace_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.held.BEAT_S", 0.02)
    async with running(20) as world:
        may_end = asyncio.Event()
        world.hearth.before_put = may_end.wait
        images = [{"filename": "a.png", "subfolder": "", "type": "output"}]
        await world.comfy.finish(world.comfy.prompts[0]["prompt_id"], {"2": {"images": images}})
        await until(lambda: "uploads" in world.hearth.verbs())
        draining = world.begin_drain()
        await until(lambda: world.hearth.verbs().count("alive") >= 3)
        may_end.set()
        assert (await world.job)["files"] == ["acme/job/a1/1-a.png"]
        await draining


async def test_a_job_that_hearth_has_ended_is_stopped_though_nothing_polls_any_more() -> None:
    async with running(20) as world:
        world.hearth.statuses["alive"] = [409]
        await world.begin_drain()
        assert world.job.cancelled()
    assert world.interrupts
    assert "hand-back" not in world.hearth.verbs()


async def test_a_hearth_that_is_away_during_the_shutdown_does_not_end_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.held.BEAT_S", 0.02)
    async with running(20) as world:
        world.hearth.statuses["alive"] = [503, 502]
        draining = world.begin_drain()
        await until(lambda: world.hearth.verbs().count("alive") >= 4)
        await world.comfy.finish(world.comfy.prompts[0]["prompt_id"])
        assert "error" not in await world.job
        await draining


async def test_alone_on_runpod_a_job_is_finished_whatever_the_grace() -> None:
    async with running(0.1, ours=False) as world:
        draining = world.begin_drain()
        await asyncio.sleep(0.4)  # well past the grace
        await world.comfy.finish(world.comfy.prompts[0]["prompt_id"])
        assert "error" not in await world.job
        await draining
    assert world.interrupts == []
