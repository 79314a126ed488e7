"""`python -m worker` as a process of its own, with the real runpod SDK, against a server that plays Hearth."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.worker.fakes import FakeComfy, Process, free_port, image_workflow, job, until
from tests.worker.faults import fault_workflow
from tests.worker.fleet import Fleet, worker_process


@dataclass
class World:
    comfy: FakeComfy
    fleet: Fleet
    process: asyncio.subprocess.Process
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def give(self, id: str, **more: Any) -> None:
        self.fleet.queue.append(job(image_workflow(), id=id, _hearth=self.fleet.field, **more))


@asynccontextmanager
async def running(log: Path, play: Any = None) -> AsyncIterator[World]:
    async with (
        FakeComfy(play) as comfy,
        Fleet() as fleet,
        worker_process(fleet.environment(comfy.url), log) as process,
    ):
        yield World(comfy, fleet, process, log)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


async def test_a_job_is_taken_run_and_answered_though_its_progress_is_not(log: Path) -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("executing", prompt_id, node="1")
        await until(lambda: world.fleet.progress)
        await comfy.finish(prompt_id, {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}})

    async with running(log, play) as world:
        world.fleet.progress_hangs = True
        world.give("job-1")
        await until(lambda: world.fleet.done)
    assert world.fleet.done["job-1"]["output"]["files"] == ["acme/job/a1/1-a.png"]
    assert world.fleet.progress[0]["class_type"] == "EmptyImage"
    assert world.fleet.pings[0][0].startswith("gpu-1-")


async def test_the_log_tells_what_happened_and_no_secret(log: Path) -> None:
    async with running(log, lambda comfy, prompt_id: comfy.finish(prompt_id, {"2": {"text": ["c2VjcmV0"]}})) as world:
        world.give("job-1", files={"a.txt": "c2VjcmV0"})
        await until(lambda: world.fleet.done)
        await until(lambda: "job-1: done, 0 files" in world.said())
    for secret in ("tok-secret", "hwk_secret", "c2VjcmV0"):
        assert secret not in world.said()


async def test_an_error_reaches_the_top_level_with_its_code(log: Path) -> None:
    async with running(log) as world:
        world.fleet.queue.append({"id": "job-1", "input": {"workflow": {}}})
        await until(lambda: world.fleet.done)
    assert "input.workflow is missing" in world.fleet.done["job-1"]["error"]
    assert world.fleet.done["job-1"]["output"] == {"code": "bad_input"}


async def test_a_stopped_job_interrupts_its_prompt_and_sends_no_result(log: Path) -> None:
    async with running(log) as world:
        world.give("job-1")
        await until(lambda: world.comfy.prompts)
        world.fleet.stops.append("job-1")
        interrupt = ("POST interrupt", {"prompt_id": world.comfy.prompts[0]["prompt_id"]})
        await until(lambda: interrupt in world.comfy.asked)
        world.comfy.running = []
        await until(lambda: "Job stopped" in world.said())
    assert world.fleet.done == {}


async def test_sigterm_hands_back_what_waits_finishes_what_runs_and_ends_well(log: Path) -> None:
    async with running(log) as world:
        world.give("runs")
        world.give("waits", files={"a.txt": "YQ=="})
        await until(lambda: world.comfy.prompts and world.comfy.uploads)
        world.process.terminate()
        await until(lambda: "hand-back" in world.fleet.verbs())
        await world.comfy.finish(world.comfy.prompts[0]["prompt_id"])
        assert await world.process.wait() == 0
    assert list(world.fleet.done) == ["runs"]
    assert [verb for verb in world.fleet.verbs() if verb != "alive"] == ["started", "hand-back"]
    assert "Unclosed" not in world.said()


async def test_an_idle_worker_ends_its_held_polls_and_itself_at_once(log: Path) -> None:
    async with running(log) as world:
        world.fleet.hold_s = 60
        await until(lambda: world.fleet.takes > 0)
        begun = asyncio.get_running_loop().time()
        world.process.terminate()
        assert await world.process.wait() == 0
        assert asyncio.get_running_loop().time() - begun < 5


async def test_a_killed_worker_leaves_no_process_that_pings_on(log: Path) -> None:
    async with running(log) as world:
        world.give("job-1")
        await until(lambda: any("job-1" in ids for _, ids in world.fleet.pings))
        world.process.send_signal(signal.SIGKILL)
        await world.process.wait()
        await asyncio.sleep(0.2)
        before = len(world.fleet.pings)
        await asyncio.sleep(2.2)  # two ping intervals
    assert len(world.fleet.pings) == before


async def test_a_hearth_that_is_down_is_polled_once_a_second(log: Path) -> None:
    async with running(log) as world:
        await until(lambda: world.fleet.takes)
        await world.fleet.__aexit__()
        await until(lambda: "Failed to get job" in world.said())
        await asyncio.sleep(2)
    assert world.said().count("Failed to get job") <= 4


@asynccontextmanager
async def beside(comfyui: str, log: Path, **more: str) -> AsyncIterator[Fleet]:
    """A worker beside a ComfyUI of the test's own."""
    async with Fleet() as fleet, worker_process(fleet.environment(comfyui) | more, log):
        yield fleet


