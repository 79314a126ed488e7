"""What goes to Hearth while a prompt runs: files of nodes that are done, and previews; the run waits for neither."""

import asyncio
import base64
import json
import struct
import time
from typing import Any

import pytest

from tests.worker.fakes import FakeComfy, FakeHearth, chain, image_workflow, job, png, until, worker_for
from worker import beside
from worker import hearth as hearth_client
from worker.wire import PREVIEW_BYTES

WORKFLOW = image_workflow() | {"3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b"}}}
SAMPLER = image_workflow() | {"3": {"class_type": "KSampler", "inputs": {"steps": 20}}}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "AHEAD_S", 0.02)
    monkeypatch.setattr(beside, "PREVIEW_EVERY_S", 0.1)


def images(*names: str) -> dict[str, Any]:
    return {"images": [{"filename": name, "subfolder": "", "type": "output"} for name in names]}


async def executed(comfy: FakeComfy, prompt_id: str, node: str, output: Any) -> None:
    await comfy.say("executed", prompt_id, node=node, display_node=node, output=output)


async def run(comfy: FakeComfy, hearth: FakeHearth, workflow: Any = WORKFLOW, **given: Any) -> Any:
    async with worker_for(comfy.url, hearth_retry_s=1.0) as worker:
        return await worker.handle(job(workflow, _hearth=hearth.field, **given))


def put(hearth: FakeHearth) -> list[str]:
    return [path.partition("?")[0].rpartition("-")[2] for path, _, _ in hearth.puts]


