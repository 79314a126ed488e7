"""One socket for the worker's life, and the turn that passes from prompt to prompt."""

import asyncio
import contextlib
from typing import Any

from tests.worker.fakes import FakeComfy, FakeHearth, image_workflow, job, until, worker_for

WORKFLOW = image_workflow()


async def test_prompts_share_one_socket_and_one_client_id() -> None:
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id)) as comfy, worker_for(comfy.url) as worker:
        for _ in range(3):
            await worker.handle(job(WORKFLOW))
    assert len(comfy.sockets) == 1
    assert {prompt["client_id"] for prompt in comfy.prompts} == set(comfy.clients)


async def test_a_socket_that_dropped_between_two_prompts_is_replaced_under_a_new_id() -> None:
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id)) as comfy, worker_for(comfy.url) as worker:
        await worker.handle(job(WORKFLOW))
        comfy.asked.clear()
        await comfy.sockets[0].close()
        await until(lambda: ("queue", None) in comfy.asked)
        assert "error" not in await worker.handle(job(WORKFLOW))
        assert worker.health.fault is None
    assert len(set(comfy.clients)) == 2
    assert comfy.prompts[1]["client_id"] == comfy.clients[1]


async def test_after_a_drop_in_a_run_the_next_prompt_does_not_trust_the_reopened_socket() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        if len(comfy.prompts) == 1:
            await comfy.sockets[-1].close()
            await until(lambda: len(comfy.sockets) == 2)
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy, worker_for(comfy.url) as worker:
        for _ in range(3):
            await worker.handle(job(WORKFLOW))
    assert [comfy.clients.index(prompt["client_id"]) for prompt in comfy.prompts] == [0, 2, 2]


async def test_what_comfyui_says_while_nobody_follows_is_read_away() -> None:
    """Else ComfyUI would wait for us once the buffers are full, and with it everybody else."""
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id)) as comfy, worker_for(comfy.url) as worker:
        await worker.handle(job(WORKFLOW))
        async with asyncio.timeout(20):
            for _ in range(400):
                await comfy.say("progress", "another-prompt", filling="x" * 100_000)


async def test_a_message_that_is_no_json_does_not_end_the_listening() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.sockets[-1].send_str("{")
        await comfy.sockets[-1].send_str("[7]")
        await comfy.sockets[-1].send_bytes(b"\0\0\0\4\0\0\0\3{{{")
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy, worker_for(comfy.url, silence_s=50) as worker, asyncio.timeout(5):
        assert "error" not in await worker.handle(job(WORKFLOW))


async def test_the_turn_passes_on_when_comfyui_says_success_before_it_writes_the_history() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("execution_success", prompt_id)
        await until(lambda: len(comfy.prompts) == 2)
        comfy.succeed(prompt_id)

    async with FakeComfy(play) as comfy, worker_for(comfy.url) as worker:
        results = await asyncio.gather(worker.handle(job(WORKFLOW)), worker.handle(job(WORKFLOW)))
    assert all("error" not in result for result in results)


async def test_between_two_prompts_only_started_is_said() -> None:
    """What else has to be asked is asked before or after."""
    asked: list[list[Any]] = []

    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        asked.append(list(comfy.asked) + list(hearth.verbs()))
        await until(lambda: len(worker_tasks) == 2)
        comfy.asked.clear()
        hearth.calls.clear()
        await comfy.say("execution_success", prompt_id)
        await until(lambda: len(comfy.prompts) == 2)
        comfy.succeed(prompt_id)

    worker_tasks: list[asyncio.Task[Any]] = []
    async with FakeComfy(play) as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        for _ in range(2):
            worker_tasks.append(asyncio.create_task(worker.handle(job(WORKFLOW, _hearth=hearth.field))))
        await asyncio.gather(*worker_tasks)
    assert asked[1] == ["started"]


async def test_a_failed_run_keeps_the_turn_until_it_is_known_why() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("execution_error", prompt_id, node_id="1", exception_type="X", exception_message="m")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await until(lambda: len(comfy.prompts) == 2)
        seen.append(len(comfy.prompts))
        comfy.succeed(prompt_id)

    seen: list[int] = []
    async with FakeComfy(play) as comfy, worker_for(comfy.url) as worker:
        await asyncio.gather(worker.handle(job(WORKFLOW)), worker.handle(job(WORKFLOW)))
    assert seen[0] == 1
