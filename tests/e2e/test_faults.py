"""ComfyUIs that crash, wedge and run out of memory under jobs of Hearth; workers that are restarted one by one."""

import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.instance import Instance, TenantClient, example
from tests.local.running import eventually

pytestmark = pytest.mark.xdist_group("faults")


@pytest.fixture(scope="module")
def two() -> Iterator[Instance]:
    """An instance with two workers, each beside a stand-in of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hearth-e2e-"))
    running = Instance(
        folder / "home", COMFYUI_URL="", WORKERS="2", HEARTH_LEASE_S="12", HEARTH_GRACE_S="17", COMFYUI_STOP_S="2"
    )
    yield running
    running.signal(signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def acme(two: Instance) -> TenantClient:
    return two.tenant("acme")


def workflow(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of the stand-in's own between a picture and its saving; never answered from the cache."""
    color = secrets.randbelow(2**24)
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "2": {"class_type": class_type, "inputs": {"image": ["1", 0], **inputs}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "fault"}},
    }


def sleeping(seconds: float) -> dict[str, Any]:
    return workflow("StandinSleep", seconds=seconds)


def failing(kind: str) -> dict[str, Any]:
    return workflow("StandinFault", kind=kind, message="")


def number_of(found: dict[str, Any]) -> str:
    """Of the local worker that the job ran on."""
    return str(found["workerId"]).split("-")[1]


def reached_a_worker(events: list[str]) -> list[str]:
    """Without the hand-overs that reached none: a poll that a worker cuts, since it is ill, may be looking into the
    queue at that moment, and what it finds is undone at once (rules.md 3)."""
    undone = [place for place, kind in enumerate(events) if kind == "undone"]
    assert all(events[place - 1] == "handed" for place in undone), events
    return [kind for place, kind in enumerate(events) if not {place, place + 1} & set(undone)]


def fit(acme: TenantClient, seconds: float = 60) -> None:
    """Both workers take jobs, once their ComfyUI is up again, and every job comes to its end."""
    seen: set[str] = set()
    until = time.monotonic() + seconds
    while seen != {"1", "2"}:
        assert time.monotonic() < until, f"only {seen} took jobs"
        jobs = [acme.run(sleeping(1)) for _ in range(3)]  # one worker holds two at most
        ended = [acme.ended(job) for job in jobs]
        assert [found["status"] for found in ended] == ["COMPLETED"] * 3
        seen |= {number_of(found) for found in ended}


def test_the_job_of_a_killed_comfyui_runs_on_another_worker_within_seconds(two: Instance, acme: TenantClient) -> None:
    job = acme.run(sleeping(6))
    first = number_of(acme.started(job))
    two.part(f"comfyui-{first}").kill()
    again = acme.until(job, lambda found: "delayTime" in found and number_of(found) != first, 10)
    assert again["status"] == "IN_PROGRESS"
    assert acme.ended(job)["status"] == "COMPLETED"
    events = reached_a_worker(two.events(job))
    assert events == ["created", "handed", "started", "handed_back", "handed", "started", "completed"]
    fit(acme)


def test_a_job_that_kills_each_comfyui_ends_after_three_attempts_and_hurts_no_other(
    two: Instance, acme: TenantClient
) -> None:
    poison = acme.run(failing("crash"))
    found = acme.ended(poison, 90)
    assert found["status"] == "FAILED"
    assert found["output"]["code"] == "comfyui_crashed"
    assert "3 times" in found["error"]
    assert two.events(poison).count("started") == 3
    fit(acme)


def test_a_job_waits_in_the_queue_while_no_comfyui_is_there(two: Instance, acme: TenantClient) -> None:
    job = acme.run(sleeping(3))
    acme.started(job)
    for number in "12":
        two.part(f"comfyui-{number}").kill()
    assert acme.ended(job)["status"] == "COMPLETED"
    assert {"lost", "failed"}.isdisjoint(two.events(job))
    fit(acme)


def test_out_of_memory_is_the_jobs_own_error_and_is_not_tried_again(two: Instance, acme: TenantClient) -> None:
    job = acme.run(failing("out_of_memory"))
    found = acme.ended(job)
    assert (found["status"], found["output"]["code"]) == ("FAILED", "out_of_memory")
    assert two.events(job).count("handed") == 1


def test_a_wedged_comfyui_gets_nothing_more_until_it_is_restarted(two: Instance, acme: TenantClient) -> None:
    """The job's node ended ComfyUI's executor: the time-out ends the job, the interrupt is heard by nobody."""
    job = acme.run(failing("wedge"), policy={"executionTimeout": 5000})
    wedged = number_of(acme.started(job))
    assert acme.ended(job)["status"] == "TIMED_OUT"
    log = two.home.file("logs") / f"worker-{wedged}.log"
    assert eventually(lambda: "does not let go" in log.read_text(), 30)
    for _ in range(3):
        found = acme.call("POST", "runsync", {"input": {"workflow": example("img_chain")}})
        assert found["status"] == "COMPLETED"
        assert number_of(found) != wedged
    two.part(f"comfyui-{wedged}").kill()
    assert eventually(lambda: log.read_text().rstrip().endswith("s") and "takes jobs again" in log.read_text(), 30)
    fit(acme)


def test_a_job_longer_than_the_lease_is_finished_through_a_sigterm_to_the_whole_group(
    two: Instance, acme: TenantClient
) -> None:
    """Polls and the ping process have ended; the worker says by itself that it is alive."""
    job = acme.run(sleeping(14))
    worker = two.part(f"worker-{number_of(acme.started(job))}")
    for process in [*worker.children(recursive=True), worker]:
        process.send_signal(signal.SIGTERM)
    assert acme.ended(job)["status"] == "COMPLETED"
    assert two.events(job) == ["created", "handed", "started", "completed"]
    assert eventually(lambda: not psutil.pid_exists(worker.pid))


def test_a_cancel_reaches_a_worker_that_shuts_down(two: Instance, acme: TenantClient) -> None:
    job = acme.run(sleeping(60))
    worker = two.part(f"worker-{number_of(acme.started(job))}")
    worker.send_signal(signal.SIGTERM)
    acme.call("POST", f"cancel/{job}")
    assert eventually(lambda: not psutil.pid_exists(worker.pid), 15)
    fit(acme)


def test_a_job_that_outlasts_the_grace_is_done_by_another_worker(two: Instance, acme: TenantClient) -> None:
    job = acme.run(sleeping(19))
    first = number_of(acme.started(job))
    two.part(f"worker-{first}").send_signal(signal.SIGTERM)
    found = acme.ended(job, 90)
    assert found["status"] == "COMPLETED"
    assert two.events(job) == ["created", "handed", "started", "handed_back", "handed", "started", "completed"]
