"""docker/worker.sh, which runs in the worker image: ComfyUI (here the stand-in) and the worker beside each other."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from hearth.local.seaweed import free_ports
from jobs.states import FINAL, State
from jobs.tenants import worker_environment
from tests.cast import Client, Place, new_client, row
from tests.conftest import Web
from tests.local.running import eventually, is_gone

NOT_THE_WORKERS = ("HEARTH_", "DATABASE_", "DJANGO_", "PYTEST_", "COMFYUI_")


class Container:
    """The script with what the image sets. ComfyUI's own flags are told to the stand-in in its words."""

    def __init__(self, place: Place, url: str, folder: Path) -> None:
        (folder / "comfyui").mkdir()
        standin = folder / "comfyui.sh"
        standin.write_text(f'#!/bin/sh\nexec {sys.executable} -m worker.standin --port "$4" --dir {folder}/comfyui\n')
        standin.chmod(0o755)
        env = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THE_WORKERS)}
        env |= worker_environment(place.endpoint, place.worker_key, url, "gpu-1")
        env |= {"COMFYUI": str(standin), "COMFYUI_DIR": f"{folder}/comfyui", "COMFYUI_PORT": str(free_ports(1)[0])}
        env |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
        part = Part(name="container", argv=[str(ROOT / "docker" / "worker.sh")], env=env, cwd=ROOT, grace_s=30)
        self.child = Child(part, folder / "log")

    def process(self, module: str) -> psutil.Process:
        """The process that runs this module; the SDK's ping process, a fork of the worker, is its child."""
        found = [
            p for p in psutil.Process(self.child.pid).children(recursive=True) if p.cmdline()[1:3] == ["-m", module]
        ]
        return min(found, key=lambda process: process.create_time())


@pytest.fixture
def container(own_place: Place, web: Web, tmp_path: Path) -> Iterator[Container]:
    made = Container(own_place, web.url, tmp_path)
    yield made
    stop([made.child])


@pytest.fixture
def acme(own_place: Place) -> Client:
    return new_client(own_place, "acme")


def completes(acme: Client) -> bool:
    job = acme.submit()
    return eventually(lambda: row(job).state in FINAL, 60) and row(job).state == State.COMPLETED


def test_jobs_run_and_go_on_after_comfyui_was_killed(container: Container, acme: Client) -> None:
    assert completes(acme), container.child.last_lines(30)
    first = container.process("worker.standin")
    first.kill()
    assert completes(acme), container.child.last_lines(30)
    assert container.process("worker.standin").pid != first.pid


def test_sigterm_ends_it_all_with_code_0(container: Container, acme: Client) -> None:
    assert completes(acme), container.child.last_lines(30)
    standin = container.process("worker.standin")
    os.kill(container.child.pid, signal.SIGTERM)
    assert eventually(lambda: container.child.ended() == 0, 30), container.child.last_lines(30)
    assert is_gone(standin)


def test_it_ends_with_its_worker(container: Container, acme: Client) -> None:
    assert completes(acme), container.child.last_lines(30)
    standin = container.process("worker.standin")
    container.process("worker").kill()
    assert eventually(lambda: container.child.ended() == 128 + signal.SIGKILL, 30)
    assert is_gone(standin)
