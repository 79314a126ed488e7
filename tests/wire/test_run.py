"""run, runsync, status, cancel, retry: one job, from its submission to its end and long after."""

import re
import time
from concurrent.futures import Future

import httpx
import pytest

from accounts import sql
from jobs.dispatch import dispatch
from jobs.models import Grant
from jobs.sweep import sweep
from tests.cast import new_client, new_place
from tests.wire.api import Api, aside, check_refusal, finish, job_of, job_row, until

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def runsync(api: Api, given: object = 1, wait: int = 20_000) -> "Future[httpx.Response]":
    return aside(api.post, "runsync", {"input": given}, wait=wait)


def age(job: str, what: str, interval: str) -> None:
    sql.run(f"UPDATE jobs_job SET {what} = {what} - %s::interval WHERE id = %s", [interval, job_of(job).uuid])


def ended(api: Api, end: str) -> str:
    """A job that came to this end."""
    job = api.run()
    if end == "CANCELLED":
        api.post(f"cancel/{job}")
    elif end == "TIMED_OUT":
        age(job, "deadline_at", "25 h")
        sweep()
    else:
        finish(api, api.take(), error="boom" if end == "FAILED" else None)
    assert api.status(job)["status"] == end
    return job


def test_run_answers_at_once_with_an_id_and_its_state(acme: Api) -> None:
    answered = acme.post("run", {"input": {"n": 1}})
    assert answered.status_code == 200
    assert answered.headers["Content-Type"] == "application/json"
    assert answered.json().keys() == {"id", "status"}
    assert answered.json()["status"] == "IN_QUEUE"
    assert re.fullmatch(f"{UUID}-e1", answered.json()["id"])


def test_a_jobs_status_tells_its_way_from_the_queue_to_its_output(acme: Api) -> None:
    job = acme.run({"n": 1})
    assert acme.status(job) == {"id": job, "status": "IN_QUEUE"}
    claimed = acme.take("gpu-7")
    running = acme.status(job)
    assert running == {"id": job, "status": "IN_PROGRESS", "delayTime": running["delayTime"], "workerId": "gpu-7"}
    finish(acme, claimed, {"seen": 1}, worker="gpu-7")
    found = acme.status(job)
    assert found.keys() == {"id", "status", "delayTime", "executionTime", "output", "workerId"}
    assert (found["status"], found["output"], found["workerId"]) == ("COMPLETED", {"seen": 1}, "gpu-7")


def test_delay_and_execution_time_are_milliseconds(acme: Api) -> None:
    job = acme.run()
    age(job, "queued_at", "3 s")
    claimed = acme.take()
    age(job, "started_at", "5 s")
    finish(acme, claimed)
    found = acme.status(job)
    assert type(found["delayTime"]) is type(found["executionTime"]) is int
    assert 3_000 <= found["delayTime"] < 8_000
    assert 5_000 <= found["executionTime"] < 10_000


@pytest.mark.parametrize("error", ["boom", {"error_type": "ValueError", "at": [1]}])
def test_a_failed_job_shows_the_workers_error_as_it_was(acme: Api, error: object) -> None:
    job = acme.run()
    finish(acme, acme.take(), error=error)
    found = acme.status(job)
    assert (found["status"], found["error"]) == ("FAILED", error)
    assert "output" not in found


@pytest.mark.parametrize(
    "output", ["null", "false", "0", '""', "[]", "{}", '{"b":  1, "a": "\\u0000 é"}', "18446744073709551616", "1.10"]
)
def test_an_output_is_any_json_and_comes_as_the_worker_wrote_it(acme: Api, output: str) -> None:
    job = acme.run()
    acme.take()
    acme.job_done(job, f'{{"output": {output}}}'.encode())
    assert f'"output":{output},"workerId"'.encode() in acme.get(f"status/{job}").content


def test_runsync_waits_and_answers_with_the_result(acme: Api) -> None:
    waiting = runsync(acme, {"n": 2})
    claimed = acme.take()
    assert not waiting.done()
    finish(acme, claimed, {"seen": 2})
    answered = waiting.result(10)
    found = answered.json()
    assert answered.status_code == 200
    assert re.fullmatch(f"sync-{UUID}-e1", found["id"])
    assert found.keys() == {"id", "status", "delayTime", "executionTime", "output", "workerId"}
    assert (found["status"], found["output"]) == ("COMPLETED", {"seen": 2})
    assert acme.status(found["id"]) == found


def test_runsync_answers_a_failure_too(acme: Api) -> None:
    waiting = runsync(acme)
    finish(acme, acme.take(), error="boom")
    assert (waiting.result(10).status_code, waiting.result().json()["error"]) == (200, "boom")


@pytest.mark.parametrize(("taken", "state"), [(False, "IN_QUEUE"), (True, "IN_PROGRESS")])
def test_runsync_answers_after_its_wait_with_the_state_so_far(acme: Api, taken: bool, state: str) -> None:
    begun = time.monotonic()
    waiting = runsync(acme, wait=1_000)
    if taken:
        acme.take()
    found = waiting.result(60).json()
    assert 1.0 <= time.monotonic() - begun < 30
    assert found["status"] == state
    assert acme.status(found["id"])["status"] == state


