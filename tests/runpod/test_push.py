"""Jobs pushed to RunPod: each once, never more at a time than allowed, none lost where a dispatcher dies."""

import itertools
import threading

import pytest
from django.core import signing
from django.db import connection

from jobs import remote
from jobs.ids import attempt_id
from jobs.sweep import time_out_overdue
from tests.runpod.cloud import DROPPED, NOT_HEARD, Cloud, Fault
from tests.runpod.pushed import Pushed, claimed, error, kinds, new_pushed, row, state


def test_a_job_is_posted_as_it_is_with_a_way_back_and_bounds(acme: Pushed) -> None:
    job = acme.pushed({"n": [1, 2.50]}, policy={"executionTimeout": 30_000, "ttl": 100_000})
    (sent,) = acme.there.asked("run")
    assert b'"input":{"n":[1,2.5]}' in sent.body
    assert "/hooks/runpod/" in sent.json["webhook"]
    policy = sent.json["policy"]
    assert policy["executionTimeout"] == 30_000
    assert 125_000 < policy["ttl"] <= 130_000, "what is left of the job's ttl, and the run"
    assert sent.headers["Idempotency-Key"] == attempt_id(job.uuid, False, 1)
    found = row(job)
    assert (found.state, found.started_at, acme.remote(job)) == ("IN_PROGRESS", None, next(iter(acme.there.jobs)))


def test_a_raw_jobs_own_bucket_goes_along_where_workers_look_for_it(acme: Pushed) -> None:
    config = {"accessId": "A", "accessSecret": "S", "bucketName": "b", "endpointUrl": "https://s3.example.com"}
    acme.pushed({"n": 1}, s3Config=config)
    assert acme.there.asked("run")[0].json["s3Config"] == config


def test_our_own_worker_is_told_its_way_back_and_says_when_it_starts(own: Pushed) -> None:
    job = own.pushed()
    given = own.there.asked("run")[0].json["input"]
    assert given["_hearth"]["url"]
    own.hears(job, "IN_PROGRESS")
    assert row(job).started_at is None, "it takes a while until ComfyUI begins"
    assert kinds(job) == ["created", "handed"]


def test_no_more_are_out_than_the_endpoints_number_and_the_next_goes_when_one_ends(acme: Pushed) -> None:
    jobs = [acme.submit({"n": n}) for n in range(6)]
    assert acme.dispatch() == 4
    assert acme.dispatch() == 0
    acme.hears(jobs[0], "COMPLETED", output=1)
    assert acme.dispatch() == 1
    assert [state(job) for job in jobs] == ["COMPLETED", *["IN_PROGRESS"] * 4, "IN_QUEUE"]


def test_many_dispatchers_push_each_job_once(cloud: Cloud) -> None:
    acme = new_pushed(cloud, at_a_time=30)
    for n in range(30):
        acme.submit({"n": n})
    counts: list[int] = []

    def run() -> None:
        counts.append(acme.dispatch())
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 30
    assert sorted(sent.json["input"]["n"] for sent in acme.there.asked("run")) == list(range(30))


def test_what_a_dead_dispatcher_claimed_another_sends(acme: Pushed) -> None:
    job = acme.submit({"n": 1})
    claimed(acme)
    assert acme.dispatch() == 1
    assert kinds(job) == ["created", "handed"]


def test_what_a_dead_dispatcher_may_have_sent_is_not_sent_again_until_its_life_is_over(acme: Pushed) -> None:
    job = acme.submit({"n": 1}, policy={"executionTimeout": 60_000})
    assert remote.send(claimed(acme))
    acme.passes(1800 + 60)
    remote.give_up_expired()
    assert acme.attends(60) == 0, "so long a worker may run that began at the last moment"
    acme.passes(remote.MARGIN_S)
    remote.give_up_expired()
    assert acme.dispatch() == 1
    assert kinds(job) == ["created", "handed", "lost", "handed"]
    assert len(acme.there.asked("run")) == 1


