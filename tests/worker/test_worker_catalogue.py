"""The worker tells Hearth which nodes its ComfyUI has, before it takes a job and when they have changed."""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest
from aiohttp import web

from tests.worker.fakes import FakeComfy, Process, free_port, png, until
from tests.worker.test_worker_process import Fleet, World, worker_process
from worker.catalogue import Catalogue, normal
from worker.settings import Settings
from worker.wire import takes_files

SHA = hashlib.sha256


def loader(*models: str, **options: Any) -> dict[str, Any]:
    inputs = {"required": {"ckpt_name": [list(models), {"tooltip": "Which.", **options}]}}
    return {"input": inputs, "output": ["MODEL"], "output_node": False, "python_module": "nodes", "description": "…"}


class Nodes(FakeComfy):
    """A ComfyUI whose nodes the test changes; `busy`: prompts in its queue; `looks`: how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: dict[str, Any] = {"Loader": loader("a.safetensors")}
        self.busy, self.looks, self.status = 0, 0, 200
        self.app.add_routes([web.get("/object_info", self._object_info), web.get("/prompt", self._remaining)])

    async def _object_info(self, request: web.Request) -> web.Response:
        self.looks += 1
        return web.json_response(self.classes, status=self.status)

    async def _remaining(self, request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self.busy}})


class Keeper(Fleet):
    """A Hearth that keeps catalogues: `told`: (takes before, hash) of each call that it answered with 200."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}
        self.told: list[tuple[int, str]] = []
        self.refuses: list[int] = []
        url = "/v2/ep/catalogue/{worker}"
        self.app.add_routes([web.post(url, self._offer), web.put(url, self._keep)])

    async def _offer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer hwk_secret"
        if self.refuses:
            return web.Response(status=self.refuses.pop(0))
        sha256 = (await request.json())["sha256"]
        if sha256 not in self.kept:
            return web.Response(status=409)
        return self._tell(sha256)

    async def _keep(self, request: web.Request) -> web.Response:
        body = gzip.decompress(await request.read())
        sha256 = SHA(body).hexdigest()
        self.kept[sha256] = json.loads(body)
        return self._tell(sha256)

    def _tell(self, sha256: str) -> web.Response:
        self.told.append((self.takes, sha256))
        return web.json_response({})

    @property
    def last(self) -> Any:
        return self.kept[self.told[-1][1]]


def catalogue(comfy: str, fleet: Keeper, **settings: Any) -> Catalogue:
    env = {"RUNPOD_WEBHOOK_GET_JOB": f"{fleet.url}/v2/ep/job-take/$ID?hearth=1", "RUNPOD_AI_API_KEY": "hwk_secret"}
    read = Settings(comfyui_url=comfy, worker_name="gpu", **settings)
    made = Catalogue.of(env | {"RUNPOD_POD_ID": "gpu 1/x"}, read)
    assert made
    return made


async def test_hearth_is_told_before_the_first_job_is_taken(tmp_path: Path) -> None:
    async with Nodes() as comfy, Keeper() as fleet:
        env = fleet.environment(comfy.url)
        async with worker_process(env, tmp_path / "log") as process:
            await until(lambda: fleet.takes)
            assert World(comfy, fleet, process, tmp_path / "log").said().count("node catalogue") == 1
    assert [takes for takes, _ in fleet.told] == [0]
    assert fleet.last["Loader"]["input"]["required"]["ckpt_name"] == [["a.safetensors"], {}]


async def test_an_idle_worker_looks_again_and_tells_what_has_changed() -> None:
    async with Nodes() as comfy, Keeper() as fleet:
        await catalogue(comfy.url, fleet, catalogue_s=0.05).posted()
        comfy.classes["Loader"] = loader("a.safetensors", "b.safetensors")
        await until(lambda: len(fleet.kept) == 2)
    assert fleet.last["Loader"]["input"]["required"]["ckpt_name"][0] == ["a.safetensors", "b.safetensors"]


async def test_while_comfyui_works_it_is_asked_seldom() -> None:
    async with Nodes() as comfy, Keeper() as fleet:
        comfy.busy = 1
        told = catalogue(comfy.url, fleet, catalogue_s=0.2)
        await told.posted()
        begun = asyncio.get_running_loop().time()
        await until(lambda: comfy.looks > 1)
    assert asyncio.get_running_loop().time() - begun >= 5 * 0.2


async def test_it_waits_for_comfyui_to_come_up(standin: Callable[..., Process]) -> None:
    port = free_port()
    async with Keeper() as fleet:
        telling = asyncio.ensure_future(catalogue(f"http://127.0.0.1:{port}", fleet).posted())
        await asyncio.sleep(0)
        assert not fleet.told
        await asyncio.to_thread(standin, port)
        await telling
    assert "SaveImage" in fleet.last


@pytest.mark.parametrize("status", [404, 401, 413])
async def test_a_hearth_that_has_no_place_for_it_keeps_no_job_from_the_worker(status: int) -> None:
    async with Nodes() as comfy, Keeper() as fleet:
        fleet.refuses = [status]
        await catalogue(comfy.url, fleet).posted()
    assert (fleet.told, comfy.looks) == ([], 1)


