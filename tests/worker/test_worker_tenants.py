"""Two tenants on one worker and one ComfyUI: nothing of acme is left for globex, whatever globex knows.

With COMFYUI_URL and COMFYUI_DIR the ComfyUI is that one, which nobody else may use meanwhile."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.standin.pictures import tone
from tests.worker.fakes import Process, b64, chain, image_workflow, job, png, until, worker_for
from worker.handler import Worker
from worker.traces import KINDS

SECRET = "acme-secret"
FILES = {f"{SECRET}.png": b64(png("red", 24)), f"{SECRET}/tone.wav": b64(tone())}


@dataclass
class Shared:
    url: str
    folder: Path
    slow_class: str
    found: set[str] = field(default_factory=set)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for kind in KINDS for path in (self.folder / kind).rglob("*")}

    def told(self, path: str) -> str:
        with urlopen(self.url + path) as answer:
            return str(answer.read().decode())


@pytest.fixture
def shared(standin: Callable[..., Process], tmp_path: Path) -> Iterator[Shared]:
    if "COMFYUI_URL" in os.environ and "COMFYUI_DIR" in os.environ:
        yield Shared(os.environ["COMFYUI_URL"].rstrip("/"), Path(os.environ["COMFYUI_DIR"]), "ImageBlur")
    else:
        yield Shared(standin().url, tmp_path / "own", "StandinSleep")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def pictures() -> dict[str, Any]:
    return {
        "1": node("LoadImage", image=f"{SECRET}.png"),
        "2": node("SaveImage", images=["1", 0], filename_prefix=f"{SECRET}/a"),
        "3": node("PreviewImage", images=["1", 0]),
        "4": node("PrimitiveString", value=f"{SECRET}/made/b"),
        "5": node("SaveImage", images=["1", 0], filename_prefix=["4", 0]),
        "6": node("PreviewAny", source=SECRET),
    }


def sounds() -> dict[str, Any]:
    return {
        "1": node("LoadAudio", audio=f"{SECRET}/tone.wav"),
        "2": node("SaveAudio", audio=["1", 0], filename_prefix=f"audio/{SECRET}"),
        "3": node("PreviewAudio", audio=["1", 0]),
    }


def film() -> dict[str, Any]:
    empty = image_workflow(7)["1"]
    empty["inputs"]["batch_size"] = 4
    webm = node("SaveWEBM", images=["1", 0], filename_prefix=SECRET, codec="vp9", fps=8.0, crf=32.0)
    saved = node("SaveVideo", video=["2", 0], filename_prefix=SECRET, format="auto", codec="auto")
    return {"1": empty, "2": node("CreateVideo", images=["1", 0], fps=8.0), "3": saved, "4": webm}


def models() -> dict[str, Any]:
    """Nodes that tell nobody what they saved, at a place where ComfyUI looks for models."""
    workflow = {"1": node("VAELoader", vae_name="pixel_space"), "2": node("PrimitiveString", value=f"vae/{SECRET}")}
    workflow["3"] = node("VAESave", vae=["1", 0], filename_prefix=f"vae/{SECRET}")
    return workflow | {"4": node("VAESave", vae=["1", 0], filename_prefix=["2", 0])}


def failing() -> dict[str, Any]:
    more = {"8": node("ImageBlur", image=["1", 0], blur_radius=31, sigma=9.0)}
    return pictures() | more | {"9": node("PreviewImage", images=["8", 0])}


def cancelled(slow_class: str) -> dict[str, Any]:
    """Shows and saves at once, then goes on for a while."""
    workflow = chain(3, slow_class, length=12)
    workflow["2"]["inputs"]["filename_prefix"] = f"{SECRET}/late"
    return workflow | {"3": node("PreviewImage", images=["1", 0])}


async def cancel_once_it_shows(worker: Worker, shared: Shared) -> None:
    before = shared.files()
    running = asyncio.create_task(worker.handle(job(cancelled(shared.slow_class), files=FILES)))
    await until(lambda: any(path.startswith("temp/") for path in shared.files() - before))
    shared.found |= shared.files()
    running.cancel()
    await asyncio.wait([running])


async def of_acme(worker: Worker, shared: Shared) -> list[dict[str, Any]]:
    async def watched() -> None:
        while True:
            shared.found |= shared.files()
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watched())
    jobs = (pictures(), sounds(), film(), models(), failing())
    results = await asyncio.gather(*(worker.handle(job(workflow, files=FILES, temp=True)) for workflow in jobs))
    await cancel_once_it_shows(worker, shared)
    watching.cancel()
    return list(results)


async def test_nothing_of_a_tenant_is_left_on_disk_in_history_or_queue(shared: Shared) -> None:
    before = shared.files()
    async with worker_for(shared.url, comfyui_dir=str(shared.folder)) as worker:
        results = await of_acme(worker, shared)
    assert [result.get("code") for result in results] == [None, None, None, None, "node_failed"]
    assert [len(result["assets"]) for result in results[:4]] == [3, 2, 2, 2]
    assert len(shared.found - before) > 10, "nothing was ever there, so this has not looked"
    assert shared.files() - before == set()
    assert SECRET not in shared.told("/history")
    assert SECRET not in shared.told("/object_info")
    assert json.loads(shared.told("/queue")) == {"queue_running": [], "queue_pending": []}


LOADERS = (
    *(("LoadImage", "image"), ("LoadImageOutput", "image"), ("LoadAudio", "audio"), ("LoadVideo", "file")),
    ("VAELoader", "vae_name"),
)


def names_known(results: list[dict[str, Any]], seen: set[str]) -> set[str]:
    """What acme's answers say, and what it sent; and, worse, what somebody saw on the disk meanwhile."""
    said = [asset for result in results for asset in result["assets"]]
    names = {*FILES, *(f"{asset['subfolder']}/{asset['name']}".strip("/") for asset in said)}
    names |= {path.split("/", 1)[1] for path in seen if "hearth-" in path and "." in path}
    return names


