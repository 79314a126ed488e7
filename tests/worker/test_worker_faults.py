"""ComfyUI unreachable, crashing, rejecting, hanging, falling silent: each ends the job with words of its own."""

import asyncio
import contextlib
import inspect
import pkgutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.worker.fakes import (
    FAST,
    FakeComfy,
    Process,
    Server,
    b64,
    chain,
    free_port,
    handled,
    image_workflow,
    job,
    png,
    until,
    worker_for,
)
from worker.traces import KINDS

WORKFLOW = image_workflow()


async def start_slow_job(worker: Any, process: Process) -> asyncio.Task[Any]:
    running = asyncio.create_task(worker.handle(job(chain(1, "StandinSleep"))))
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{process.url}/queue") as answer:
                if (await answer.json())["queue_running"]:
                    return running
            await asyncio.sleep(0.02)


async def test_an_unreachable_comfyui_is_named_with_its_url() -> None:
    url = f"http://localhost:{free_port()}"
    result = await handled(url, job(WORKFLOW), **FAST)
    assert result["code"] == "comfyui_unreachable"
    assert url in result["error"]


async def test_an_unreachable_comfyui_is_named_before_files_are_uploaded() -> None:
    result = await handled(f"http://127.0.0.1:{free_port()}", job(WORKFLOW, files={"a.txt": "YQ=="}), **FAST)
    assert result["code"] == "comfyui_unreachable"


async def test_a_host_that_does_not_exist_is_unreachable() -> None:
    result = await handled("http://comfyui.invalid:8188", job(WORKFLOW), **FAST)
    assert result["code"] == "comfyui_unreachable"


async def test_a_comfyui_that_is_still_booting_is_waited_for(standin: Callable[..., Process]) -> None:
    port = free_port()
    async with worker_for(f"http://127.0.0.1:{port}", start_s=20) as worker:
        running = asyncio.create_task(worker.handle(job(WORKFLOW)))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(standin, port)
        result = await running
    assert len(result["files"]) == 1


async def test_a_comfyui_that_accepts_but_never_answers_hangs() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    result = await handled(url, job(WORKFLOW), **FAST)
    server.close()
    assert result["code"] == "comfyui_hangs"
    assert "2 × 0.4 s" in result["error"]


async def test_something_else_than_comfyui_is_told_with_its_status() -> None:
    async with Server() as other:
        result = await handled(other.url, job(WORKFLOW), **FAST)
    assert result["code"] == "comfyui_hangs"
    assert "404" in result["error"]


async def test_a_crash_in_the_middle_ends_the_job_at_once(standin: Callable[..., Process]) -> None:
    process = standin()
    async with worker_for(process.url) as worker:
        running = await start_slow_job(worker, process)
        process.kill()
        killed_at = time.monotonic()
        result = await running
    assert result["code"] == "comfyui_crashed"
    assert "crashed or was stopped" in result["error"]
    assert time.monotonic() - killed_at < 20


async def test_the_worker_runs_on_after_a_crash(standin: Callable[..., Process]) -> None:
    process = standin()
    async with worker_for(process.url) as worker:
        running = await start_slow_job(worker, process)
        process.kill()
        await running
        await asyncio.to_thread(standin, int(process.url.rpartition(":")[2]))
        result = await worker.handle(job(WORKFLOW))
    assert len(result["files"]) == 1


async def test_a_comfyui_that_stops_answering_hangs(standin: Callable[..., Process]) -> None:
    process = standin()
    async with worker_for(process.url, **FAST) as worker:
        running = await start_slow_job(worker, process)
        process.send(signal.SIGSTOP)
        result = await running
    assert result["code"] == "comfyui_hangs"
    assert "does not answer" in result["error"]


async def test_a_restart_that_lost_the_prompt_counts_as_a_crash() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.running = []
        await comfy.sockets[-1].close()

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW), **FAST)
    assert result["code"] == "comfyui_crashed"
    assert "restarted" in result["error"]


async def test_a_prompt_that_somebody_deleted_is_gone() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.running = []

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW), **FAST)
    assert result["code"] == "prompt_gone"


async def test_a_silent_socket_is_no_error_while_the_prompt_runs() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await until(lambda: [what for what, _ in comfy.asked].count("queue") >= 3)
        comfy.succeed(prompt_id, {"2": {"text": ["late"]}})

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW), **FAST)
    assert result["datas"] == {"2": {"text": ["late"]}}


async def test_chatter_about_other_prompts_does_not_hide_the_silence() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.succeed(prompt_id)
        for _ in range(1500):
            await comfy.say("progress", "another-prompt", node="1", value=1, max=9)
            await asyncio.sleep(0.02)

    async with FakeComfy(play) as comfy:
        started = time.monotonic()
        result = await handled(comfy.url, job(WORKFLOW), **FAST)
    assert result["files"] == []
    assert time.monotonic() - started < 20


async def test_an_error_of_another_prompt_is_not_ours() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("execution_error", "another-prompt", node_id="1", exception_message="not you")
        await comfy.say("executing", None, node="2")
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert "error" not in result


async def test_the_end_is_heard_at_once() -> None:
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id)) as comfy:
        started = time.monotonic()
        await handled(comfy.url, job(WORKFLOW), silence_s=50)
    assert time.monotonic() - started < 20


async def test_success_may_be_said_before_the_history_is_written() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("execution_success", prompt_id)
        await asyncio.sleep(0.5)
        comfy.succeed(prompt_id, {"2": {"text": ["there"]}})

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert result["datas"] == {"2": {"text": ["there"]}}


