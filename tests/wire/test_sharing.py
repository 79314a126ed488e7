"""purge-queue, health and requests at an endpoint that tenants share: they show and touch the caller's (rule 20)."""

from collections.abc import Callable
from datetime import datetime

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts import sql
from jobs import history
from jobs.sweep import sweep
from tests.cast import new_client
from tests.wire.api import Api, finish, job_of, job_row

IDLE = {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}


def counts(api: Api) -> dict[str, int]:
    found: dict[str, int] = api.get("health").json()["jobs"]
    return found


def workers(api: Api) -> dict[str, int]:
    found: dict[str, int] = api.get("health").json()["workers"]
    return found


def listed(api: Api) -> list[dict[str, object]]:
    found: list[dict[str, object]] = api.get("requests").json()["requests"]
    return found


@pytest.mark.parametrize("body", [None, b"{}"])
def test_purge_removes_the_callers_queued_jobs_only(acme: Api, globex: Api, body: bytes | None) -> None:
    running = acme.run()
    acme.take()
    queued, other = [acme.run(), acme.run()], globex.run()
    answered = acme.post("purge-queue", body)
    assert (answered.status_code, answered.json()) == (200, {"removed": 2, "status": "completed"})
    assert [acme.status(job)["status"] for job in queued] == ["CANCELLED", "CANCELLED"]
    assert acme.status(running)["status"] == "IN_PROGRESS"
    assert globex.status(other)["status"] == "IN_QUEUE"


def test_purge_of_an_empty_queue_removes_none(acme: Api, globex: Api) -> None:
    globex.run()
    assert acme.post("purge-queue").json() == {"removed": 0, "status": "completed"}


def test_health_counts_the_callers_jobs_by_their_state(acme: Api, globex: Api) -> None:
    for number in range(6):
        acme.run(number)
    finish(acme, acme.take())
    finish(acme, acme.take(), error="boom")
    failed = acme.take()
    finish(acme, failed, error="boom")
    acme.post(f"retry/{failed.job}-e1")
    acme.post(f"cancel/{acme.take().job}-e1")
    acme.take()
    assert counts(acme) == {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 2, "retried": 1}
    assert counts(globex) == IDLE


def test_health_counts_a_timed_out_job_as_failed(acme: Api) -> None:
    job = acme.run()
    sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '25 h' WHERE id = %s", [job_of(job).uuid])
    sweep()
    assert counts(acme) == IDLE | {"failed": 1}


def test_health_counts_all_workers_of_the_endpoint(acme: Api, globex: Api) -> None:
    assert set(workers(acme).values()) == {0}
    acme.run()
    acme.take("busy")
    acme.place.worker("idle").take()
    expected = {"idle": 1, "initializing": 0, "ready": 2, "running": 1, "throttled": 0, "unhealthy": 0}
    assert workers(acme) == workers(globex) == expected


def test_a_worker_that_has_been_silent_is_not_counted(acme: Api) -> None:
    acme.place.worker().take()
    assert workers(acme)["idle"] == 1
    sql.run(
        "UPDATE jobs_worker SET take_at = take_at - interval '31 s' WHERE endpoint_id = %s", [acme.place.endpoint.pk]
    )
    assert workers(acme)["idle"] == 0


def test_requests_lists_the_callers_jobs_newest_first(acme: Api, globex: Api) -> None:
    first, second, other = acme.run(), acme.run(), globex.run()
    finish(acme, acme.take())
    found = listed(acme)
    assert [job["id"] for job in found] == [second, first]
    assert found[0].keys() == {"id", "status", "createdAt", "queue"}
    assert found[1].keys() == {"id", "status", "createdAt", "delayTime", "executionTime", "workerId"}
    assert datetime.fromisoformat(str(found[1]["createdAt"])) == job_row(first).created_at
    assert [job["id"] for job in listed(globex)] == [other]


def test_requests_lists_the_latest_hundred(acme: Api) -> None:
    jobs = [f"{acme.client.submit(number).uuid}-e1" for number in range(102)]
    assert [job["id"] for job in listed(acme)] == jobs[:1:-1]


def test_who_shares_a_tenant_sees_its_jobs_by_any_of_its_keys(acme: Api, globex: Api) -> None:
    job = acme.run()
    second = acme.by(f"Bearer {acme.client.new_key()}")
    assert second.status(job)["id"] == job
    assert counts(second)["inQueue"] == 1
    assert globex.get(f"status/{job}").status_code == 404


def test_nothing_of_an_endpoint_shows_to_who_has_no_grant_there(acme: Api) -> None:
    stranger = Api.of(acme.http, new_client(acme.place, "globex"))
    stranger.client.grant.delete()
    for method, path in (("GET", "health"), ("GET", "requests"), ("POST", "purge-queue")):
        unknown = stranger.at("no-such-endpoint").call(method, path)
        ungranted = stranger.call(method, path)
        assert (ungranted.status_code, ungranted.json()["code"]) == (404, "not_found")
        assert ungranted.text.replace(acme.endpoint, "no-such-endpoint") == unknown.text


def plan_of(ask: Callable[..., object], api: Api) -> str:
    """How PostgreSQL would read the caller's rows out of a large table."""
    with CaptureQueriesContext(connection) as asked, transaction.atomic():
        sql.run("SET LOCAL enable_seqscan = off")
        ask(api.client.key, api.endpoint)
    with transaction.atomic():
        sql.run("SET LOCAL enable_seqscan = off")
        plans = [sql.rows(f"EXPLAIN {query['sql']}") for query in asked.captured_queries if "jobs_job" in query["sql"]]
    return "\n".join(row[0] for plan in plans for row in plan)


def test_requests_and_health_do_not_look_at_what_others_have_queued_and_done(acme: Api) -> None:
    assert "job_of_tenant" in plan_of(history.requests, acme)
    plan = plan_of(history.health, acme)
    assert all(name in plan for name in ("job_queue", "job_finished", "jobs_attempt"))
    assert "job_deadline" not in plan, "that index holds everybody's"
