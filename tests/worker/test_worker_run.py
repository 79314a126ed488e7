"""A job's run against a ComfyUI that is well."""

import asyncio
import base64
import io
import json
import struct
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from PIL import Image

from tests.worker.fakes import FakeComfy, b64, handled, image_workflow, job, load_workflow, png, until, worker_for
from worker import handler


def mid_graph_failure() -> dict[str, Any]:
    """Node 2 saves its image, then node 5 has too few pixels for its blur."""
    return {
        **image_workflow(61, size=16),
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
        "5": {
            "class_type": "ImageBlur",
            "inputs": {"image": ["4", 0], "blur_radius": 31, "sigma": 9.0},
            "_meta": {"title": "my last blur"},
        },
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }


class Relay:
    """Stands before ComfyUI and counts the connections that are opened to it, sockets as well."""

    def __init__(self, url: str) -> None:
        self.opened = 0
        self._to = urlsplit(url)

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._opened, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        back, on = await asyncio.open_connection(self._to.hostname, self._to.port)
        await asyncio.gather(_pass(reader, on), _pass(back, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def ask(comfyui: str, path: str, body: dict[str, Any] | None = None) -> Any:
    async with aiohttp.ClientSession() as session:
        request = session.get(comfyui + path) if body is None else session.post(comfyui + path, json=body)
        async with request as response:
            return await response.json() if response.content_type == "application/json" else await response.read()


async def runs(comfyui: str) -> list[str]:
    return [item[1] for item in (await ask(comfyui, "/queue"))["queue_running"]]


async def test_an_image_comes_back_as_base64_with_its_asset(comfyui: str) -> None:
    result = await handled(comfyui, job(image_workflow(11)))
    [text], [asset] = result["files"], result["assets"]
    image = base64.b64decode(text)
    assert Image.open(io.BytesIO(image)).size == (32, 32)
    assert (asset["node"], asset["kind"], asset["content_type"], asset["key"]) == ("2", "image", "image/png", None)
    assert asset["bytes"] == len(image)
    assert asset["name"].startswith("x_")


async def test_connections_to_comfyui_are_kept_from_prompt_to_prompt(comfyui: str) -> None:
    async with Relay(comfyui) as relay, worker_for(relay.url) as worker:
        await worker.handle(job(image_workflow(12)))
        opened = relay.opened
        for color in range(13, 17):
            await worker.handle(job(image_workflow(color)))
        assert relay.opened == opened


async def test_the_module_level_handler_needs_only_an_event_loop(comfyui: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("COMFYUI_URL", comfyui)
    result = await handler.handle(job(image_workflow(12)))
    await handler.close()
    assert len(result["files"]) == 1


async def test_a_workflow_may_be_json_text(comfyui: str) -> None:
    import json

    result = await handled(comfyui, job(json.dumps(image_workflow(13))))
    assert len(result["files"]) == 1


async def test_an_input_file_is_loaded_under_the_name_it_was_given(comfyui: str) -> None:
    files = [{"name": "refs/a photo.png", "data": b64(png("blue", 20))}]
    result = await handled(comfyui, job(load_workflow("refs/a photo.png [input]"), files=files))
    image = Image.open(io.BytesIO(base64.b64decode(result["files"][0])))
    assert (image.size, image.getpixel((0, 0))[:3]) == ((20, 20), (0, 0, 255))


async def test_two_jobs_with_the_same_file_name_see_their_own_file(comfyui: str) -> None:
    async with worker_for(comfyui) as worker:
        jobs = [job(load_workflow("a.png"), images={"a.png": b64(png(color))}) for color in ("red", "lime")]
        results = await asyncio.gather(*map(worker.handle, jobs))
    images = [Image.open(io.BytesIO(base64.b64decode(result["files"][0]))) for result in results]
    assert [image.getpixel((0, 0))[:3] for image in images] == [(255, 0, 0), (0, 255, 0)]


async def test_another_jobs_file_cannot_be_named(comfyui: str) -> None:
    async with worker_for(comfyui) as worker:
        await worker.handle(job(load_workflow("secret.png"), files={"secret.png": b64(png())}))
        result = await worker.handle(job(load_workflow("secret.png")))
    assert result["code"] == "workflow_rejected"


async def test_every_file_of_a_batch_comes_in_order(comfyui: str) -> None:
    workflow = image_workflow(14)
    workflow["1"]["inputs"]["batch_size"] = 3
    result = await handled(comfyui, job(workflow))
    names = [asset["name"] for asset in result["assets"]]
    assert len(names) == 3
    assert names == sorted(names)


async def test_text_goes_into_datas(comfyui: str) -> None:
    workflow = {"2": {"class_type": "PreviewAny", "inputs": {"source": "hello"}}}
    result = await handled(comfyui, job(workflow))
    assert result == {"files": [], "datas": {"2": {"text": ["hello"]}}, "assets": []}


async def test_previews_come_only_when_asked_for(comfyui: str) -> None:
    workflow = image_workflow(15)
    workflow["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    without = await handled(comfyui, job(workflow))
    with_them = await handled(comfyui, job(workflow, temp=True))
    assert (len(without["files"]), len(with_them["files"])) == (0, 1)


async def test_images_sent_over_the_socket_are_files_too(comfyui: str) -> None:
    workflow = image_workflow(16)
    workflow["1"]["inputs"]["batch_size"] = 2
    workflow["2"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}}
    result = await handled(comfyui, job(workflow))
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in result["files"]]
    assert [image.size for image in images] == [(32, 32)] * 2
    assert {asset["node"] for asset in result["assets"]} == {"2"}


async def test_what_an_expanded_node_sends_over_the_socket_is_taken_for_a_preview_and_said_to_be() -> None:
    """A node that ComfyUI itself adds is known by its number only."""

    async def play(comfy: FakeComfy, prompt_id: str) -> None:
        for node, kind in (("2.0.0.2", "png"), ("2.0.0.1", "jpeg")):
            about = json.dumps({"node_id": node, "prompt_id": prompt_id, "image_type": f"image/{kind}"}).encode()
            await comfy.sockets[-1].send_bytes(struct.pack(">II", 4, len(about)) + about + png())
        await comfy.finish(prompt_id, {"2": {"text": ["made"]}})

    async with FakeComfy(play) as comfy:
        result = await handled(comfy.url, job(image_workflow()))
    assert (result["files"], result["datas"]) == ([], {"2": {"text": ["made"]}})
    [said] = result["warnings"]
    assert "node 2.0.0.2, into which another one expanded" in said


async def test_a_failing_node_is_named_with_its_class_title_and_message(comfyui: str) -> None:
    result = await handled(comfyui, job(mid_graph_failure()))
    assert result["code"] == "node_failed"
    assert result["error"].startswith("Node 5 (ImageBlur “my last blur”): ")
    [entry] = result["nodes"]["5"]
    assert (entry["class_type"], entry["title"], entry["type"]) == ("ImageBlur", "my last blur", "RuntimeError")
    assert "Padding size should be less" in entry["message"]
    assert entry["message"] in result["error"]


async def test_what_was_made_before_a_failure_is_kept(comfyui: str) -> None:
    result = await handled(comfyui, job(mid_graph_failure()))
    assert "error" in result
    assert [asset["node"] for asset in result["assets"]] == ["2"]


async def test_a_rejected_workflow_names_node_class_and_value(comfyui: str) -> None:
    result = await handled(comfyui, job(image_workflow(17, size=99999)))
    assert result["code"] == "workflow_rejected"
    assert "Node 1 (EmptyImage): Value 99999 bigger than max of 16384: width" in result["error"]
    assert result["nodes"]["1"][0]["type"] == "value_bigger_than_max"
    assert "files" not in result


async def test_an_unknown_class_is_named_with_its_node(comfyui: str) -> None:
    workflow = image_workflow(18) | {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    result = await handled(comfyui, job(workflow))
    assert "NoSuchNode" in result["error"]
    assert list(result["nodes"]) == ["1"]


async def test_a_workflow_accepted_in_part_says_what_did_not_run(comfyui: str) -> None:
    bad = image_workflow(20, size=99999, prefix="t/bad")
    workflow = image_workflow(19) | {"3": bad["1"], "4": bad["2"]}
    workflow["4"]["inputs"]["images"] = ["3", 0]
    result = await handled(comfyui, job(workflow))
    assert len(result["files"]) == 1
    assert "error" not in result
    assert "Node 3 (EmptyImage)" in result["warnings"][0]


async def test_nothing_of_a_job_stays_in_comfyuis_history(comfyui: str) -> None:
    await handled(comfyui, job(image_workflow(21, prefix="t/forgotten-by-all")))
    assert "forgotten-by-all" not in str(await ask(comfyui, "/history"))


async def test_progress_grows_and_names_the_node(comfyui: str, slow: Any) -> None:
    told: list[tuple[dict[str, Any], dict[str, Any]]] = []
    async with worker_for(comfyui, progress=lambda job, progress: told.append((job, progress))) as worker:
        running = asyncio.create_task(worker.handle(job(slow(22), id="j-9")))
        await until(lambda: len(told) > 1)
        running.cancel()
        await asyncio.wait({running})
    assert told[0][0] == {"id": "j-9"}
    assert {progress["class_type"] for _, progress in told} == {slow(0)["10"]["class_type"]}
    assert 0 < told[0][1]["fraction"] <= told[1][1]["fraction"] < 1
    assert told[0][1]["nodes_total"] == 10


async def test_a_cancelled_job_frees_comfyui_and_leaves_others_alone(comfyui: str, slow: Any) -> None:
    before = set(await ask(comfyui, "/history"))
    async with worker_for(comfyui) as worker:
        running = asyncio.create_task(worker.handle(job(slow(23))))
        while not await runs(comfyui):
            await asyncio.sleep(0.02)
        await ask(comfyui, "/prompt", {"prompt": image_workflow(24), "prompt_id": "not-ours", "client_id": "x"})
        running.cancel()
        running.cancel()
        await asyncio.wait({running})
        while not await ask(comfyui, "/history/not-ours"):
            await asyncio.sleep(0.02)
    assert running.cancelled()
    assert await runs(comfyui) == []
    assert (await ask(comfyui, "/history/not-ours"))["not-ours"]["status"]["status_str"] == "success"
    assert set(await ask(comfyui, "/history")) - before == {"not-ours"}
    await ask(comfyui, "/history", {"delete": ["not-ours"]})


async def test_a_job_that_is_cancelled_again_and_again_still_cleans_up(comfyui: str, slow: Any) -> None:
    async with worker_for(comfyui) as worker:
        running = asyncio.create_task(worker.handle(job(slow(25))))
        while not await runs(comfyui):
            await asyncio.sleep(0.02)
        while not running.done():
            running.cancel()
            await asyncio.sleep(0.005)
    assert await runs(comfyui) == []


async def test_a_cancelled_job_that_waits_behind_another_prompt_is_taken_out_of_the_queue(
    comfyui: str, slow: Any
) -> None:
    await ask(comfyui, "/prompt", {"prompt": slow(26), "prompt_id": "not-ours", "client_id": "x"})
    async with worker_for(comfyui) as worker:
        waiting = asyncio.create_task(worker.handle(job(image_workflow(27))))
        while not (await ask(comfyui, "/queue"))["queue_pending"]:
            await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert (await ask(comfyui, "/queue"))["queue_pending"] == []
    assert await runs(comfyui) == ["not-ours"]
    await ask(comfyui, "/interrupt", {})
    while await runs(comfyui):
        await asyncio.sleep(0.02)
    await ask(comfyui, "/history", {"delete": ["not-ours"]})


async def test_an_interrupt_by_somebody_else_is_told_as_such(comfyui: str, slow: Any) -> None:
    async with worker_for(comfyui) as worker:
        running = asyncio.create_task(worker.handle(job(slow(28))))
        while not await runs(comfyui):
            await asyncio.sleep(0.02)
        await ask(comfyui, "/interrupt", {})
        result = await running
    assert result["code"] == "interrupted"
    assert slow(0)["10"]["class_type"] in result["error"]


async def test_one_prompt_runs_at_a_time_and_in_order(comfyui: str) -> None:
    async with worker_for(comfyui) as worker:
        jobs = [job(image_workflow(30 + number), id=str(number)) for number in range(5)]
        done: list[str] = []
        tasks = [asyncio.create_task(worker.handle(given)) for given in jobs]
        for given, task in zip(jobs, tasks, strict=True):
            task.add_done_callback(lambda _, id=given["id"]: done.append(id))
        seen = [len(await runs(comfyui)) async for _ in _while_any(tasks)]
    assert max(seen, default=0) <= 1
    assert sorted(done) == ["0", "1", "2", "3", "4"]


async def _while_any(tasks: list[asyncio.Task[Any]]) -> Any:
    while not all(task.done() for task in tasks):
        yield
        await asyncio.sleep(0)
