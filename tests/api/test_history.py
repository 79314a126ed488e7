"""/api/v1/jobs: a tenant finds its jobs, reads all that was kept of one, cancels and retries it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from accounts import sql
from jobs.ids import parse_job_id
from jobs.models import Payload
from jobs.news import Done, done
from tests.api.v1 import V1
from tests.cast import attempt_of
from tests.wire.api import Api, finish

NOT_FOUND = ("nothing", "01a2093a-d5ca-7234-b16e-9e33650c0a44-e1", "%00", "x" * 500)


def listed(v1: V1, **params: Any) -> list[str]:
    answered = v1.call("GET", "jobs", params=params)
    assert answered.status_code == 200, answered.text
    return [job["id"] for job in answered.json()["results"]]


def fail(acme: Api, error: bytes) -> str:
    job = acme.run()
    claimed = acme.take()
    assert done(acme.place.endpoint.pk, "w1", attempt_of(claimed), Done(error=error))
    return job


def test_jobs_are_listed_newest_first_on_whatever_endpoint(acme: Api, own_acme: Api, v1: V1) -> None:
    jobs = [acme.run(n) for n in range(3)]
    assert listed(v1) == jobs[::-1]
    found = v1.get("jobs")["results"][0]
    assert (found["endpoint"], found["status"], found["attempt_count"]) == (acme.endpoint, "IN_QUEUE", 0)
    assert found["key"]["prefix"] == acme.client.key.prefix
    assert listed(v1, endpoint=acme.endpoint) == jobs[::-1]
    assert listed(v1, endpoint=own_acme.endpoint) == []


def test_pages_follow_each_other_without_a_gap(acme: Api, v1: V1) -> None:
    jobs = [acme.run(n) for n in range(5)]
    page = v1.get("jobs", limit=2)
    seen = [job["id"] for job in page["results"]]
    acme.run("newer")
    while page["next"]:
        page = v1.get(page["next"].split("/api/v1/")[1])
        seen += [job["id"] for job in page["results"]]
    assert seen == jobs[::-1]


def test_states_are_asked_for(acme: Api, v1: V1) -> None:
    ended, running, queued = acme.run(), acme.run(), acme.run()
    finish(acme, acme.take())
    acme.take()
    assert listed(v1, status="COMPLETED") == [ended]
    assert listed(v1, status="in_progress,IN_QUEUE") == [queued, running]
    assert "IN_QUEUE" in v1.refused(400, "bad_request", "GET", "jobs", params={"status": "LOST"})


def test_a_part_of_the_error_finds_what_failed(acme: Api, v1: V1) -> None:
    oom, other = fail(acme, b'"CUDA out of memory: 12 GiB"'), fail(acme, '"no «x» in %_ there"'.encode())
    finish(acme, (acme.run(), acme.take())[1])
    assert listed(v1, error="OUT OF memory") == [oom]
    assert listed(v1, error="%_") == listed(v1, error="«X»") == [other]
    assert listed(v1, error="out", status="COMPLETED") == []


@pytest.mark.parametrize("text", ['File "/a b.py"', "Größe", "a\\b", "tab\there", "🔥"])
@pytest.mark.parametrize("write", [orjson.dumps, lambda text: json.dumps(text).encode()], ids=["utf-8", "ascii"])
def test_an_error_is_found_however_its_json_was_written(acme: Api, v1: V1, text: str, write: Any) -> None:
    plain = fail(acme, write(f"what: {text}, and so on"))
    of_the_sdk = fail(acme, write(write({"error_message": f"what: {text}, and so on"}).decode()))
    assert listed(v1, error=text) == [of_the_sdk, plain]


def test_bytes_that_are_no_text_break_nobodys_search(acme: Api, v1: V1, stranger: V1) -> None:
    job = fail(acme, b'"boom"')
    Payload.objects.filter(pk=parse_job_id(job).uuid).update(error=b"\xff\x00 boom")  # type: ignore[union-attr]
    assert listed(v1, error="BOOM") == [job]
    assert listed(stranger, error="boom") == []


def test_a_key_finds_what_it_submitted(acme: Api, v1: V1, stranger: V1) -> None:
    job = acme.run()
    other = acme.by(f"Bearer {acme.client.new_key(name='ci')}").run()
    prefix = v1.get("jobs")["results"][0]["key"]["prefix"]
    assert listed(v1, key=prefix) == [other]
    assert listed(v1, key=acme.client.key.prefix) == [job]
    assert listed(stranger, key=acme.client.key.prefix) == []


def test_times_bound_the_list(acme: Api, v1: V1) -> None:
    job = acme.run()
    at = datetime.fromtimestamp((parse_job_id(job).uuid.int >> 80) / 1000, UTC)  # type: ignore[union-attr]
    later = at + timedelta(milliseconds=1)
    assert listed(v1, since=at.isoformat(), until=later.isoformat()) == [job]
    assert listed(v1, since=later.isoformat()) == listed(v1, until=at.isoformat()) == []
    v1.refused(400, "bad_request", "GET", "jobs", params={"since": "yesterday"})


def test_a_job_is_told_with_its_attempts_and_timeline(acme: Api, v1: V1) -> None:
    job = acme.run({"n": 7})
    finish(acme, acme.take(), {"answer": 42})
    found = v1.get(f"jobs/{job}")
    assert (found["status"], found["output"], found["error"]) == ("COMPLETED", {"answer": 42}, None)
    assert [line["kind"] for line in found["timeline"]] == ["created", "handed", "completed"]
    (attempt,) = found["attempts"]
    assert found["attempt_count"] == 1
    assert (attempt["number"], attempt["worker"], attempt["outcome"]) == (1, "w1", "completed")
    assert "input" not in found
    assert v1.get(f"jobs/{job}", input="true")["input"] == {"n": 7}


def test_why_a_job_waits_and_why_one_failed_is_told(acme: Api, v1: V1) -> None:
    assert v1.get(f"jobs/{fail(acme, b'{}')}")["error"] == {}
    assert v1.get(f"jobs/{acme.run()}")["queue"]["position"] == 1


def test_what_retention_took_of_a_job_is_said(acme: Api, v1: V1) -> None:
    job = acme.run()
    finish(acme, acme.take())
    sql.run("UPDATE jobs_job SET payload_gone_at = '2026-01-02T03:04:05Z' WHERE id = %s", [parse_job_id(job).uuid])  # type: ignore[union-attr]
    found = v1.get(f"jobs/{job}", input="true")
    assert (found["output"], found["input"], found["payload_deleted_at"]) == (None, None, "2026-01-02T03:04:05Z")
    assert listed(v1) == [job]


def test_a_deleted_job_is_in_no_list(acme: Api, v1: V1) -> None:
    job = acme.run()
    assert v1.call("DELETE", f"jobs/{job}").status_code == 202
    assert listed(v1) == []
    assert "deleted at" in v1.refused(410, "gone", "GET", f"jobs/{job}")


def test_a_job_is_cancelled_and_one_that_failed_retried(acme: Api, v1: V1) -> None:
    job = acme.run()
    assert v1.call("POST", f"jobs/{job}/cancel").json() == {"id": job, "status": "CANCELLED"}
    v1.refused(409, "not_retryable", "POST", f"jobs/{job}/retry")
    failed = fail(acme, b'"x"')
    assert v1.call("POST", f"jobs/{failed}/retry").json() == {"id": failed, "status": "IN_QUEUE"}


def test_globex_finds_nothing_of_acmes(acme: Api, v1: V1, stranger: V1) -> None:
    job = acme.run()
    assert listed(stranger) == []
    stranger.refused(404, "not_found", "GET", f"jobs/{job}")
    for verb in ("cancel", "retry"):
        stranger.refused(404, "not_found", "POST", f"jobs/{job}/{verb}")
    assert acme.status(job)["status"] == "IN_QUEUE"


@pytest.mark.parametrize("job", NOT_FOUND)
def test_what_is_no_job_of_his_is_not_there(v1: V1, job: str) -> None:
    v1.refused(404, "not_found", "GET", f"jobs/{job}")
    v1.refused(404, "not_found", "POST", f"jobs/{job}/retry")
