"""Each fault of a ComfyUI: what Hearth is told, that the worker takes nothing meanwhile, and is fit afterwards."""

import asyncio
import errno
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.worker.fakes import (
    FAST,
    FakeComfy,
    FakeHearth,
    Process,
    chain,
    free_port,
    image_workflow,
    job,
    until,
    worker_for,
)
from tests.worker.faults import fault_workflow
from worker.errors import CODES
from worker.files import OutputFile
from worker.handler import Worker
from worker.wire import NOT_RUN

WORKFLOW = image_workflow()
QUICK = FAST | {"start_s": 5.0, "busy_s": 1.0, "stop_s": 0.5}
PROMPTLY_S = 30


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.health.DISK_PAUSE_S", 0.3)
    monkeypatch.setattr("worker.health.LOOK_S", 0.2)


async def given_back(worker: Worker, hearth: FakeHearth, workflow: dict[str, Any]) -> dict[str, str]:
    """What Hearth is told of a job that comes to nothing here."""
    with pytest.raises(asyncio.CancelledError):
        await worker.handle(job(workflow, _hearth=hearth.field))
    verb, body = hearth.calls[-1]
    assert verb == "hand-back"
    assert body["code"] in CODES
    return dict(body)


async def test_on_runpod_a_job_given_back_ends_there_and_the_machine_is_replaced() -> None:
    async with FakeHearth() as hearth, worker_for("http://127.0.0.1:9", worker_name="", start_s=0.3) as worker:
        result = await worker.handle(job(WORKFLOW, _hearth=hearth.field))
    assert hearth.verbs() == ["hand-back"]
    assert result["error"].startswith(NOT_RUN)
    assert result["refresh_worker"] is True


async def runs_again(worker: Worker, hearth: FakeHearth) -> None:
    async with asyncio.timeout(PROMPTLY_S):
        await worker.health.well()
    result = await worker.handle(job(WORKFLOW, _hearth=hearth.field))
    assert len(result["files"]) == 1, result


async def running(process: Process) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{process.url}/queue") as answer:
                if (await answer.json())["queue_running"]:
                    return
            await asyncio.sleep(0.02)


def again(process: Process, standin: Callable[..., Process]) -> Any:
    """ComfyUI started anew where it was."""
    return asyncio.to_thread(standin, int(process.url.rpartition(":")[2]))


async def test_a_job_that_needs_too_much_memory_fails_and_the_next_one_runs(standin: Callable[..., Process]) -> None:
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        result = await worker.handle(job(fault_workflow("out_of_memory"), _hearth=hearth.field))
        assert result["code"] == "out_of_memory"
        assert "StandinFault" in result["error"]
        assert "smaller" in result["error"]
        assert worker.health.fault is None
        await runs_again(worker, hearth)


@pytest.mark.parametrize(
    "message",
    [
        "Allocation on device \nThis error means you ran out of memory on your GPU.",
        "CUDA out of memory. Tried to allocate 20.00 GiB",
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.",
        "CUDA error: out of memory",
    ],
    ids=lambda message: message[:20],
)
async def test_the_words_of_torch_and_comfyui_for_out_of_memory_are_known(
    standin: Callable[..., Process], message: str
) -> None:
    async with worker_for(standin().url) as worker:
        result = await worker.handle(job(fault_workflow("error", message)))
    assert result["code"] == "out_of_memory"


async def test_after_out_of_memory_comfyui_is_told_to_free_its_models() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        said = {"node_id": "1", "node_type": "X", "exception_type": "torch.OutOfMemoryError", "exception_message": "no"}
        comfy.running = []
        messages = [["execution_error", said]]
        comfy.history[prompt_id] = {"outputs": {}, "status": {"status_str": "error", "messages": messages}}
        await comfy.say("execution_error", prompt_id, **said)

    async with FakeComfy(play) as comfy, worker_for(comfy.url) as worker:
        result = await worker.handle(job(WORKFLOW))
        assert ("POST free", {"unload_models": True, "free_memory": True}) in comfy.asked
    assert result["code"] == "out_of_memory"


