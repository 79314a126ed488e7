"""kill -9 of the worker in mid-job, of web, of PostgreSQL, of S3, of everything: the job is done once all the same."""

import json
import os
import signal
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.instance import Instance, TenantClient, again, download, slow
from tests.local.running import eventually, is_gone, manage

pytestmark = pytest.mark.xdist_group("kill")


@pytest.fixture(scope="module")
def acme(up: Instance) -> TenantClient:
    return up.tenant("acme")


def done_once(up: Instance, acme: TenantClient, job: str, seconds: float) -> list[str]:
    """Its events, once it has completed; it must have completed once, with a file that is there."""
    found = acme.ended(job, seconds)
    assert found["status"] == "COMPLETED", found
    assert len(download(found["output"]["files"][0])) > 0
    events = up.events(job)
    assert events.count("completed") == 1
    return events


def test_the_worker_killed_in_mid_job_loses_it_to_the_next(up: Instance, acme: TenantClient) -> None:
    job = acme.run(slow(4))
    acme.started(job)
    os.kill(up.pid_of("worker-1"), signal.SIGKILL)
    events = done_once(up, acme, job, 60)
    assert events.count("lost") == 1
    assert events.count("handed") == 2


def test_a_fleet_whose_only_worker_is_killed_has_its_job_done_by_the_one_it_overflows_to(up: Instance) -> None:
    made = manage(up.home.path, "shell", "-c", "from jobs.models import Endpoint; Endpoint.objects.create(name='own')")
    assert made.returncode == 0, made.stderr
    acme = up.tenant("acme", "--endpoint", "own")
    job = acme.run(slow(1))
    take = urllib.request.Request(f"{up.url}/v2/own/job-take/doomed", headers={"Authorization": acme.worker_key})
    with urllib.request.urlopen(take, timeout=30) as answer:
        assert json.load(answer)["id"] == job
    assert manage(up.home.path, "overflow", "own", "--to", "comfyui", "--wait", "1").returncode == 0
    events = [kind for kind in done_once(up, acme, job, 90) if kind != "output"]
    assert events == ["created", "handed", "lost", "moved", "handed", "started", "completed"]


@pytest.mark.parametrize("part", ["web", "postgres", "s3", "sweeper", "deliverer", "tasks-fast"])
def test_a_part_killed_in_mid_job_does_not_touch_the_job(up: Instance, acme: TenantClient, part: str) -> None:
    job = acme.run(slow(4))
    acme.started(job)
    victim = up.part(part)
    victim.kill()
    events = done_once(up, acme, job, 60)
    assert events.count("handed") == 1
    assert eventually(lambda: up.pid_of(part) != victim.pid)


def test_web_killed_while_a_client_waits_and_a_worker_reports(up: Instance, acme: TenantClient) -> None:
    job = acme.run(slow(2))
    acme.started(job)
    for _ in range(3):
        os.kill(up.pid_of("web"), signal.SIGKILL)
        acme.until(job, lambda found: "status" in found, 20)
    assert done_once(up, acme, job, 60).count("handed") == 1


@pytest.fixture
def doomed(up: Instance) -> Iterator[Instance]:
    """A second instance, which a test kills as a whole."""
    home = up.home.path.parent / "doomed"
    running = Instance(home, HEARTH_LEASE_S="12")
    yield running
    running.signal(signal.SIGKILL)


def test_everything_killed_at_once_and_started_again_goes_on(doomed: Instance) -> None:
    acme = doomed.tenant()
    running, queued = acme.run(slow(3)), acme.run(slow(1))
    acme.started(running)
    processes = doomed.processes()
    for process in processes:
        with_no_error_if_gone(process)
    assert eventually(lambda: all(map(is_gone, processes)))
    anew = again(doomed.home.path, PORT=str(doomed.port), HEARTH_LEASE_S="12")
    try:
        assert done_once(anew, acme, running, 90).count("lost") == 1
        done_once(anew, acme, queued, 30)
    finally:
        anew.signal(signal.SIGTERM)


def with_no_error_if_gone(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