@pytest.mark.parametrize("fault", [DROPPED, Fault(status=500), Fault(status=502), Fault(status=504, done=True)])
def test_an_unknown_outcome_keeps_its_slot_and_waits_for_news(cloud: Cloud, fault: Fault) -> None:
    acme = new_pushed(cloud, at_a_time=2)
    acme.there.meets("run", fault)
    jobs = [acme.submit({"n": n}) for n in range(3)]
    assert acme.dispatch() == 0
    assert [state(job) for job in jobs] == ["IN_PROGRESS", "IN_QUEUE", "IN_QUEUE"]
    assert "not known" in row(jobs[0]).events.last().text
    assert acme.attends(61) == 1, "the unknown one is one of the two"
    acme.hears_body(jobs[0], b'{"id": "rp-late", "status": "COMPLETED", "output": {"ok": true}}')
    assert state(jobs[0]) == "COMPLETED"
    assert acme.remote(jobs[0]) == "rp-late"
    assert acme.dispatch() == 1


def test_a_side_that_keeps_idempotency_keys_is_sent_the_very_same_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.count(1)
    monkeypatch.setattr(signing.TimestampSigner, "timestamp", lambda _: signing.b62_encode(next(times)))
    own = new_pushed(cloud, "hearth", keeps_keys=True)
    own.there.meets("run", DROPPED, NOT_HEARD)
    job = own.submit()
    own.dispatch()
    for _ in range(2):
        own.is_due()
        own.dispatch()
    assert len(own.there.jobs) == 1
    first, second, third = own.there.asked("run")
    assert first.body == second.body == third.body
    assert own.remote(job) in own.there.jobs
    assert kinds(job) == ["created", "handed", "noted"]


@pytest.mark.parametrize("fault", [Fault(status=429, headers={"Retry-After": "7"}), Fault(status=503)])
def test_a_refused_job_goes_back_to_its_place_and_runpod_is_left_alone_for_a_while(acme: Pushed, fault: Fault) -> None:
    acme.there.meets("run", fault)
    job = acme.submit({"n": 1})
    assert acme.dispatch() == 0
    assert (state(job), row(job).losses, row(job).free_losses) == ("IN_QUEUE", 0, 0)
    assert acme.dispatch() == 0
    assert len(acme.there.asked("run")) == 1
    assert acme.attends(7.1) == 1
    assert (acme.runpod.failures, acme.runpod.trouble) == (0, "")
    assert kinds(job) == ["created", "handed", "undone", "handed"]


def test_retry_after_is_kept_to(acme: Pushed) -> None:
    acme.there.meets("run", Fault(status=429, headers={"Retry-After": "50"}))
    acme.submit({"n": 1})
    acme.dispatch()
    assert acme.attends(48) == 0
    assert acme.attends(2.1) == 1


@pytest.mark.parametrize(("status", "said"), [(401, "refuses the API key"), (404, "knows no endpoint")])
def test_a_wrong_key_or_endpoint_fails_no_job_and_is_the_operators_to_see(acme: Pushed, status: int, said: str) -> None:
    acme.there.meets("run", Fault(status=status))
    job = acme.submit({"n": 1})
    acme.dispatch()
    assert state(job) == "IN_QUEUE"
    assert said in acme.runpod.trouble
    assert acme.attends(61) == 1


@pytest.mark.parametrize("status", [400, 413])
def test_a_job_that_runpod_will_never_take_fails_with_its_reason(acme: Pushed, status: int) -> None:
    acme.there.meets("run", Fault(status=status, body=b'{"error": "input too large"}'))
    job, other = acme.submit({"n": 1}), acme.submit({"n": 2})
    acme.dispatch()
    assert (state(job), state(other)) == ("FAILED", "IN_PROGRESS")
    assert "input too large" in error(job)


def test_while_runpod_is_away_jobs_wait_in_the_queue_and_none_is_tried_in_vain(acme: Pushed) -> None:
    acme.there.meets("run", Fault(status=503))
    acme.there.meets("health", *[Fault(status=503)] * 5)
    jobs = [acme.submit({"n": n}) for n in range(3)]
    acme.dispatch()
    for _ in range(5):
        assert acme.attends(61) == 0
    assert {state(job) for job in jobs} == {"IN_QUEUE"}
    assert len(acme.there.asked("run")) == 1
    assert acme.runpod.failures == 6
    assert acme.attends(61) == 3


def test_a_job_that_does_not_start_there_within_its_ttl_times_out_and_is_cancelled_there(acme: Pushed) -> None:
    job = acme.pushed({"n": 1}, policy={"ttl": 20_000})
    acme.passes(21)
    time_out_overdue()
    assert state(job) == "TIMED_OUT"
    assert "ttl of 20000 ms" in error(job)
    acme.dispatch()
    assert acme.there.jobs[acme.remote(job)]["status"] == "CANCELLED"
    assert acme.attempt(job).released_at is not None
