"""The worker's tests run against COMFYUI_URL where it is set (a real ComfyUI), else against the stand-in."""

import asyncio
import fcntl
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.worker.fakes import Process, chain
from tests.worker.fakes import standin as start_standin

LIMIT_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    given: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await pyfuncitem.obj(**given)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def comfyui_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("COMFYUI_URL"):
        yield url.rstrip("/")
        return
    process = start_standin(tmp_path_factory.mktemp("comfyui"))
    yield process.url
    process.kill()


@pytest.fixture
def comfyui(comfyui_url: str) -> Iterator[str]:
    """The URL of a ComfyUI, for one test at a time: tests look into its queue (tests/standin takes the same lock)."""
    with open(Path(tempfile.gettempdir()) / f"comfy-{comfyui_url.rpartition(':')[2]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield comfyui_url


@pytest.fixture(scope="session")
def slow(comfyui_url: str) -> Callable[[int], dict[str, Any]]:
    """slow(color): a workflow of some seconds that stops between any two of its nodes."""
    with urlopen(f"{comfyui_url}/object_info/StandinSleep") as answer:
        sleeps = json.load(answer)
    return lambda color: chain(color, "StandinSleep" if sleeps else "ImageBlur")


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a stand-in of the test's own, to be killed, stopped or left empty by the test."""
    started: list[Process] = []

    def start(port: int = 0) -> Process:
        started.append(start_standin(tmp_path / "own", port))
        return started[-1]

    yield start
    for process in started:
        process.kill()
