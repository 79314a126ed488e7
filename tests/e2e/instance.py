"""A running instance with tenants in it, and workflows that are quick or slow on the stand-in and the real ComfyUI."""

import json
import os
import secrets
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
    if "COMFYUI_URL" in os.environ:
        return blurs(max(3, round(seconds / blur_s())))
    graph = picture()
    graph["2"] = {"class_type": "StandinSleep", "inputs": {"seconds": seconds, "image": ["1", 0]}}
    return saved(graph, "2")


def picture(size: int = 64) -> dict[str, Any]:
    inputs = {"width": size, "height": size, "batch_size": 1, "color": secrets.randbelow(2**24)}
    return {"1": {"class_type": "EmptyImage", "inputs": inputs}}


def saved(graph: dict[str, Any], last: str) -> dict[str, Any]:
    return graph | {"save": {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "slow"}}}


def blurs(number: int) -> dict[str, Any]:
    graph = picture(256)
    for node in range(2, 2 + number):
        inputs = {"image": [str(node - 1), 0], "blur_radius": 31, "sigma": 10.0}
        graph[str(node)] = {"class_type": "ImageBlur", "inputs": inputs}
    return saved(graph, str(1 + number))


@cache
def blur_s() -> float:
    """How long the real ComfyUI takes for one, on this machine and as busy as it is."""
    url, number = os.environ["COMFYUI_URL"].rstrip("/"), 20
    begun = time.monotonic()
    request = urllib.request.Request(f"{url}/prompt", json.dumps({"prompt": blurs(number)}).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        prompt = json.load(answer)["prompt_id"]
    while json.loads(download(f"{url}/history/{prompt}")) == {}:
        time.sleep(0.05)
    return (time.monotonic() - begun) / number


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
    def tenant(self, name: str = "acme", *options: str) -> TenantClient:
        made = self.manage("create_tenant", f"{name}-{secrets.token_hex(4)}", *options, "--json")
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
