"""A worker is killed with -9: the next one on that ComfyUI leaves nothing of its jobs there, and runs its own."""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.worker.fakes import FAST, FakeComfy, Process, b64, chain, image_workflow, job, png, until, worker_for
from tests.worker.fleet import Fleet, worker_process
from worker.leftover import LOCK
from worker.traces import KINDS, new_folder, saving_into

SECRET = "acme-secret"
IDLE = {"queue_running": [], "queue_pending": []}


def told(url: str, path: str) -> Any:
    with urlopen(f"{url}/{path}", timeout=20) as answer:
        return json.load(answer)


def send(url: str, client_id: str, workflow: dict[str, Any]) -> str:
    body = json.dumps({"prompt": workflow, "client_id": client_id}).encode()
    with urlopen(Request(f"{url}/prompt", body), timeout=20) as answer:
        return str(json.load(answer)["prompt_id"])


def files(folder: Path) -> list[str]:
    found = (path for kind in KINDS for path in (folder / kind).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


def of_acme() -> dict[str, Any]:
    """Saves, shows, and saves where only its history tells."""
    return {
        "a": {"class_type": "LoadImage", "inputs": {"image": f"{SECRET}.png"}},
        "b": {"class_type": "SaveImage", "inputs": {"images": ["a", 0], "filename_prefix": f"{SECRET}/a"}},
        "c": {"class_type": "PreviewImage", "inputs": {"images": ["a", 0]}},
        "d": {"class_type": "PrimitiveString", "inputs": {"value": f"{SECRET}/linked/b"}},
        "e": {"class_type": "SaveImage", "inputs": {"images": ["a", 0], "filename_prefix": ["d", 0]}},
    }


@pytest.fixture
def disk(tmp_path: Path, standin: Callable[..., Process]) -> tuple[str, Path]:
    return standin().url, tmp_path / "own"


@pytest.fixture
def real(standin: Callable[..., Process], tmp_path: Path) -> tuple[str, Path, str]:
    """The real ComfyUI if there is one, and a node that takes its time there."""
    if "COMFYUI_URL" in os.environ and "COMFYUI_DIR" in os.environ:
        return os.environ["COMFYUI_URL"].rstrip("/"), Path(os.environ["COMFYUI_DIR"]), "ImageBlur"
    return standin().url, tmp_path / "own", "StandinSleep"


async def test_after_kill_9_the_next_worker_leaves_nothing_and_runs_its_job_at_once(
    real: tuple[str, Path, str], tmp_path: Path
) -> None:
    """acme's first job has run and waits for its upload, the second runs, the third has uploaded its input."""
    url, folder, slow_class = real
    before, known, given = files(folder), told(url, "history"), {f"{SECRET}.png": b64(png())}

    def there(kind: str) -> int:
        return len([path for path in files(folder) if path not in before and path.startswith(kind)])

    async with Fleet() as fleet:
        env = fleet.environment(url) | {"COMFYUI_DIR": str(folder)}
        fleet.hangs = ("uploads",)
        async with worker_process(env, tmp_path / "log") as worker:
            for id, workflow, last in (
                ("ran", of_acme(), lambda: "uploads" in fleet.verbs()),
                ("runs", of_acme() | chain(6, slow_class, 200), lambda: there("temp") == 2),
                ("waits", of_acme(), lambda: there("input") == 3),
            ):
                fleet.queue.append(job(workflow, id, files=given, _hearth=fleet.field))
                await until(last, 30)
            worker.kill()
            await worker.wait()
        assert SECRET in json.dumps([told(url, "history"), told(url, "queue")])
        fleet.hangs = ()
        async with worker_process(env, tmp_path / "log2"):
            fleet.queue.append(job(image_workflow(), "of-globex", _hearth=fleet.field))
            await until(lambda: "of-globex" in fleet.done, 40)
            assert told(url, "queue") == IDLE
            assert told(url, "history") == known
            assert files(folder) == before
    assert list(fleet.done) == ["of-globex"]
    assert len(fleet.done["of-globex"]["output"]["files"]) == 1


async def test_of_a_dead_worker_what_runs_waits_and_has_run_goes_and_nothing_of_others(disk: tuple[str, Path]) -> None:
    url, folder = disk
    ended = send(url, "hearth-worker-1", saving_into(new_folder(), image_workflow(1)))
    await until(lambda: ended in told(url, "history"))
    theirs = send(url, "somebody", image_workflow(2, prefix="theirs"))
    await until(lambda: theirs in told(url, "history"))
    before = files(folder)
    slow = chain(3, "StandinSleep", 20)
    for workflow in (slow, slow, image_workflow(4, prefix="no/folder/of/a/job")):
        send(url, "hearth-worker-1", saving_into(new_folder(), workflow) if workflow is slow else workflow)
    behind = send(url, "somebody", image_workflow(5, prefix="theirs"))
    async with worker_for(url, comfyui_dir=str(folder)) as worker:
        await worker.health.well()
        assert told(url, "queue") == IDLE
        assert sorted(told(url, "history")) == sorted([theirs, behind])
        assert files(folder) == [path for path in before if "theirs" in path] + ["output/theirs_00002_.png"]
        assert len((await worker.handle(job(image_workflow())))["files"]) == 1


async def test_a_handler_alone_waits_with_its_first_prompt_until_all_is_cleared(disk: tuple[str, Path]) -> None:
    """As in `handle()`, which no poll of the SDK's precedes."""
    url, folder = disk
    send(url, "hearth-worker-1", saving_into(new_folder(), chain(3, "StandinSleep", 100)))
    async with worker_for(url, comfyui_dir=str(folder), busy_s=30) as worker:
        assert len((await worker.handle(job(image_workflow())))["files"]) == 1
    assert (told(url, "queue"), told(url, "history"), files(folder)) == (IDLE, {}, [])


@contextmanager
def another_worker(folder: Path) -> Iterator[None]:
    with open(folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@pytest.mark.parametrize("alone", [True, False], ids=["without COMFYUI_DIR", "beside another worker"])
async def test_where_nothing_tells_whose_it_is_all_of_it_stays(disk: tuple[str, Path], alone: bool) -> None:
    url, folder = disk
    left = f"input/{new_folder()}/a.png"
    (folder / left).parent.mkdir()
    (folder / left).write_bytes(png())
    running = send(url, "hearth-worker-1", chain(3, "StandinSleep", 100))
    with another_worker(folder):
        async with worker_for(url, comfyui_dir="" if alone else str(folder)) as worker:
            await worker.health.well()
            assert worker.health.fault is None
            assert [item[1] for item in told(url, "queue")["queue_running"]] == [running]
    assert files(folder) == [left]


async def test_a_worker_that_comes_while_another_clears_up_waits_for_it(tmp_path: Path) -> None:
    async with (
        FakeComfy() as comfy,
        worker_for(comfy.url, comfyui_dir=str(tmp_path), **FAST) as first,
        worker_for(comfy.url, comfyui_dir=str(tmp_path), **FAST) as second,
    ):
        waiting = asyncio.create_task(second.health.well())
        await until(lambda: second.health.fault)
        assert not waiting.done()
        await first.health.well()
        await waiting
        assert first.health.fault is None
        assert second.health.fault is None


async def test_the_next_one_alone_removes_the_folders_and_only_those_of_jobs(tmp_path: Path) -> None:
    theirs = ["input/sub/c.png", "output/b.png", "output/hearth-mine/a.png"]
    ours = [f"input/{new_folder()}/a.png", f"output/{new_folder()}/t/a.png"]
    for path in [*theirs, *ours]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    async with worker_for("http://127.0.0.1:9", comfyui_dir=str(tmp_path)):
        assert files(tmp_path) == theirs


async def test_odd_entries_of_the_history_keep_no_worker_from_starting(tmp_path: Path) -> None:
    odd: list[Any] = ["odd", {"prompt": "odd"}, {"prompt": [1, "c"]}, {"prompt": [1, "d", {}, None, []]}, {}]
    async with FakeComfy() as comfy, worker_for(comfy.url, comfyui_dir=str(tmp_path)) as worker:
        comfy.history = {str(place): entry for place, entry in enumerate(odd)}
        async with asyncio.timeout(20):
            await worker.health.well()
        assert [body for what, body in comfy.asked if what.startswith("POST")] == []