async def test_a_full_disk_at_comfyui_is_another_workers_chance(standin: Callable[..., Process]) -> None:
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        told = await given_back(worker, hearth, fault_workflow("disk_full"))
        assert told["code"] == "disk_full"
        assert "No space left on device" in told["reason"]
        assert worker.health.fault
        await runs_again(worker, hearth)


async def test_a_worker_whose_disk_stays_full_takes_nothing(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr("worker.health._room", lambda place: looks.append(place) or len(looks) > 3)
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        await given_back(worker, hearth, fault_workflow("disk_full"))
        await runs_again(worker, hearth)
    assert len(looks) > 3


def full_for_three_looks(monkeypatch: pytest.MonkeyPatch, probe: str, then: Any) -> list[str]:
    looks: list[str] = []

    def look(*_: Any) -> Any:
        looks.append(probe)
        if len(looks) <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return then

    monkeypatch.setattr(probe, look)
    return looks


@pytest.mark.parametrize(
    ("probe", "then"), [("tempfile._get_default_tempdir", tempfile.gettempdir()), ("worker.health._room", True)]
)
async def test_a_look_that_fails_on_the_full_disk_itself_is_not_the_last_one(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, probe: str, then: Any
) -> None:
    """Python finds the place for temporary files by writing there, when it is first asked."""
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        monkeypatch.setattr("tempfile.tempdir", None)
        looks = full_for_three_looks(monkeypatch, probe, then)
        await given_back(worker, hearth, fault_workflow("disk_full"))
        await runs_again(worker, hearth)
    assert len(looks) > 3


async def test_a_worker_that_starts_on_a_full_disk_takes_nothing_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeComfy() as comfy, worker_for(comfy.url, **QUICK) as worker, asyncio.timeout(PROMPTLY_S):
        full_for_three_looks(monkeypatch, "tempfile._get_default_tempdir", tempfile.gettempdir())
        monkeypatch.setattr("tempfile.tempdir", None)
        waiting = asyncio.create_task(worker.health.well())
        await until(lambda: worker.health.fault)
        assert worker.health.fault
        assert worker.health.fault.code == "disk_full"
        assert not waiting.done()
        await waiting
    assert worker.health.fault is None


async def test_whatever_goes_wrong_with_a_look_it_is_not_the_last_one(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd: list[Any] = [RecursionError("so deep"), AttributeError("no such thing"), KeyError("queue_running")]

    async def is_free(comfy: Any) -> bool:
        if odd:
            raise odd.pop()
        return True

    monkeypatch.setattr("worker.comfy.Comfy.is_free", is_free)
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        await given_back(worker, hearth, fault_workflow("disk_full"))
        await runs_again(worker, hearth)
    assert odd == []


async def test_a_restart_command_that_cannot_be_run_is_not_the_end_of_looking(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_process(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("asyncio.create_subprocess_shell", no_process)
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, comfyui_restart="restart", **QUICK) as worker:
        await given_back(worker, hearth, fault_workflow("wedge_early"))
        process.kill()
        await again(process, standin)
        await runs_again(worker, hearth)


async def test_a_full_disk_of_the_worker_itself_is_told_as_such(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: OutputFile, chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        with monkeypatch.context() as patched:
            patched.setattr(OutputFile, "write", full)
            told = await given_back(worker, hearth, WORKFLOW)
        assert told["code"] == "disk_full"
        await runs_again(worker, hearth)


async def test_an_input_that_comfyui_has_no_room_for_is_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(*_: Any, **__: Any) -> tuple[int, str]:
        return 500, "OSError: [Errno 28] No space left on device: 'a.txt'"

    monkeypatch.setattr("worker.comfy.Comfy._post", no_room)
    async with FakeComfy() as comfy, worker_for(comfy.url) as worker:
        result = await worker.handle(job(WORKFLOW, files={"a.txt": "YQ=="}))
    assert result["code"] == "disk_full"


async def test_a_comfyui_that_a_job_kills_is_waited_for(standin: Callable[..., Process]) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker:
        told = await given_back(worker, hearth, fault_workflow("crash"))
        assert told["code"] == "comfyui_crashed"
        assert worker.health.fault
        await again(process, standin)
        await runs_again(worker, hearth)


async def test_a_comfyui_that_hung_and_goes_on_is_rid_of_the_old_prompt_first(standin: Callable[..., Process]) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker:
        told = await given_back(worker, hearth, fault_workflow("hang"))
        assert told["code"] == "comfyui_hangs"
        process.send(signal.SIGCONT)
        await runs_again(worker, hearth)
        async with aiohttp.ClientSession() as session, session.get(f"{process.url}/history") as answer:
            assert await answer.json() == {}


async def test_an_executor_that_died_before_it_began_is_told_from_a_long_node(standin: Callable[..., Process]) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker:
        told = await given_back(worker, hearth, fault_workflow("wedge_early"))
        assert told["code"] == "comfyui_wedged"
        assert worker.health.fault
        process.kill()
        await again(process, standin)
        await runs_again(worker, hearth)


@pytest.mark.parametrize("fault", ["hang", "wedge_early"])
async def test_a_comfyui_that_will_not_come_back_is_restarted_by_the_operators_command(
    standin: Callable[..., Process], fault: str, tmp_path: Path
) -> None:
    process, told = standin(), tmp_path / "told"
    command = f"echo again >> {told}; kill -9 {process.child.pid}"
    async with FakeHearth() as hearth, worker_for(process.url, comfyui_restart=command, **QUICK) as worker:
        await given_back(worker, hearth, fault_workflow(fault))
        await until(lambda: process.child.poll() is not None)
        await again(process, standin)
        await runs_again(worker, hearth)
    assert told.read_text() == "again\n", "once"


async def test_a_comfyui_that_keeps_a_stopped_prompt_is_restarted_after_a_while(
    standin: Callable[..., Process],
) -> None:
    process = standin()
    command = f"kill -9 {process.child.pid}"
    async with FakeHearth() as hearth, worker_for(process.url, comfyui_restart=command, **QUICK) as worker:
        stuck = asyncio.create_task(worker.handle(job(fault_workflow("wedge"), _hearth=hearth.field)))
        await running(process)
        stuck.cancel()
        await until(lambda: process.child.poll() is not None)
        await again(process, standin)
        await runs_again(worker, hearth)


async def test_a_comfyui_that_keeps_the_prompt_of_a_killed_worker_is_restarted_after_a_while(
    standin: Callable[..., Process], tmp_path: Path
) -> None:
    process = standin()
    left = {"prompt": fault_workflow("wedge"), "client_id": "hearth-worker-1"}
    async with FakeHearth() as hearth, aiohttp.ClientSession() as session:
        async with session.post(f"{process.url}/prompt", json=left):
            await running(process)
        more = QUICK | {"comfyui_dir": str(tmp_path / "own"), "comfyui_restart": f"kill -9 {process.child.pid}"}
        async with worker_for(process.url, **more) as worker:
            told = await given_back(worker, hearth, WORKFLOW)
            assert told["code"] == "comfyui_busy"
            assert "started" not in hearth.verbs()
            await until(lambda: process.child.poll() is not None)
            await again(process, standin)
            await runs_again(worker, hearth)


async def test_a_deleted_prompt_goes_to_another_worker_and_this_one_stays_well() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.running = []

    async with FakeComfy(play) as comfy, FakeHearth() as hearth, worker_for(comfy.url, **QUICK) as worker:
        told = await given_back(worker, hearth, WORKFLOW)
        assert told["code"] == "prompt_gone"
        assert worker.health.fault is None


async def test_a_node_that_says_nothing_for_long_is_not_taken_for_a_dead_executor(
    standin: Callable[..., Process],
) -> None:
    workflow = image_workflow(3)
    workflow["3"] = {"class_type": "StandinSleep", "inputs": {"seconds": 2.0, "image": ["1", 0]}}
    workflow["2"]["inputs"]["images"] = ["3", 0]
    async with worker_for(standin().url, **QUICK | {"silence_s": 0.05}) as worker:
        result = await worker.handle(job(workflow))
    assert len(result["files"]) == 1


async def test_a_prompt_that_cannot_be_interrupted_sends_the_waiting_job_elsewhere(
    standin: Callable[..., Process],
) -> None:
    """The executor died inside a node; only the client's cancel ends this one."""
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker:
        stuck = asyncio.create_task(worker.handle(job(fault_workflow("wedge"), _hearth=hearth.field)))
        await running(process)
        waiting = asyncio.create_task(given_back(worker, hearth, WORKFLOW))
        await until(lambda: "started" in hearth.verbs())
        stuck.cancel()
        told = await waiting
        assert told["code"] == "comfyui_busy"
        assert told["reason"] == "it was not started: the worker or its ComfyUI is not fit (comfyui_busy)"
        process.kill()
        await again(process, standin)
        await runs_again(worker, hearth)


async def test_a_prompt_behind_somebody_elses_goes_to_another_worker(standin: Callable[..., Process]) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker, aiohttp.ClientSession() as session:
        async with session.post(f"{process.url}/prompt", json={"prompt": chain(7, "StandinSleep")}):
            await running(process)
        told = await given_back(worker, hearth, WORKFLOW)
        assert told["code"] == "comfyui_busy"
        await runs_again(worker, hearth)


async def test_a_job_that_waits_is_not_told_what_another_tenants_job_said(standin: Callable[..., Process]) -> None:
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        await given_back(worker, hearth, fault_workflow("disk_full"))
        told = await given_back(worker, hearth, WORKFLOW)
    assert told["code"] == "disk_full"
    assert "x.png" not in told["reason"]


async def test_a_job_that_comes_while_comfyui_is_away_is_handed_back_at_once(standin: Callable[..., Process]) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK) as worker:
        await worker.health.well()
        await worker.handle(job(WORKFLOW))
        process.kill()
        await until(lambda: worker.health.fault)
        told = await given_back(worker, hearth, WORKFLOW)
        assert told["code"] in ("comfyui_unreachable", "comfyui_crashed")
    assert hearth.verbs() == ["hand-back"]


async def test_a_fault_ends_the_poll_before_jobs_are_handed_back(standin: Callable[..., Process]) -> None:
    async with FakeHearth() as hearth, worker_for(standin().url, **QUICK) as worker:
        order: list[str] = []
        worker.cut_poll = lambda: order.append(f"cut before {len(hearth.calls)} calls")
        await given_back(worker, hearth, fault_workflow("disk_full"))
    assert order == ["cut before 1 calls"]
    assert hearth.verbs() == ["started", "hand-back"]


async def test_alone_on_runpod_the_error_is_the_result_and_the_machine_is_given_up(
    standin: Callable[..., Process],
) -> None:
    async with worker_for(standin().url, **QUICK) as worker:
        result = await worker.handle(job(fault_workflow("disk_full")))
        assert (result["code"], result["refresh_worker"]) == ("disk_full", True)
        assert "refresh_worker" not in await worker.handle(job(fault_workflow("error", "bad luck")))


async def test_alone_the_patience_with_comfyui_outlives_the_sdks_polls() -> None:
    """The SDK gives a poll up after 90 s and begins the next."""
    async with worker_for(f"http://127.0.0.1:{free_port()}") as worker, asyncio.timeout(PROMPTLY_S):
        given_up = 0
        while True:
            try:
                await asyncio.wait_for(worker.health.well(patience_s=0.5), 0.2)
                break
            except TimeoutError:
                given_up += 1
        assert worker.health.fault
    assert given_up >= 1


async def test_what_a_prompt_saves_after_it_could_not_be_stopped_is_removed_when_it_has_gone(
    standin: Callable[..., Process], tmp_path: Any
) -> None:
    process = standin()
    folder = tmp_path / "own"
    workflow = chain(5, "StandinSleep", 1) | {"9": {"class_type": "StandinFault", "inputs": {}}}
    workflow["9"]["inputs"] = {"image": ["10", 0], "kind": "hang", "message": ""}
    workflow["2"]["inputs"]["images"] = ["9", 0]
    async with FakeHearth() as hearth, worker_for(process.url, **QUICK, comfyui_dir=str(folder)) as worker:
        told = await given_back(worker, hearth, workflow)
        assert told["code"] == "comfyui_hangs"
        process.send(signal.SIGCONT)
        await runs_again(worker, hearth)
    assert list(folder.rglob("*.png")) == []
