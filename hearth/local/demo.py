"""`make demo`: an example workflow through everything, checked, in this home's instance, started if it is not up.

With BACKEND=runpod: through RunPod, or a second Hearth that plays it; then the instances are the demo's own.
"""

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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hearth.local.home import Home, LocalError, Lock
from hearth.local.instance import ROOT
from hearth.local.process import die_with_parent

WORKFLOW = ROOT / "examples" / "workflows" / "img_chain.json"
SIZE = (128, 96)  # of the image that it makes
JOB_S, CLOUD_JOB_S = 120.0, 900.0  # a machine of RunPod's may have to be found and started first
CLOUD = "cloud"  # the endpoint that is pushed to


def demo() -> None:
    """Prints RESULT and SAVED, or raises LocalError with the step that failed."""
    home = Home.from_environment()
    match os.environ.get("BACKEND", "fleet"):
        case "fleet":
            with _instance(home) as base_url:
                result = _show(home, base_url, JOB_S)
        case "runpod":
            with _at_runpod(home) as (near, base_url):
                result = _show(near, base_url, CLOUD_JOB_S, "--endpoint", CLOUD)
        case other:
            raise LocalError(f"BACKEND is {other!r}; there are fleet and runpod.")
    print(result, flush=True)


def _show(home: Home, base_url: str, within_s: float, *options: str) -> str:
    """The lines that are printed when all has stopped."""
    _step(f"Using {base_url}")
    tenant = _manage(home, "create_tenant", f"demo-{time.time_ns() // 1_000_000:x}", "--json", *options)
    _step(f"Created the tenant {tenant['tenant']}, which may use the endpoint {tenant['endpoint']}")
    job_id, output = _run_job(base_url, tenant, within_s)
    url = output["files"][0]
    body = _download(url)
    _check(body, output["assets"][0])
    _show_timeline(_manage(home, "job", job_id, "--json"))
    path = _save(home, job_id, body)
    return f"RESULT {url}\nSAVED {path} {len(body)} {hashlib.sha256(body).hexdigest()}"


def _step(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _at_runpod(home: Home) -> Iterator[tuple[Home, str]]:
    """A Hearth whose jobs go to RunPod, to the endpoint that RUNPOD_ENDPOINT_ID names; without one, to a second Hearth
    that plays RunPod, with a worker of its own."""
    key, endpoint = (os.environ.get(name, "") for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_ID"))
    if bool(key) != bool(endpoint):
        raise LocalError(
            "Set both RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID, or neither: then a second Hearth plays RunPod."
        )
    near, there = Home(home.path / "runpod" / "near"), {"RUNPOD_API_KEY": key}
    options = ["--id", endpoint, "--dialect", os.environ.get("RUNPOD_DIALECT", "worker-comfyui")]
    with ExitStack() as stack:
        if not key:
            _step("RunPod is played by a second Hearth")
            far = Home(home.path / "runpod" / "far")
            local = {"PORT": "0", "WORKERS": "1", "HEARTH_URL": "", "HEARTH_URL_ALLOW": "127.0.0.0/8"}
            url = stack.enter_context(_instance(far, **local))
            made = _manage(far, "create_tenant", f"near-{time.time_ns() // 1_000_000:x}", "--json")
            there = {"RUNPOD_API_KEY": made["api_key"], "HEARTH_RUNPOD_URL": f"{url}/v2"}
            options = ["--id", made["endpoint"], "--dialect", "dekita", "--hearth"]
        base_url = stack.enter_context(_instance(near, WORKERS="0", **there))
        for line in _said(near, "add_runpod_endpoint", CLOUD, *options, **there).splitlines():
            _step(line)
        yield near, base_url


@contextmanager
def _instance(home: Home, **more: str) -> Iterator[str]:
    """The base URL of this home's running instance, or of one that is started with these settings, shown, and stopped
    at the end."""
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
        env={**os.environ, "HEARTH_HOME": str(home.path), **more},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C comes to us, and we end it
        preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
    )
    ready: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_echo, args=(supervisor, ready), daemon=True)
    reader.start()
    try:
        if not (base_url := ready.get()):
            raise LocalError(f"The instance did not start (exit code {supervisor.wait()}).")
        yield base_url
    finally:
        supervisor.terminate()
        supervisor.wait()
        reader.join()


def _echo(supervisor: subprocess.Popen[str], ready: "queue.Queue[str]") -> None:
    """Prints what the supervisor says; puts the base URL of its READY line, or "" when it has ended."""
    assert supervisor.stdout
    for line in supervisor.stdout:
        print(line, end="", flush=True)
        if line.startswith("READY "):
            ready.put(line.split()[1])
    ready.put("")


def _manage(home: Home, *arguments: str) -> dict[str, Any]:
    """The JSON object in the last line that a manage.py command prints."""
    found: dict[str, Any] = json.loads(_said(home, *arguments).splitlines()[-1])
    return found


def _said(home: Home, *arguments: str, **more: str) -> str:
    """What a manage.py command prints."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "HEARTH_HOME": str(home.path), **more},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise LocalError(f"`manage.py {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    return done.stdout


def _run_job(base_url: str, tenant: dict[str, Any], within_s: float) -> tuple[str, dict[str, Any]]:
    """Runs the example by RunPod's own client. The job's id and output."""
    import runpod  # two seconds

    runpod.endpoint_url_base = f"{base_url}/v2"
    endpoint = runpod.Endpoint(tenant["endpoint"], tenant["api_key"])
    workflow = json.loads(WORKFLOW.read_text())
    job = endpoint.run({"input": {"workflow": workflow}})
    _step(f"Sent {WORKFLOW.relative_to(ROOT)} by the runpod client: job {job.job_id}")
    until = time.monotonic() + within_s
    told = ""
    while (status := job.status()) not in ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"):
        if time.monotonic() > until:
            raise LocalError(f"The job {job.job_id} is {status} after {within_s:.0f} s.")
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