async def test_nothing_is_taken_until_comfyui_answers(log: Path, standin: Callable[..., Process]) -> None:
    port = free_port()
    async with beside(f"http://127.0.0.1:{port}", log) as fleet:
        await until(lambda: "takes no jobs" in log.read_text())
        await until(lambda: fleet.pings)
        assert fleet.takes == 0
        await asyncio.to_thread(standin, port)
        await until(lambda: fleet.takes)


async def test_a_killed_comfyui_ends_the_held_poll_and_the_next_waits_for_it(
    log: Path, standin: Callable[..., Process]
) -> None:
    process = standin()
    async with beside(process.url, log) as fleet:
        fleet.hold_s = 60
        fleet.queue.append(job(fault_workflow("crash"), id="poison", _hearth=fleet.field))
        await until(lambda: "hand-back" in fleet.verbs())
        await until(lambda: fleet.held == 0)
        await until(lambda: fleet.pings[-1][1] == "")
        takes = fleet.takes
        await asyncio.to_thread(standin, int(process.url.rpartition(":")[2]))
        await until(lambda: fleet.takes == takes + 1)
        fleet.queue.append(job(image_workflow(), id="next", _hearth=fleet.field))
        await until(lambda: fleet.done)
    assert "poison" not in fleet.done
    assert fleet.calls[1][1]["code"] == "comfyui_crashed"


async def test_sigterm_hands_back_what_outlasts_its_grace_and_ends_well(log: Path) -> None:
    async with FakeComfy() as comfy, Fleet() as fleet:
        env = fleet.environment(comfy.url) | {"HEARTH_GRACE_S": "0.5", "COMFYUI_STOP_S": "0.5"}
        async with worker_process(env, log) as process:
            fleet.queue.append(job(image_workflow(), id="long", _hearth=fleet.field))
            await until(lambda: comfy.prompts)
            process.terminate()
            assert await process.wait() == 0
    assert fleet.calls[-1] == ("hand-back", {"reason": "the worker shuts down", "code": "shutdown"})
    assert fleet.done == {}
    assert "Unclosed" not in log.read_text()


async def test_alone_a_job_is_taken_though_comfyui_stays_away_so_that_its_failure_is_seen(log: Path) -> None:
    async with Fleet() as fleet:
        env = fleet.environment(f"http://127.0.0.1:{free_port()}") | {"COMFYUI_START_S": "0.5"}
        del env["HEARTH_WORKER_NAME"]
        env |= {"RUNPOD_POD_ID": "pod", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true"}
        async with worker_process(env, log):
            fleet.queue.append(job(image_workflow(), id="job-1"))
            await until(lambda: fleet.done)
    assert fleet.done["job-1"]["output"] == {"code": "comfyui_unreachable"}
    assert fleet.done["job-1"]["stopPod"] is True


async def test_without_hearth_a_test_input_runs_and_ends(log: Path) -> None:
    env = {"PATH": os.environ["PATH"], "COMFYUI_URL": f"http://127.0.0.1:{free_port()}", "COMFYUI_START_S": "0.1"}
    given = json.dumps({"input": {"workflow": image_workflow()}})
    async with worker_process(env, log, "--test_input", given) as process:
        assert await process.wait() == 1
    assert "ComfyUI could not be reached at http://127.0.0.1:" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_worker_ends_on_a_signal(log: Path, number: signal.Signals) -> None:
    async with running(log) as world:
        await until(lambda: world.fleet.takes)
        world.process.send_signal(number)
        assert await world.process.wait() == 0
