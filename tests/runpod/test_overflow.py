"""Own GPUs first and RunPod after, and one endpoint of RunPod's for another: throttled, in trouble, over budget."""

from collections.abc import Iterator

import pytest

from jobs import history, overflow
from jobs.ids import JobId
from jobs.models import Event, Overflow, RunpodEndpoint
from jobs.remote import wake_waiting
from tests.cast import new_client, new_place
from tests.overflows import swept
from tests.runpod.cloud import Cloud, Fault
from tests.runpod.pushed import Pushed, new_pushed, row, state


@pytest.fixture(autouse=True)
def _swept(_database: None) -> Iterator[None]:
    with swept():
        yield


@pytest.fixture
def other(cloud: Cloud, acme: Pushed) -> Pushed:
    """Where acme's endpoint overflows to. acme itself has no grant there."""
    made = new_pushed(cloud)
    Overflow.objects.create(endpoint=acme.client.place.endpoint, to=made.client.place.endpoint)
    return made


def looked_at_long_ago() -> None:
    RunpodEndpoint.objects.update(looked_at=None, woken_at=None)


def why(job: JobId) -> str:
    return Event.objects.filter(job=job.uuid, kind="moved").latest("id").text


def comes_back(pushed: Pushed, job: JobId) -> None:
    """It has run there and its webhook came."""
    assert pushed.dispatch() == 1
    pushed.hears(job, "COMPLETED", output="x", executionTime=1500, attempt=pushed.attempt(job).number)
    assert state(job) == "COMPLETED"


def test_a_job_that_runpod_does_not_take_runs_at_another_endpoint_of_it(acme: Pushed, other: Pushed) -> None:
    job = acme.submit()
    acme.there.meets("run", Fault(status=503))
    acme.dispatch()
    assert overflow.overflow() == 1
    assert "RunPod takes no jobs" in why(job)
    assert acme.dispatch() == 0
    comes_back(other, job)
    status = history.status(acme.client.key, acme.client.place.name, job)
    assert (status.state, status.output) == ("COMPLETED", b'"x"')


def test_once_it_answers_again_it_gets_its_jobs_again(acme: Pushed, other: Pushed) -> None:
    acme.submit()
    acme.there.meets("run", Fault(status=503))
    acme.dispatch()
    overflow.overflow()
    assert acme.attends(120) == 0
    assert (acme.runpod.trouble, acme.runpod.failures) == ("", 1)
    job = acme.submit()
    assert overflow.overflow() == 0
    comes_back(acme, job)
    assert acme.runpod.failures == 0


def test_what_has_no_gpu_free_is_found_out_and_gets_no_more(acme: Pushed, other: Pushed) -> None:
    acme.there.workers = {"throttled": 3}
    first = acme.submit()
    assert acme.dispatch() == 0
    assert acme.runpod.throttled
    assert overflow.overflow() == 1
    assert why(first).endswith("RunPod has no GPU free for it")
    comes_back(other, first)
    acme.there.workers = {"idle": 1}
    second = acme.submit()
    assert acme.dispatch() == 0
    looked_at_long_ago()
    assert acme.dispatch() == 1
    assert overflow.overflow() == 0
    assert not acme.runpod.throttled
    assert state(second) == "IN_PROGRESS"


def test_without_an_overflow_what_is_throttled_gets_its_jobs(acme: Pushed) -> None:
    acme.there.workers = {"throttled": 3}
    acme.submit()
    assert acme.dispatch() == 1


def test_health_is_asked_though_there_is_no_job_where_an_overflow_depends_on_it(acme: Pushed, other: Pushed) -> None:
    looked_at_long_ago()
    assert wake_waiting() >= 2
    for each in (acme, other):
        each.dispatch()
        each.dispatch()
        assert len(each.there.asked("health")) == 1


def test_own_gpus_first_and_runpod_after(cloud: Cloud) -> None:
    own, runpod = new_place("raw"), new_pushed(cloud, at_a_time=2)
    client = new_client(own)
    Overflow.objects.create(endpoint=own.endpoint, to=runpod.client.place.endpoint, wait_s=0, unhealthy=False)
    jobs = [client.submit({"n": n}) for n in range(8)]
    mine = own.worker().take_one()
    assert mine.job == jobs[0].uuid
    assert overflow.overflow() == 4  # two that run there, and two that are ready
    assert runpod.dispatch() == 2
    assert overflow.overflow() == 0
    for job in jobs[1:3]:
        runpod.hears(job, "COMPLETED", output=1)
    assert [state(job) for job in jobs[:3]] == ["IN_PROGRESS", "COMPLETED", "COMPLETED"]
    assert overflow.overflow() == 2


def test_a_cancel_reaches_runpod_where_the_job_went(acme: Pushed, other: Pushed) -> None:
    job = acme.submit()
    acme.there.meets("run", Fault(status=503))
    acme.dispatch()
    overflow.overflow()
    assert other.dispatch() == 1
    assert acme.client.cancel(job) == "CANCELLED"
    other.dispatch()
    assert [sent.op for sent in other.there.asked("cancel")] == ["cancel"]
    assert acme.there.asked("cancel") == []


def test_a_place_that_fails_too_gives_its_jobs_back_to_an_address_that_answers(acme: Pushed, other: Pushed) -> None:
    job = acme.submit()
    acme.there.meets("run", Fault(status=503))
    acme.dispatch()
    overflow.overflow()
    other.there.meets("run", Fault(status=503))
    other.dispatch()
    assert overflow.overflow() == 0
    acme.attends(120)
    assert overflow.overflow() == 1
    assert row(job).grant == acme.client.grant
    comes_back(acme, job)
