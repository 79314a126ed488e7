"""At rest: memory and CPU of each process, how soon a task starts, how soon a stopped instance is up again."""

import json
import time
from statistics import median
from urllib.request import Request, urlopen

from django.db import transaction
from django_q.tasks import async_task, result

from benchmarks.bench import Bench
from benchmarks.comfyui import small_image
from benchmarks.measure import Figure, Row
from benchmarks.processes import cpu_s, pss_bytes, tree
from jobs.tenants import create_tenant

MB = 1_000_000
CONTROL_PLANE = ("web", "tasks-fast", "tasks-slow")
WAIT_MS = 10_000


def memory(bench: Bench) -> Row:
    """Of each process with what it has started, after one job, when nothing happens: PSS, and CPU of one core."""
    _run_one_job(bench)
    seconds = bench.count(10, 1)
    pids = bench.instance.pids()
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    time.sleep(seconds)  # not for a state: it is the time that is measured
    used = {name: 100 * (cpu_s(pid) - before[name]) / seconds for name, pid in pids.items()}
    held = {name: sum(pss_bytes(process.pid) for process in tree(pid)) / MB for name, pid in pids.items()}
    held["supervisor"] = pss_bytes(pids["supervisor"]) / MB  # without its parts
    used["supervisor"] = max(0.0, used["supervisor"] - sum(cpu for name, cpu in used.items() if name != "supervisor"))
    figures = [
        Figure(name=name, unit="MB", rounds=[held[name]], note=f"CPU {used[name]:.1f} % of a core") for name in pids
    ]
    both = sum(held[name] for name in CONTROL_PLANE)
    busy = sum(used[name] for name in CONTROL_PLANE)
    figures.append(Figure(name="web + tasks", unit="MB", rounds=[both], at_most=250))
    return Row(figures=[*figures, Figure(name="web + tasks, CPU", unit="%", rounds=[busy], at_most=2)])


def _run_one_job(bench: Bench) -> None:
    """By the instance's own worker, so that all that is loaded late is there."""
    tenant = create_tenant(f"bench-rest-{time.time_ns():x}", "comfyui")
    body = json.dumps({"input": {"workflow": small_image()}}).encode()
    headers = {"Authorization": f"Bearer {tenant.api_key}"}
    with urlopen(Request(f"{bench.instance.url}/v2/comfyui/runsync", body, headers)) as answer:
        said = json.load(answer)
    if said["status"] != "COMPLETED":
        raise RuntimeError(f"runsync answered {str(said)[:500]}")


def tasks(bench: Bench) -> Row:
    """From the commit that enqueues a task to the task's first line, one task at a time."""
    _ms_to_start()
    rounds = [[_ms_to_start() for _ in range(bench.count(20, 2))] for _ in range(bench.rounds)]
    middle = [median(times) for times in rounds]
    figure = Figure(name="commit → the task's first line, p50", unit="ms", rounds=middle, at_most=5)
    return Row(figures=[figure], raw={"ms": rounds})


def _ms_to_start() -> float:
    with transaction.atomic():
        task = async_task("benchmarks.task.first_line", cluster="fast")
        enqueued = time.time()
    began = result(task, wait=WAIT_MS)
    if not isinstance(began, float):
        raise RuntimeError(f"a task did not run within {WAIT_MS} ms: {began!r}")
    return (began - enqueued) * 1000


def up(bench: Bench) -> Row:
    """`make up` of a home that has run before, to READY: database, S3, worker and ComfyUI answer."""
    seconds = []
    for _ in range(min(bench.rounds, 3)):
        bench.instance.stop()
        seconds.append(bench.instance.start())
    return Row(figures=[Figure(name="second start → READY", unit="s", rounds=seconds, at_most=6)])
