"""Clients' verbs: cancel, retry, purge; secrets of a request; the sweeper's deadlines."""

import pytest

from accounts import sql
from accounts.errors import Refused
from jobs import news
from jobs.loss import lose
from jobs.models import Payload
from jobs.news import Done
from jobs.sweep import time_out_overdue, wipe_request_buckets
from tests.cast import Client, attempt_of, attempt_row, kinds, row

OK = Done(output=b"1", output_value=1)
FAILURE = Done(error=b'"boom"', error_value="boom")
OWN_BUCKET = {
    "endpointUrl": "https://s3.example.com",
    "accessId": "AKIAEXAMPLE",
    "accessSecret": "wJalrXUtnFEMIsecret",
    "bucketName": "outputs",
}


def run_to(acme: Client, done: Done) -> object:
    job = acme.submit(s3Config=OWN_BUCKET)
    claimed = acme.place.worker().take_one()
    news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    return job


def test_a_queued_job_is_cancelled_and_never_handed_over(acme: Client) -> None:
    job = acme.submit()
    assert acme.cancel(job) == "CANCELLED"
    assert acme.place.worker().take() == []
    assert kinds(job) == ["created", "cancelled"]


def test_a_running_job_is_cancelled_at_once_and_its_worker_told(acme: Client) -> None:
    job = acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    acme.cancel(job)
    assert row(job).state == "CANCELLED"
    assert attempt_row(claimed).released_at is None, "it keeps its slot until the worker has let go"
    assert worker.stops() == [attempt_of(claimed)]


def test_cancelling_an_ended_job_changes_nothing(acme: Client) -> None:
    job = run_to(acme, OK)
    assert acme.cancel(job) == "COMPLETED"
    assert kinds(job)[-1] == "completed"


@pytest.mark.parametrize("end", ["FAILED", "TIMED_OUT"])
def test_retry_queues_an_unlucky_job_again_under_the_same_id(acme: Client, end: str) -> None:
    job = run_to(acme, FAILURE)
    if end == "TIMED_OUT":
        sql.run("UPDATE jobs_job SET state = 'TIMED_OUT' WHERE id = %s", [job.uuid])
    before = row(job)
    assert acme.retry(job) == "IN_QUEUE"
    after = row(job)
    assert after.queued_at > before.queued_at
    assert (after.payload.output, after.payload.error, after.finished_at, after.retries) == (None, None, None, 1)
    assert acme.place.worker("w2").take_one().number == 2


def test_retry_works_once_per_end(acme: Client) -> None:
    job = run_to(acme, FAILURE)
    acme.retry(job)
    with pytest.raises(Refused) as refused:
        acme.retry(job)
    assert refused.value.status == 409


def test_retry_gives_a_job_three_new_attempts(acme: Client) -> None:
    job = acme.submit()
    for _ in range(2):
        for n in range(3):
            claimed = acme.place.worker(f"w{n}").take_one()
            lose(claimed.job, claimed.number, "test")
        assert row(job).state == "FAILED"
        acme.retry(job)
    assert row(job).attempt == 6


def test_a_completed_job_cannot_be_retried(acme: Client) -> None:
    job = run_to(acme, OK)
    with pytest.raises(Refused) as refused:
        acme.retry(job)
    assert refused.value.status == 409


def test_purge_cancels_the_callers_queued_jobs_only(acme: Client, globex: Client) -> None:
    from jobs.lifecycle import purge

    running, queued, other = acme.submit(), acme.submit(), globex.submit()
    acme.place.worker().take_one()
    assert purge(acme.key, acme.place.name) == 1
    assert [row(job).state for job in (running, queued, other)] == ["IN_PROGRESS", "CANCELLED", "IN_QUEUE"]
    assert kinds(queued) == ["created", "cancelled"]


def test_purge_goes_on_beyond_one_batch(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs import lifecycle

    monkeypatch.setattr(lifecycle, "PURGE_BATCH", 3)
    jobs = [acme.submit() for _ in range(8)]
    assert lifecycle.purge(acme.key, acme.place.name) == 8
    assert {row(job).state for job in jobs} == {"CANCELLED"}


def test_ttl_ends_a_job_nobody_took(acme: Client) -> None:
    job = acme.submit(policy={"ttl": 10_000})
    time_out_overdue()
    assert row(job).state == "IN_QUEUE"
    sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '11 s' WHERE id = %s", [job.uuid])
    time_out_overdue()
    found = row(job)
    assert found.state == "TIMED_OUT"
    assert b"ttl of 10000 ms" in bytes(found.payload.error)


def test_the_execution_time_out_ends_the_job_and_stops_the_worker(acme: Client) -> None:
    job = acme.submit(policy={"executionTimeout": 5_000})
    worker = acme.place.worker()
    claimed = worker.take_one()
    sql.run("UPDATE jobs_job SET deadline_at = deadline_at - interval '6 s' WHERE id = %s", [job.uuid])
    time_out_overdue()
    assert row(job).state == "TIMED_OUT"
    assert worker.stops() == [attempt_of(claimed)]


def test_a_lost_jobs_ttl_still_counts_from_its_submission(acme: Client) -> None:
    job = acme.submit(policy={"ttl": 60_000})
    before = row(job).deadline_at
    claimed = acme.place.worker().take_one()
    lose(claimed.job, claimed.number, "test")
    assert row(job).deadline_at == before


def secret_of(job: object) -> object:
    return Payload.objects.get(job_id=job.uuid).request_bucket


def test_a_requests_secret_is_sealed_and_gone_when_no_retry_can_need_it(acme: Client) -> None:
    job = acme.submit(s3Config=OWN_BUCKET)
    sealed = secret_of(job)
    assert OWN_BUCKET["accessSecret"] not in str(bytes(sealed.token)) + repr(sealed)
    assert OWN_BUCKET["accessSecret"] in sealed.unseal()
    acme.cancel(job)
    assert secret_of(job) is None


def test_it_goes_at_once_when_the_job_completes(acme: Client) -> None:
    assert secret_of(run_to(acme, OK)) is None


def test_it_is_kept_for_a_day_after_a_failure_and_then_retry_is_refused(acme: Client) -> None:
    job = run_to(acme, FAILURE)
    wipe_request_buckets()
    assert secret_of(job) is not None
    sql.run("UPDATE jobs_job SET finished_at = finished_at - interval '25 h' WHERE id = %s", [job.uuid])
    wipe_request_buckets()
    assert secret_of(job) is None
    with pytest.raises(Refused, match="24 h"):
        acme.retry(job)


def test_secrets_are_cut_out_of_the_input_and_the_rest_is_kept_byte_for_byte(own_place: object) -> None:
    from jobs.wire.bodies import parse_request
    from jobs.wire.submission import parse_submission

    bucket = b'{"endpointUrl":"https://s3.example.com","accessId":"A","accessSecret":"hunter2","bucketName":"b"}'
    workflow = b'{"1": {"class_type": "A", "n":  18446744073709551615.0}}'
    body = b'{"input": {"workflow": ' + workflow + b', "tobucket": ' + bucket + b"}}"
    submission = parse_submission(parse_request(body), sync=False)
    assert submission.workflow_input == b'{"workflow":' + workflow + b"}"
    assert submission.request_bucket is not None
