"""A Hearth before RunPod, played by a second Hearth with a real `runpod` SDK worker behind it: nothing is faked."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from tests.e2e.instance import Instance, TenantClient, download, slow
from tests.local.running import environment, manage

JOBS = 12
MAKE = "from jobs.models import Endpoint; Endpoint.objects.create(name='gpu', dialect='raw')"


@dataclass
class Chain:
    near: Instance
    far: Instance
    client: TenantClient
    far_client: TenantClient


def start_worker(folder: Path, far: Instance, comfyui_url: str) -> Child:
    """Our worker as it is on RunPod: not one of that Hearth's own."""
    lines = manage(far.home.path, "worker_env", "gpu").stdout.splitlines()
    given = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    del given["HEARTH_WORKER_NAME"]
    own = {"COMFYUI_URL": comfyui_url, "HEARTH_URL_ALLOW": "127.0.0.0/8", "HOME": str(folder)}
    env = environment(folder) | given | own
    return Child(Part(name="worker", argv=[sys.executable, "-m", "worker"], cwd=ROOT, env=env), folder / "worker.log")


@pytest.fixture(scope="module")
def chain(comfyui_url: str) -> Iterator[Chain]:
    folder = Path(tempfile.mkdtemp(prefix="hearth-chain-"))
    usual = {"WORKERS": "0", "HEARTH_URL_ALLOW": "127.0.0.0/8"}
    far = Instance(folder / "far", **usual)
    near = Instance(folder / "near", HEARTH_RUNPOD_URL=f"{far.url}/v2", **usual)
    assert manage(far.home.path, "shell", "-c", MAKE).returncode == 0
    there = far.manage("create_tenant", "hearth", "--endpoint", "gpu", "--json")
    register = ["add_runpod_endpoint", "cloud", "--id", "gpu", "--max-in-flight", "3", "--hearth"]
    more = {"RUNPOD_API_KEY": there["api_key"], "HEARTH_RUNPOD_URL": f"{far.url}/v2"}
    done = manage(near.home.path, *register, **more)
    assert done.returncode == 0, done.stderr
    made = near.manage("create_tenant", "acme", "--endpoint", "cloud", "--json")
    worker = start_worker(folder, far, comfyui_url)
    yield Chain(
        near,
        far,
        TenantClient(near.url, "cloud", made["api_key"], made["worker_key"]),
        TenantClient(far.url, "gpu", there["api_key"], there["worker_key"]),
    )
    stop([worker])
    for running in (near, far):
        running.signal(signal.SIGTERM)
    if "HEARTH_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_job_goes_through_both_and_its_file_comes_home(chain: Chain) -> None:
    job = chain.client.run(slow(0.1))
    ended = chain.client.ended(job)
    assert ended["status"] == "COMPLETED", ended
    assert download(ended["output"]["files"][0])[:4] == b"\x89PNG"
    assert chain.near.events(job) == ["created", "handed", "started", "completed"]


def test_a_cancel_reaches_the_worker_behind_both(chain: Chain) -> None:
    job = chain.client.run(slow(60))
    chain.client.started(job)
    assert chain.client.call("POST", f"cancel/{job}")["status"] == "CANCELLED"
    next_one = chain.client.run(slow(0.1))
    assert chain.client.ended(next_one, 30)["status"] == "COMPLETED", "the worker is free again"


def test_both_sides_killed_while_jobs_run_and_each_job_ends_once(chain: Chain) -> None:
    jobs = [chain.client.run(slow(0.1)) for _ in range(JOBS)]
    for side, part in ((chain.near, "web"), (chain.far, "web"), (chain.near, "tasks-fast"), (chain.far, "deliverer")):
        chain.client.ended(jobs[len(jobs) // 4], 60)
        psutil.Process(side.pid_of(part)).kill()
    for job in jobs:
        assert chain.client.ended(job, 90)["status"] == "COMPLETED"
        events = chain.near.events(job)
        assert events.count("completed") == 1
        assert events.count("started") == 1 or "lost" in events or "handed_back" in events, events