def test_a_job_that_is_cancelled_frees_its_runsync_waiter(acme: Api) -> None:
    waiting = runsync(acme)
    claimed = acme.take()
    assert acme.post(f"cancel/sync-{claimed.job}-e1").status_code == 200
    assert waiting.result(10).json()["status"] == "CANCELLED"


def test_a_dummy_endpoint_answers_with_its_input(http: httpx.Client) -> None:
    acme = Api.of(http, new_client(new_place(backend="dummy")))
    waiting = runsync(acme, {"echo": [1]})
    until(lambda: dispatch(acme.place.endpoint.pk))
    assert waiting.result(10).json()["output"] == {"echo": [1]}


def test_cancel_ends_a_queued_and_a_running_job(acme: Api) -> None:
    running, queued = acme.run(), acme.run()
    acme.take()
    for job in (running, queued):
        answered = acme.post(f"cancel/{job}", b"{}" if job == queued else None)
        assert (answered.status_code, answered.json()) == (200, {"id": job, "status": "CANCELLED"})
        assert acme.status(job)["status"] == "CANCELLED"


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
def test_cancelling_an_ended_job_answers_200_and_changes_nothing(acme: Api, end: str) -> None:
    job = ended(acme, end)
    before = acme.status(job)
    answered = acme.post(f"cancel/{job}")
    assert (answered.status_code, answered.json()) == (200, {"id": job, "status": end})
    assert acme.status(job) == before


@pytest.mark.parametrize("end", ["FAILED", "TIMED_OUT"])
def test_retry_queues_the_job_again_under_its_id_without_its_old_result(acme: Api, end: str) -> None:
    job = ended(acme, end)
    answered = acme.post(f"retry/{job}")
    assert (answered.status_code, answered.json()) == (200, {"id": job, "status": "IN_QUEUE"})
    assert acme.status(job) == {"id": job, "status": "IN_QUEUE"}
    finish(acme, acme.take("w2"), "second", worker="w2")
    assert acme.status(job)["output"] == "second"


@pytest.mark.parametrize("end", ["COMPLETED", "CANCELLED"])
def test_retry_of_what_was_no_failure_is_409(acme: Api, end: str) -> None:
    job = ended(acme, end)
    check_refusal(acme.post(f"retry/{job}"), 409, "not_retryable")
    assert acme.status(job)["status"] == end


def test_retry_of_a_job_that_has_not_ended_is_409(acme: Api) -> None:
    job = acme.run()
    check_refusal(acme.post(f"retry/{job}"), 409, "not_retryable")
    acme.take()
    check_refusal(acme.post(f"retry/{job}"), 409, "not_retryable")
    assert acme.status(job)["status"] == "IN_PROGRESS"


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
def test_a_job_can_still_be_read_long_after_its_end_and_its_ttl(acme: Api, end: str) -> None:
    job = ended(acme, end)
    before = acme.status(job)
    for what in ("created_at", "queued_at", "finished_at"):
        age(job, what, "8 days")
    sweep()
    assert acme.status(job) == before
    assert [one["id"] for one in acme.get("requests").json()["requests"]] == [job]


def test_progress_shows_while_the_job_runs(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    acme.job_done(job, b'{"status": "IN_PROGRESS", "output": {"step": 4}}')
    assert (acme.status(job)["status"], acme.status(job)["output"]) == ("IN_PROGRESS", {"step": 4})
    finish(acme, claimed, "done")
    assert acme.status(job)["output"] == "done"


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}", "{}"])
def test_a_key_is_read_with_and_without_bearer(acme: Api, form: str) -> None:
    assert acme.by(form.format(acme.client.api_key)).get("health").status_code == 200


def test_another_tenants_job_is_404(acme: Api, globex: Api) -> None:
    job = acme.run()
    for method, path in (("GET", "status"), ("POST", "cancel"), ("POST", "retry")):
        check_refusal(globex.call(method, f"{path}/{job}"), 404, "not_found")
    assert job_row(job).state == "IN_QUEUE"


def test_a_jobs_id_on_another_endpoint_of_its_tenant_is_404(acme: Api) -> None:
    job, elsewhere = acme.run(), new_place()
    Grant.all_tenants.create(tenant=acme.client.tenant, endpoint=elsewhere.endpoint)
    there = acme.at(elsewhere.name)
    assert there.get("health").status_code == 200
    for method, path in (("GET", "status"), ("POST", "cancel"), ("POST", "retry")):
        check_refusal(there.call(method, f"{path}/{job}"), 404, "not_found")
    assert job_row(job).state == "IN_QUEUE"


def test_a_jobs_id_without_its_sync_is_404(acme: Api) -> None:
    job = acme.run()
    check_refusal(acme.get(f"status/sync-{job}"), 404, "not_found")
