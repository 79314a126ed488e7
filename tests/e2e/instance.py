"""A running instance with tenants in it, and workflows that are quick or slow on the stand-in and the real ComfyUI."""

import json
import os
import secrets
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearth.local.instance import ROOT
from tests.local.running import Running

EXAMPLES = ROOT / "examples" / "workflows"


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text())
    return found


def slow(seconds: float) -> dict[str, Any]:
    """A workflow that runs for about so long, and is never answered from ComfyUI's cache."""
    color = secrets.randbelow(2**24)
    size = 1024 if "COMFYUI_URL" in os.environ else 64
    graph: dict[str, Any] = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}}
    }
    last = "1"
    if "COMFYUI_URL" in os.environ:
        for number in range(2, 2 + int(seconds * 4)):  # about 0.25 s each
            inputs = {"image": [last, 0], "blur_radius": 31, "sigma": 10.0}
            graph[str(number)] = {"class_type": "ImageBlur", "inputs": inputs}
            last = str(number)
    else:
        graph["2"] = {"class_type": "StandinSleep", "inputs": {"seconds": seconds, "image": [last, 0]}}
        last = "2"
    graph["save"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "slow"}}
    return graph


@dataclass
class TenantClient:
    """A tenant's way into a running instance."""

    url: str
    endpoint: str
    api_key: str
    worker_key: str

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/v2/{self.endpoint}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def run(self, workflow: dict[str, Any], **fields: Any) -> str:
        job: str = self.call("POST", "run", {"input": {"workflow": workflow}, **fields})["id"]
        return job

    def status(self, job: str) -> dict[str, Any]:
        return self.call("GET", f"status/{job}")

    def until(self, job: str, done: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The job's status once `done` says so; connection errors of a part that is away are waited out."""
        end = time.monotonic() + seconds
        found: dict[str, Any] = {}
        while time.monotonic() < end:
            try:
                found = self.status(job)
                if done(found):
                    return found
            except OSError as error:
                found = {"error": str(error)}
            time.sleep(0.05)
        raise AssertionError(f"not in {seconds} s; at last: {found}")

    def ended(self, job: str, seconds: float = 60) -> dict[str, Any]:
        return self.until(job, lambda found: found["status"] not in ("IN_QUEUE", "IN_PROGRESS"), seconds)

    def started(self, job: str, seconds: float = 30) -> dict[str, Any]:
        return self.until(job, lambda found: "delayTime" in found, seconds)


class Instance(Running):
    def tenant(self, name: str = "acme") -> TenantClient:
        made = self.manage("create_tenant", f"{name}-{secrets.token_hex(4)}", "--json")
        return TenantClient(self.url, made["endpoint"], made["api_key"], made["worker_key"])

    def events(self, job: str) -> list[str]:
        return [event["kind"] for event in self.manage("job", job, "--json")["events"]]


def download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def again(home: Path, **more: str) -> Instance:
    """The same home, started anew."""
    return Instance(home, **more)
