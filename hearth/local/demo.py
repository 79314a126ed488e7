"""`make demo`: an example workflow through everything, checked, in this home's instance, started if it is not up."""

import hashlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hearth.local.home import Home, LocalError, Lock
from hearth.local.instance import ROOT
from hearth.local.process import die_with_parent

WORKFLOW = ROOT / "examples" / "workflows" / "img_chain.json"
SIZE = (128, 96)  # of the image that it makes
JOB_S = 120.0


def demo() -> None:
    """Prints RESULT and SAVED, or raises LocalError with the step that failed."""
    home = Home.from_environment()
    with _instance(home) as base_url:
        _step(f"Using {base_url}")
        tenant = _manage(home, "create_tenant", f"demo-{time.time_ns() // 1_000_000:x}", "--json")
        _step(f"Created the tenant {tenant['tenant']}, which may use the endpoint {tenant['endpoint']}")
        job_id, output = _run_job(base_url, tenant)
        url = output["files"][0]
        body = _download(url)
        _check(body, output["assets"][0])
        _show_timeline(_manage(home, "job", job_id, "--json"))
        path = _save(home, job_id, body)
    print(f"RESULT {url}")
    print(f"SAVED {path} {len(body)} {hashlib.sha256(body).hexdigest()}", flush=True)


def _step(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _instance(home: Home) -> Iterator[str]:
    """The base URL of this home's running instance, or of one that is started, shown, and stopped at the end."""
    lock = Lock(home)
    running = not lock.take("up") and lock.holder()[1] == "up"
    lock.release()
    if running:
        yield home.run()["base_url"]
        return
    parent = os.getpid()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "hearth.local", "up"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes to us, and we end it
        preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
    )
    ready: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_show, args=(supervisor, ready), daemon=True)
    reader.start()
    try:
        if not (base_url := ready.get()):
            raise LocalError(f"The instance did not start (exit code {supervisor.wait()}).")
        yield base_url
    finally:
        supervisor.terminate()
        supervisor.wait()
        reader.join()


def _show(supervisor: subprocess.Popen[str], ready: "queue.Queue[str]") -> None:
    """Prints what the supervisor says; puts the base URL of its READY line, or "" when it has ended."""
    assert supervisor.stdout
    for line in supervisor.stdout:
        print(line, end="", flush=True)
        if line.startswith("READY "):
            ready.put(line.split()[1])
    ready.put("")


def _manage(home: Home, *arguments: str) -> dict[str, Any]:
    """The JSON object in the last line that a manage.py command prints."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "HEARTH_HOME": str(home.path)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise LocalError(f"`manage.py {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run_job(base_url: str, tenant: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Runs the example by RunPod's own client. The job's id and output."""
    import runpod  # two seconds

    runpod.endpoint_url_base = f"{base_url}/v2"
    endpoint = runpod.Endpoint(tenant["endpoint"], tenant["api_key"])
    workflow = json.loads(WORKFLOW.read_text())
    job = endpoint.run({"input": {"workflow": workflow}})
    _step(f"Sent {WORKFLOW.relative_to(ROOT)} by the runpod client: job {job.job_id}")
    until = time.monotonic() + JOB_S
    told = ""
    while (status := job.status()) not in ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"):
        if time.monotonic() > until:
            raise LocalError(f"The job {job.job_id} is {status} after {JOB_S:.0f} s.")
        if status != told:
            _step(f"  {status}")
            told = status
        time.sleep(0.1)
    _step(f"  {status}")
    if status != "COMPLETED":
        raise LocalError(f"The job {job.job_id} is {status}: {job._fetch_job().get('error')}")
    return job.job_id, job.output()


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            body: bytes = answer.read()
            return body
    except OSError as error:
        raise LocalError(f"The file cannot be downloaded from {url}: {error}") from error


def _check(body: bytes, asset: dict[str, Any]) -> None:
    """LocalError unless it is the image that the workflow makes, and the bytes that the worker reported."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body)) as image:
            image.load()
            found = f"{image.format} {image.width}x{image.height}"
    except OSError as error:
        raise LocalError(f"The downloaded file is no image: {error}") from error
    if found != f"PNG {SIZE[0]}x{SIZE[1]}":
        raise LocalError(f"The downloaded file is a {found}, expected a PNG {SIZE[0]}x{SIZE[1]}.")
    digest = hashlib.sha256(body).hexdigest()
    if (len(body), digest) != (asset["bytes"], asset["sha256"]):
        raise LocalError(f"Downloaded {len(body)} bytes, sha256 {digest}; the worker reported {asset}.")
    _step(f"Downloaded and checked: {found}, {len(body)} bytes, the sha256 that the worker reported")


def _show_timeline(job: dict[str, Any]) -> None:
    _step("Timeline")
    for event in job["events"]:
        _step(f"  {event['ms']:>7} ms  +{event['after_ms']:<6} {event['kind']:<12} {event['text']}")
    _step(f"  waited {job.get('delayTime')} ms, ran {job.get('executionTime')} ms")


def _save(home: Home, job_id: str, body: bytes) -> Path:
    path = home.folder("demo") / f"{job_id}.png"
    path.write_bytes(body)
    return path