async def test_a_hearth_that_is_away_is_asked_again_and_then_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.catalogue.PAUSE_S", 0.01)
    async with Nodes() as comfy, Keeper() as fleet:
        fleet.refuses = [503, 502]
        await catalogue(comfy.url, fleet).posted()
        assert len(fleet.told) == 1
        fleet.refuses = [503] * 3
        await catalogue(comfy.url, fleet).posted()
        assert len(fleet.told) == 1


async def test_a_comfyui_that_tells_nothing_keeps_no_job_from_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.catalogue.PAUSE_S", 0.01)
    async with Nodes() as comfy, Keeper() as fleet:
        comfy.status = 500
        await catalogue(comfy.url, fleet).posted()
        comfy.status, comfy.classes = 200, ["odd"]  # type: ignore[assignment]
        await catalogue(comfy.url, fleet).posted()
        await catalogue(f"http://127.0.0.1:{free_port()}", fleet, start_s=0.1).posted()
    assert fleet.told == []


async def test_a_poll_that_is_given_up_does_not_begin_it_anew() -> None:
    async with Nodes() as comfy, Keeper() as fleet:
        told = catalogue(comfy.url, fleet)
        poll = asyncio.ensure_future(told.posted())
        await asyncio.sleep(0)
        poll.cancel()
        await told.posted()
    assert (comfy.looks, len(fleet.told)) == (1, 1)


@pytest.mark.parametrize("env", [{}, {"RUNPOD_WEBHOOK_GET_JOB": "https://api.runpod.ai/v2/ep/other"}])
def test_a_worker_that_is_not_hearths_tells_nobody(env: dict[str, str]) -> None:
    assert Catalogue.of(env, Settings(worker_name="gpu")) is None
    take = {"RUNPOD_WEBHOOK_GET_JOB": "https://api.runpod.ai/v2/ep/job-take/$ID", "RUNPOD_POD_ID": "x"}
    assert Catalogue.of(take, Settings()) is None


def changed(module: str = "nodes", **inputs: Any) -> dict[str, Any]:
    classes = {"X": {"input": {"required": inputs}, "output": ["IMAGE"], "python_module": module}}
    told: dict[str, Any] = json.loads(normal(json.dumps(classes).encode()))["X"]["input"]["required"]
    return told


def test_what_has_no_meaning_for_a_check_is_left_out() -> None:
    options = {"min": 0, "max": float("inf"), "default": 5, "tooltip": "…", "multiselect": False, "step": 1}
    assert changed(n=["INT", options], c=[["a"], {"multiselect": True}]) == {
        "n": ["INT", {"min": 0}],
        "c": [["a"], {"multiselect": True}],
    }
    assert changed(odd={"a": 1}, odder=[], oddest=[[{"a": 1}]]) == {"odd": [], "odder": [], "oddest": ["COMBO", {}]}


def test_names_of_files_that_jobs_left_in_comfyui_are_not_told() -> None:
    files = ["acme secret.png", "acme.safetensors"]
    told = changed(
        image=[files, {"image_upload": True}],
        again=[["acme.safetensors", "installed.safetensors"]],
        v3=["COMBO", {"options": files, "video_upload": True}],
        model=[["installed.safetensors"]],
    )
    assert "acme" not in json.dumps(told)
    assert told["model"][0] == ["installed.safetensors"]
    assert changed("custom_nodes.pack", folder=[["hearth-1", "hearth-2"]]) == {"folder": ["COMBO", {}]}
    latent = {"LoadLatent": {"input": {"required": {"latent": [["acme.latent"]]}}, "python_module": "nodes"}}
    assert b"acme" not in normal(json.dumps(latent).encode())


def test_which_inputs_take_an_uploaded_file_is_told(comfyui: str) -> None:
    """Hearth finds by it where in a workflow s3:// and URLs are files."""
    with urlopen(f"{comfyui}/object_info") as answer:
        raw = answer.read()
    assert files_taken(json.loads(raw)) == files_taken(json.loads(normal(raw)))
    assert "LoadImage.image" in files_taken(json.loads(normal(raw)))


def files_taken(classes: dict[str, Any]) -> set[str]:
    inputs = [
        (name, key, config[1] if len(config) > 1 else {})
        for name, info in classes.items()
        for category in ("required", "optional")
        for key, config in info["input"].get(category, {}).items()
    ]
    return {f"{name}.{key}" for name, key, options in inputs if takes_files(name, key, options)}


async def test_a_file_in_comfyuis_input_folder_does_not_change_it(comfyui: str) -> None:
    before = await asyncio.to_thread(object_info, comfyui)
    async with asyncio.timeout(10):
        await asyncio.to_thread(upload, comfyui)
    after = await asyncio.to_thread(object_info, comfyui)
    assert before != after
    assert normal(before) == normal(after)


def object_info(url: str) -> bytes:
    with urlopen(f"{url}/object_info") as answer:
        body: bytes = answer.read()
        return body


def upload(url: str) -> None:
    name = f"{SHA(png()).hexdigest()[:8]}-{free_port()}.png"
    httpx.post(f"{url}/upload/image", files={"image": (name, png())}).raise_for_status()