async def test_a_dropped_socket_is_reopened_with_the_same_client_id() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.sockets[-1].close()
        await until(lambda: len(comfy.sockets) == 2)
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert "error" not in result
    assert len(set(comfy.clients)) == 1
    assert comfy.prompts[0]["client_id"] == comfy.clients[0]


async def test_a_reopened_socket_that_stays_deaf_is_asked_around() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.sockets[-1].close()
        await until(lambda: len(comfy.sockets) == 2)
        comfy.succeed(prompt_id)

    async with FakeComfy(play) as comfy:
        started = time.monotonic()
        result = await handled(comfy.url, job(WORKFLOW), silence_s=50)
    assert "error" not in result
    assert time.monotonic() - started < 30


async def test_a_500_that_queued_the_prompt_all_the_same_is_followed() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await until(lambda: ("queue", None) in comfy.asked)
        await comfy.finish(prompt_id)

    async with FakeComfy(play, prompt_status=500, prompt_body="Server got itself in trouble") as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert "error" not in result
    assert len(comfy.prompts) == 1


async def test_a_500_that_queued_nothing_is_a_rejection_with_its_text() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.running = []

    async with FakeComfy(play, prompt_status=500, prompt_body="Server got itself in trouble") as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert result["code"] == "workflow_rejected"
    assert "HTTP 500 Server got itself in trouble" in result["error"]


async def test_a_prompt_stuck_behind_somebody_elses_is_taken_back() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.running, comfy.pending = ["another-prompt"], [prompt_id]
        await until(lambda: ("POST queue", {"delete": [prompt_id]}) in comfy.asked)
        comfy.pending = []

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW), **FAST, busy_s=0.5)
    assert result["code"] == "comfyui_busy"
    assert comfy.pending == []


async def test_a_cancel_does_not_wait_for_ever_on_a_node_that_cannot_be_interrupted() -> None:
    async with FakeComfy() as comfy, worker_for(comfy.url, stop_s=0.5) as worker:
        running = asyncio.create_task(worker.handle(job(WORKFLOW)))
        await until(lambda: comfy.prompts)
        await asyncio.sleep(0.05)
        cancelled_at = time.monotonic()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    told = [body for what, body in comfy.asked if what == "POST interrupt"]
    assert told[0] == {"prompt_id": comfy.prompts[0]["prompt_id"]}
    assert time.monotonic() - cancelled_at < 20


async def test_a_cancel_while_the_prompt_is_being_sent_leaves_nothing_behind() -> None:
    async with FakeComfy() as comfy, worker_for(comfy.url, stop_s=0.5) as worker:
        comfy.before_queued.clear()
        running = asyncio.create_task(worker.handle(job(WORKFLOW)))
        await until(lambda: comfy.prompts)
        running.cancel()
        await asyncio.sleep(0.1)
        comfy.before_queued.set()
        await asyncio.wait({running})
    assert ("POST interrupt", {"prompt_id": comfy.prompts[0]["prompt_id"]}) in comfy.asked


async def test_a_file_that_comfyui_has_lost_is_named_and_the_rest_is_kept() -> None:
    def image(name: str) -> dict[str, str]:
        return {"filename": name, "subfolder": "", "type": "output"}

    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.finish(prompt_id, {"2": {"images": [image("gone.png"), image("here.png")]}})

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert result["code"] == "output_missing"
    assert "'gone.png'" in result["error"]
    assert [asset["name"] for asset in result["assets"]] == ["here.png"]


async def test_a_defect_of_the_worker_is_an_answer_and_not_an_exception() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.history[prompt_id] = {"outputs": "not an object"}
        await comfy.say("executing", prompt_id, node=None)

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(WORKFLOW))
    assert result["code"] == "worker_error"
    assert ("POST history", {"delete": [comfy.prompts[0]["prompt_id"]]}) in comfy.asked


def shown_and_slow() -> dict[str, Any]:
    """A preview at once, a picture after a while, of what was uploaded."""
    workflow = chain(1, "StandinSleep", 1) | {"20": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    return workflow | {"21": {"class_type": "PreviewImage", "inputs": {"images": ["20", 0]}}}


@pytest.mark.parametrize(
    "defect",
    [
        *("worker.comfy.Comfy.submit", "worker.follow.Follow._step", "worker.follow.Follow.result"),
        *("worker.outputs.collect", "worker.outputs.fetch", "worker.answer.apart"),
    ],
)
async def test_after_a_defect_of_the_worker_nothing_of_the_job_is_left_in_comfyui(
    standin: Callable[..., Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, defect: str
) -> None:
    url, folder = standin().url, tmp_path / "own"
    sound = pkgutil.resolve_name(defect)

    async def late(*given: Any, **named: Any) -> Any:
        await sound(*given, **named)
        raise KeyError("a defect")

    def at_once(*_: Any, **__: Any) -> Any:
        raise KeyError("a defect")

    async with worker_for(url, comfyui_dir=str(folder)) as worker:
        with monkeypatch.context() as patched:
            patched.setattr(defect, late if inspect.iscoroutinefunction(sound) else at_once)
            result = await worker.handle(job(shown_and_slow(), files={"a.png": b64(png())}))
        assert result["code"] == "worker_error"
        assert worker.health.fault is None
        assert worker._listener._followers == []
        async with aiohttp.ClientSession() as session:
            for path, empty in (("history", {}), ("queue", {"queue_running": [], "queue_pending": []})):
                async with session.get(f"{url}/{path}") as answer:
                    assert await answer.json() == empty
        assert [path for kind in KINDS for path in (folder / kind).rglob("*")] == []
        assert len((await worker.handle(job(WORKFLOW)))["files"]) == 1