async def test_a_file_is_stored_and_told_while_others_are_made_and_not_sent_twice() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("early.png"))
        await until(lambda: "outputs" in hearth.verbs())
        await comfy.finish(prompt_id, {"3": images("late.png"), "2": images("early.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth)
    assert put(hearth) == ["early.png", "late.png"]
    assert [(asset["node"], asset["name"]) for asset in result["assets"]] == [("2", "early.png"), ("3", "late.png")]
    [told] = [body["assets"] for verb, body in hearth.calls if verb == "outputs"]
    assert told == result["assets"][:1]
    assert result["files"] == [asset["key"] for asset in result["assets"]]


async def test_a_short_run_stores_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png"))
        await comfy.finish(prompt_id, {"2": images("a.png")})

    monkeypatch.setattr(beside, "AHEAD_S", 60)
    begun = time.monotonic()
    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        await run(comfy, hearth)
    assert hearth.verbs() == ["started", "uploads", "stored"]
    assert time.monotonic() - begun < 30


async def test_what_could_not_be_stored_ahead_is_stored_at_the_end() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png", "gone.png"))
        await until(lambda: not hearth.statuses["put"])
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        hearth.statuses["put"] = [400]
        result = await run(comfy, hearth)
    assert ("error" in result, put(hearth)) == (False, ["a.png"])
    assert "outputs" not in hearth.verbs()


async def test_a_file_that_its_node_wrote_again_is_sent_as_it_is_at_the_end() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        comfy.content = b"first"
        await executed(comfy, prompt_id, "2", images("a.png"))
        await until(lambda: hearth.puts)
        comfy.content = b"second"
        await executed(comfy, prompt_id, "2", images("a.png"))
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth)
    assert [body for _, _, body in hearth.puts] == [b"first", b"second"]
    assert [asset["bytes"] for asset in result["assets"]] == [6]


@pytest.mark.parametrize(
    "output", [None, {}, {"text": ["no file"]}, {"images": [{"filename": "p.png", "type": "temp"}]}]
)
async def test_what_is_no_output_file_is_not_sent(output: Any) -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", output)
        await asyncio.sleep(0.1)
        await comfy.finish(prompt_id, {"2": output or {}})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        assert (await run(comfy, hearth))["files"] == []
    assert hearth.verbs() == ["started"]


async def test_files_that_go_into_the_answer_are_not_sent_ahead() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png"))
        await asyncio.sleep(0.1)
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth, tobase64=True)
    assert (hearth.verbs(), base64.b64decode(result["files"][0])) == (["started"], b"bytes of a.png")


async def test_a_hearth_that_is_not_told_delays_nothing() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png"))
        await until(lambda: "outputs" in hearth.verbs())
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        hearth.statuses["outputs"] = [503]
        result = await run(comfy, hearth)
    assert [asset["name"] for asset in result["assets"]] == ["a.png"]
    assert hearth.verbs().count("outputs") == 1


async def test_a_hearth_that_hangs_delays_nothing() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png"))
        await comfy.sockets[-1].send_bytes(with_metadata(b"x", prompt_id))
        await until(lambda: {"outputs", "preview"} <= set(hearth.verbs()))
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        hearth.hangs = "outputs", "preview"
        async with asyncio.timeout(hearth_client.CALL_S - 5):
            result = await run(comfy, hearth, SAMPLER, preview=True)
    assert [asset["name"] for asset in result["assets"]] == ["a.png"]


async def test_the_next_job_runs_while_a_file_is_still_stored_ahead() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        if len(comfy.prompts) == 1:
            await executed(comfy, prompt_id, "2", images("a.png"))
            await until(lambda: "uploads" in hearth.verbs())
        await comfy.finish(prompt_id, {"2": images("a.png")})

    there = asyncio.Event()
    async with FakeComfy(play) as comfy, FakeHearth() as hearth, worker_for(comfy.url) as worker:
        hearth.before_put = there.wait
        given = [job(WORKFLOW, id, _hearth=hearth.field) for id in ("job-1", "job-2")]
        both = [asyncio.create_task(worker.handle(each)) for each in given]
        await until(lambda: len(comfy.history) == 2)
        assert not any(each.done() for each in both)
        there.set()
        results = await asyncio.gather(*both)
    assert [len(result["files"]) for result in results] == [1, 1]
    assert put(hearth) == ["a.png"] * 2


async def test_a_job_that_is_stopped_leaves_nothing_under_way() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await executed(comfy, prompt_id, "2", images("a.png"))

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        hearth.before_put = lambda: asyncio.sleep(60)
        async with worker_for(comfy.url, hearth_retry_s=1.0, stop_s=0.1) as worker:
            running = asyncio.create_task(worker.handle(job(WORKFLOW, _hearth=hearth.field)))
            await until(lambda: "uploads" in hearth.verbs())
            running.cancel()
            await asyncio.wait({running})
            await asyncio.sleep(0)
            left = [task for task in asyncio.all_tasks() if "beside" in repr(task.get_coro())]
    assert (running.cancelled(), left) == (True, [])


def typed(data: bytes, kind: int = 1) -> bytes:
    return struct.pack(">II", 1, kind) + data


def with_metadata(data: bytes, prompt_id: str, node: str = "3", image_type: str = "image/jpeg") -> bytes:
    about = json.dumps({"node_id": node, "prompt_id": prompt_id, "image_type": image_type}).encode()
    return struct.pack(">II", 4, len(about)) + about + data


def shown(hearth: FakeHearth) -> list[tuple[str, str, bytes]]:
    bodies = [body for verb, body in hearth.calls if verb == "preview"]
    return [(body["node"], body["content_type"], base64.b64decode(body["data"])) for body in bodies]


async def test_previews_are_sent_if_the_job_asks_the_newest_only() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("executing", prompt_id, node="3")
        for n in range(50):
            await comfy.sockets[-1].send_bytes(with_metadata(b"%d" % n, prompt_id))
            await asyncio.sleep(0.005)
        await until(lambda: b"49" in [data for _, _, data in shown(hearth)])
        await comfy.sockets[-1].send_bytes(typed(b"\x89PNG", 2))
        await until(lambda: shown(hearth)[-1] == ("3", "image/png", b"\x89PNG"))
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        result = await run(comfy, hearth, SAMPLER, preview=True)
    assert 2 < len(shown(hearth)) < 12
    assert shown(hearth)[0] == ("3", "image/jpeg", b"0")
    assert result["files"] == []
    assert comfy.prompts[0]["extra_data"] == {"preview_method": "auto"}


@pytest.mark.parametrize("given", [{}, {"preview": False}])
async def test_nobody_who_did_not_ask_gets_previews(given: dict[str, Any]) -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("executing", prompt_id, node="3")
        await comfy.sockets[-1].send_bytes(with_metadata(b"x", prompt_id))
        await asyncio.sleep(0.1)
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        await run(comfy, hearth, SAMPLER, **given)
    assert (hearth.verbs(), "extra_data" in comfy.prompts[0]) == (["started"], False)


@pytest.mark.parametrize("status", [409, 503])
async def test_a_preview_that_did_not_arrive_delays_nothing_and_the_next_goes(status: int) -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("executing", prompt_id, node="3")
        for n in range(2):
            await comfy.sockets[-1].send_bytes(with_metadata(b"%d" % n, prompt_id))
            await until(lambda n=n: len(shown(hearth)) > n)
        await comfy.finish(prompt_id, {"2": images("a.png")})

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        hearth.statuses["preview"] = [status]
        result = await run(comfy, hearth, SAMPLER, preview=True)
    assert [data for _, _, data in shown(hearth)] == [b"0", b"1"]
    assert len(result["files"]) == 1


async def test_pictures_too_large_or_of_another_prompt_are_not_sent() -> None:
    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        await comfy.say("executing", prompt_id, node="3")
        await comfy.sockets[-1].send_bytes(with_metadata(b"x" * (PREVIEW_BYTES + 1), prompt_id))
        await comfy.sockets[-1].send_bytes(with_metadata(b"other", "another-prompt"))
        await comfy.sockets[-1].send_bytes(with_metadata(b"mine", prompt_id))
        await until(lambda: shown(hearth))
        await comfy.finish(prompt_id)

    async with FakeComfy(play) as comfy, FakeHearth() as hearth:
        await run(comfy, hearth, SAMPLER, preview=True)
    assert [data for _, _, data in shown(hearth)] == [b"mine"]


async def test_comfyuis_own_order_of_messages_stores_ahead_and_shows(comfyui: str, slow: Any) -> None:
    """On the real thing: one picture is saved, then some slow nodes run before the other."""
    workflow = slow(41)
    saved = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t/early"}}
    async with FakeHearth() as hearth, worker_for(comfyui) as worker:
        given = job({"0": saved, **workflow}, _hearth=hearth.field, preview=True)
        result = await worker.handle(given)
    assert "error" not in result, result
    told = [asset for verb, body in hearth.calls if verb == "outputs" for asset in body["assets"]]
    assert [asset["node"] for asset in result["assets"]] == ["0", "2"]
    assert told in ([result["assets"][0]], [])  # ComfyUI chooses which output it makes first
    assert len([path for path, _, _ in hearth.puts if ".preview.webp" not in path]) == 2
    assert chain(41, "StandinSleep") != workflow or shown(hearth)


async def test_previews_of_a_real_node_are_pictures(standin: Any) -> None:
    process = standin()
    async with FakeHearth() as hearth, worker_for(process.url) as worker:
        await worker.handle(job(chain(42, "StandinSleep", 2), _hearth=hearth.field, preview=True))
    assert {(kind, data[:8]) for _, kind, data in shown(hearth)} == {("image/png", png()[:8])}
