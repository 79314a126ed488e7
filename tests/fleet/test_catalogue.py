"""Our worker, in a process of its own and with the real SDK, reports the nodes of its ComfyUI to Hearth."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hearth.local import instance
from hearth.local.process import Child, Part, stop
from jobs.models import Worker
from jobs.tenants import worker_environment
from tests.cast import Client, Place
from tests.fleet.stock import NOT_THE_WORKERS
from tests.fleet.wire import Answer, call, until


class Comfy(ThreadingHTTPServer):
    """A ComfyUI with one loader, whose models the test changes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = ["base_v1.safetensors"]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str) -> Any:
        loader = {"input": {"required": {"model": [self.models]}}, "output": [], "output_node": True}
        return {
            "/object_info": {"Loader": loader | {"python_module": "nodes"}},
            "/prompt": {"exec_info": {"queue_remaining": 0}},
            "/queue": {"queue_running": [], "queue_pending": []},
        }.get(path, {})


class Handler(BaseHTTPRequestHandler):
    server: Comfy

    def do_GET(self) -> None:
        body = json.dumps(self.server.answer(self.path)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def comfy() -> Iterator[Comfy]:
    with Comfy() as comfy:
        yield comfy
        comfy.shutdown()


@pytest.fixture
def worker(quick: str, own_place: Place, comfy: Comfy, tmp_path: Path) -> Iterator[Child]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(NOT_THE_WORKERS)}
    env |= worker_environment(own_place.endpoint, own_place.worker_key, quick, "gpu-1")
    env |= {"COMFYUI_URL": comfy.url, "HEARTH_CATALOGUE_S": "0.1", "HOME": str(tmp_path)}
    part = Part(name="worker", argv=[sys.executable, "-m", "worker"], env=env, cwd=instance.ROOT)
    child = Child(part, tmp_path / "log")
    yield child
    stop([child])


def submit(quick: str, own: Client, model: str) -> Answer:
    graph = {"1": {"class_type": "Loader", "inputs": {"model": model}}}
    body = json.dumps({"input": {"workflow": graph}}).encode()
    return call("POST", f"{quick}/v2/{own.place.name}/run", body, own.headers)


def test_a_model_is_taken_once_a_worker_has_it(quick: str, own: Client, comfy: Comfy, worker: Child) -> None:
    until(lambda: Worker.objects.filter(endpoint=own.place.endpoint, take_at__isnull=False).exists(), 30)
    refused = submit(quick, own, "base_v2.safetensors")
    assert (refused.status, refused.json["nodes"]["1"][0]["near"]) == (400, ["base_v1.safetensors"])
    comfy.models.append("base_v2.safetensors")
    until(lambda: submit(quick, own, "base_v2.safetensors").status == 200)


def test_the_worker_still_ends_on_sigterm(own: Client, worker: Child) -> None:
    until(lambda: Worker.objects.filter(endpoint=own.place.endpoint, take_at__isnull=False).exists(), 30)
    os.kill(worker.pid, signal.SIGTERM)
    until(lambda: worker.ended() is not None, 15)
    assert worker.ended() == 0
    assert "Task was destroyed" not in worker.log.read_text()
