"""Endpoints of each test's own, a web process with short polls, and a sweeper at work."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearth.local import instance
from hearth.local.health import Probe
from hearth.local.home import Home
from hearth.local.process import Child, Part, stop
from tests.cast import Client, Place, new_client
from tests.fleet.hooks import Running
from tests.fleet.wire import WireWorker, until
from tests.stage import _database, acme, globex, own_place, place

__all__ = ["_database", "acme", "globex", "own_place", "place"]
HOLD_S = 2
HELD_S = HOLD_S * 0.8 - 0.1  # at least, as the holds differ, and the clocks a little
SDK_WAITS_S = 90
OUTPUT_MAX_BYTES = 1024**2


@pytest.fixture
def own(own_place: Place) -> Client:
    """acme at an endpoint of dialect hearth."""
    return new_client(own_place)


@pytest.fixture
def running(quick: str, own: Client) -> Running:
    return Running(own, own.submit(), WireWorker(quick, own.place))


def child(name: str, argv: list[str], env: dict[str, str], **part: Any) -> Child:
    home = Home(Path(os.environ["HEARTH_TEST_HOME"]))
    log = home.folder("logs") / f"{name}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.log"
    return Child(Part(name=name, argv=argv, env={**os.environ, **env}, cwd=instance.ROOT, **part), log)


@pytest.fixture(scope="session")
def quick(database: str) -> Iterator[str]:
    """The URL of a web process whose polls are held for HOLD_S, which takes outputs of OUTPUT_MAX_BYTES, and files of
    more than 20 MiB in parts of 5 MiB."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        host, port = listener.getsockname()
        env = {
            "HEARTH_URL": f"http://{host}:{port}",
            "HEARTH_POLL_HOLD_S": str(HOLD_S),
            "HEARTH_OUTPUT_MAX_BYTES": str(OUTPUT_MAX_BYTES),
            "HEARTH_UPLOAD_PART_MIB": "5",
            "HEARTH_LISTEN_FD": str(listener.fileno()),
        }
        fds = (listener.fileno(),)
        web = child("quick-web", [sys.executable, "-m", "hearth.asgi"], env, fds=fds)
        until(lambda: Probe(host, port).look().get("db") == "ok", 60)
        yield env["HEARTH_URL"]
        stop([web])
        log = web.log.read_text(errors="replace")
        assert " ERROR hearth.web " not in log, log[log.index(" ERROR hearth.web ") :][:6000]


@pytest.fixture
def worker(quick: str, place: Place) -> WireWorker:
    return WireWorker(quick, place)


@pytest.fixture
def other(quick: str, place: Place) -> WireWorker:
    """Another worker of the same endpoint."""
    return WireWorker(quick, place, "w2")


@pytest.fixture(scope="module")
def sweeper(request: pytest.FixtureRequest, database: str) -> Iterator[None]:
    """A sweeper at work while this module's tests run. LEASE_S of the module, else the default."""
    lease = getattr(request.module, "LEASE_S", None)
    env = {"HEARTH_LEASE_S": str(lease)} if lease else {}
    running = child("sweeper", [sys.executable, "manage.py", "sweeper"], env)
    yield
    stop([running])
