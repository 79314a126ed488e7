"""`comfy`: the URL of the server under test, idle and with an empty cache. `standin`: a stand-in of the test's own."""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .servers import Standin, running_standin


@pytest.fixture(scope="session")
def shared_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """COMFYUI_URL, or one stand-in for each xdist worker."""
    if "COMFYUI_URL" in os.environ:
        yield os.environ["COMFYUI_URL"].rstrip("/")
    else:
        with running_standin(tmp_path_factory.mktemp("standin")) as standin:
            yield standin.url


@pytest.fixture
def comfy(shared_url: str) -> Iterator[str]:
    """One test at a time talks to a server: messages go to everybody, and the queue is one."""
    with open(Path(tempfile.gettempdir()) / f"comfy-{shared_url.rpartition(':')[2]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(Client.forget_cached(shared_url))
        yield shared_url


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Standin]:
    with running_standin(tmp_path / "comfyui") as standin:
        yield standin