async def test_another_tenant_reaches_none_of_it_by_any_name(shared: Shared) -> None:
    """While all of it is there: this worker cannot delete files."""
    before = shared.files()
    async with worker_for(shared.url) as worker:
        names = names_known(await of_acme(worker, shared), shared.found)
        there = {name for name in names for kind in KINDS if (shared.folder / kind / name).is_file()}
        assert len(there) > 10, "nothing is there, so nothing is protected"
        ways = [form.format(name) for name in names for form in ("{}", "{} [output]", "{} [temp]", "../output/{}")]
        for way in [*ways, *({"__value__": way} for way in ways)]:
            loads = {str(place): node(kind, **{given: way}) for place, (kind, given) in enumerate(LOADERS)}
            for place, load in loads.items():
                result = await worker.handle(job({"5": load, "6": node("PreviewAny", source=["5", 0])}))
                assert result["code"] in ("bad_input", "workflow_rejected"), (way, place)
                assert "files" not in result
    for path in shared.files() - before:
        (shared.folder / path).unlink() if (shared.folder / path).is_file() else None


async def test_another_tenants_equal_workflow_gets_files_of_its_own(shared: Shared) -> None:
    async with worker_for(shared.url, comfyui_dir=str(shared.folder)) as worker:
        acme = await worker.handle(job(pictures(), files=FILES, temp=True))
        theirs = FILES | {f"{SECRET}.png": b64(png("lime", 24))}
        globex = await worker.handle(job(pictures(), files=theirs, temp=True))
    assert [asset["name"] for asset in globex["assets"]][:1] == [asset["name"] for asset in acme["assets"]][:1]
    assert {asset["sha256"] for asset in acme["assets"]} & {asset["sha256"] for asset in globex["assets"]} == set()
