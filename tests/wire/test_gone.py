"""What was deleted of a job is answered 410 with the date, to its tenant and to nobody else."""

import re

import pytest

from accounts import sql
from accounts.models import Tenant
from jobs import retention
from tests.cast import new_client, new_place, unique
from tests.wire.api import Api, check_refusal, finish, job_row

CALLS = (("GET", "status"), ("GET", "status-sync"), ("GET", "stream"), ("POST", "retry"))
DATE = re.compile(r"was deleted at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.")


def emptied(api: Api, *, error: str | None = None, **days: int) -> str:
    """A job that ended longer ago than its tenant keeps."""
    job = api.run({"prompt": "a cat"})
    finish(api, api.take(), error=error)
    Tenant.objects.filter(pk=api.client.tenant.pk).update(**(days or {"payload_days": 1}))
    sql.run("UPDATE jobs_job SET finished_at = finished_at - interval '2 days' WHERE id = %s", [job_row_id(job)])
    retention.retain()
    return job


def job_row_id(job: str) -> str:
    return job.removesuffix("-e1").removeprefix("sync-")


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_job_without_its_payload_is_gone_with_the_date(acme: Api, method: str, path: str) -> None:
    job = emptied(acme, error="boom")
    told = check_refusal(acme.call(method, f"{path}/{job}"), 410, "gone")["error"]
    assert told.startswith(f"What was kept of the job '{job}' ")
    assert DATE.search(told)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_strangers_and_other_endpoints_are_not_told(acme: Api, globex: Api, method: str, path: str) -> None:
    job = emptied(acme)
    check_refusal(globex.call(method, f"{path}/{job}"), 404, "not_found")
    elsewhere = new_client(new_place(), "acme")
    sql.run("UPDATE jobs_grant SET tenant_id = %s WHERE id = %s", [acme.client.tenant.pk, elsewhere.grant.pk])
    check_refusal(acme.at(elsewhere.place.name).call(method, f"{path}/{job}"), 404, "not_found")


def test_a_job_keeps_its_state_and_its_place_in_the_list(acme: Api) -> None:
    job = emptied(acme)
    assert acme.post(f"cancel/{job}").json() == {"id": job, "status": "COMPLETED"}
    assert [(found["id"], found["status"]) for found in acme.get("requests").json()["requests"]] == [(job, "COMPLETED")]


@pytest.mark.parametrize("days", [{"payload_days": 1}, {"event_days": 1}])
def test_the_events_of_a_job_are_gone_with_the_date(acme: Api, globex: Api, days: dict[str, int]) -> None:
    job = emptied(acme, **days)
    for api, status, code in ((acme, 410, "gone"), (globex, 404, "not_found")):
        headers = {"Authorization": api.authorization}
        told = check_refusal(api.http.get(f"/api/v1/jobs/{job}/events", headers=headers), status, code)["error"]
        assert bool(DATE.search(told)) is (status == 410)


def test_with_its_timeline_gone_a_job_has_its_output_still(acme: Api) -> None:
    job = emptied(acme, event_days=1)
    assert acme.status(job)["output"] == "done"


def test_a_runsync_that_is_sent_again_is_told(acme: Api) -> None:
    once = acme.once(unique("once"))
    body = {"input": {"prompt": "a cat"}}
    job = once.post("runsync", body, wait=1000).json()["id"]
    finish(acme, acme.take())
    Tenant.objects.filter(pk=acme.client.tenant.pk).update(payload_days=1)
    sql.run("UPDATE jobs_job SET finished_at = finished_at - interval '2 days' WHERE id = %s", [job_row(job).pk])
    retention.retain()
    assert DATE.search(check_refusal(once.post("runsync", body), 410, "gone")["error"])
