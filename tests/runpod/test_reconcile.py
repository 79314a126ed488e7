"""What RunPod does not tell is asked; what ends here is stopped there; nothing is ever stuck."""

import pytest
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from accounts import sql
from jobs import loss, news, remote
from jobs.backends.base import BackendError
from jobs.dispatch import rest_s
from jobs.ids import AttemptId
from jobs.sweep import STEPS, sweep, time_out_overdue
from tests.jobs.recount import check_usage
from tests.runpod.cloud import DROPPED, Cloud, Fault
from tests.runpod.pushed import Pushed, claimed, error, kinds, new_pushed, row, state


def woken(acme: Pushed) -> int:
    """How many tasks for this endpoint's dispatcher wait."""
    tasks = [SignedPackage.loads(queued.payload) for queued in OrmQ.objects.filter(key="fast")]
    return sum(task["func"] == "jobs.tasks.dispatch" and task["args"] == (acme.endpoint_id,) for task in tasks)


def asked(acme: Pushed) -> int:
    return len(acme.there.asked("status"))


def test_no_news_for_a_while_and_runpod_is_asked_in_growing_intervals(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.attends(4)
    assert asked(acme) == 0
    acme.attends(1.1)
    assert asked(acme) == 1
    gaps = []
    for _ in range(12):
        acme.passes(600)
        acme.dispatch()
        left = sql.one(
            "SELECT extract(epoch FROM ask_at - clock_timestamp()) FROM jobs_attempt WHERE job_id = %s", [job.uuid]
        )
        gaps.append(float(left[0]))
    assert 5 * 0.7 < gaps[0] < 15
    assert 60 * 0.7 < gaps[-1] < 60 * 1.3
    assert state(job) == "IN_PROGRESS"


def test_a_result_whose_webhook_was_lost_is_fetched(acme: Pushed) -> None:
    jobs = [acme.submit({"n": n}) for n in range(4)]
    acme.dispatch()
    for job in jobs:
        acme.there.becomes(acme.remote(job), "COMPLETED", output="x", executionTime=100)
    acme.attends(6)
    assert {state(job) for job in jobs} == {"COMPLETED"}
    check_usage(acme.client.tenant)


@pytest.mark.parametrize("odd", [Fault(status=200, body=b"<html>"), Fault(status=400)])
def test_an_odd_answer_about_one_job_keeps_no_other_from_going_out(acme: Pushed, odd: Fault) -> None:
    acme.there.meets("status", odd)
    job = acme.pushed({"n": 1})
    acme.submit({"n": 2})
    assert acme.attends(6) == 1
    assert (acme.runpod.failures, state(job)) == (0, "IN_PROGRESS")
    acme.there.becomes(acme.remote(job), "COMPLETED", output=1)
    acme.attends(61)
    assert state(job) == "COMPLETED"


def test_many_failures_of_one_moment_count_once(acme: Pushed) -> None:
    for n in range(4):
        acme.submit({"n": n})
    acme.dispatch()
    acme.there.meets("status", *[Fault(status=503)] * 4)
    acme.attends(6)
    assert acme.runpod.failures == 1


def test_many_are_asked_in_one_turn(cloud: Cloud) -> None:
    acme = new_pushed(cloud, at_a_time=20)
    for n in range(20):
        acme.submit({"n": n})
    acme.dispatch()
    acme.attends(6)
    assert asked(acme) == 20


def test_progress_is_shown_and_a_foreign_workers_start_is_when_runpod_first_says_so(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.there.becomes(acme.remote(job), "IN_PROGRESS", output={"fraction": 0.5})
    acme.attends(6)
    found = row(job)
    assert bytes(found.payload.progress) == b'{"fraction":0.5}'
    assert found.started_at is not None
    assert found.deadline_at is not None
    assert kinds(job) == ["created", "handed", "started"]


def test_a_job_that_runpod_does_not_know_any_more_is_lost_and_has_its_next_attempt(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.there.jobs.clear()
    assert acme.attends(6) == 1
    assert kinds(job) == ["created", "handed", "lost", "handed"]
    assert acme.remote(job) in acme.there.jobs


def test_a_job_that_runpod_loses_again_and_again_fails(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    for _ in range(6):
        news.started(AttemptId(job.uuid, acme.attempt(job).number))
        acme.there.jobs.clear()
        acme.attends(6)
        if state(job) == "FAILED":
            break
    assert (state(job), acme.attempt(job).number) == ("FAILED", 3)
    assert "RunPod does not know the job" in error(job)
    check_usage(acme.client.tenant)


@pytest.mark.parametrize("ended", ["CANCELLED", "TIMED_OUT"])
def test_what_ends_at_runpod_before_it_ran_is_handed_over_anew(acme: Pushed, ended: str) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, ended)
    assert state(job) == "IN_QUEUE"
    assert acme.dispatch() == 1


def test_what_runs_too_long_at_runpod_is_timed_out(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "TIMED_OUT", executionTime=600_100)
    assert state(job) == "TIMED_OUT"
    assert "executionTimeout" in error(job)


def test_a_cancel_reaches_runpod_and_the_slot_is_free_when_it_has_let_go(cloud: Cloud) -> None:
    acme = new_pushed(cloud, at_a_time=1)
    job, other = acme.pushed({"n": 1}), acme.submit({"n": 2})
    acme.there.meets("cancel", Fault(status=500))
    before = woken(acme)
    assert acme.client.cancel(job) == "CANCELLED"
    assert woken(acme) == before + 1
    assert acme.dispatch() == 0
    assert (acme.attempt(job).released_at, state(other)) == (None, "IN_QUEUE")
    assert acme.attends(61) == 1
    assert acme.there.jobs[acme.remote(job)]["status"] == "CANCELLED"
    assert acme.attempt(job).released_at is not None
    check_usage(acme.client.tenant)


def test_runpods_news_of_the_cancel_frees_the_slot(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.client.cancel(job)
    acme.hears(job, "IN_PROGRESS")
    assert acme.attempt(job).released_at is None
    acme.hears(job, "CANCELLED")
    assert acme.attempt(job).released_at is not None


def test_a_cancel_of_what_has_ended_there_is_let_go_of_too(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.there.jobs.clear()
    acme.client.cancel(job)
    acme.dispatch()
    assert acme.attempt(job).released_at is not None
    assert kinds(job)[-1] == "cancelled"


def test_a_job_cancelled_before_it_was_sent_is_never_sent(acme: Pushed) -> None:
    job = acme.submit({"n": 1})
    attempt = claimed(acme)
    acme.client.cancel(job)
    assert remote.send(attempt) is None
    remote.give_up_expired()
    assert acme.attempt(job).released_at is not None
    assert acme.dispatch() == 0


def test_a_job_cancelled_while_its_request_is_out_is_cancelled_there_as_soon_as_it_has_a_name(acme: Pushed) -> None:
    job = acme.submit({"n": 1})
    attempt = claimed(acme)
    handover = remote.send(attempt)
    acme.client.cancel(job)
    acme.dispatch()
    assert acme.attempt(job).released_at is None
    assert handover
    acme.there.jobs["rp-x"] = {"id": "rp-x", "status": "IN_QUEUE"}
    remote.taken(attempt, "rp-x")
    acme.dispatch()
    assert acme.there.jobs["rp-x"]["status"] == "CANCELLED"
    assert acme.attempt(job).released_at is not None


def test_a_job_that_runs_longer_than_its_time_out_is_stopped_there(acme: Pushed) -> None:
    job = acme.pushed({"n": 1}, policy={"executionTimeout": 5_000})
    acme.hears(job, "IN_PROGRESS")
    acme.passes(6)
    time_out_overdue()
    assert state(job) == "TIMED_OUT"
    acme.dispatch()
    assert acme.there.jobs[acme.remote(job)]["status"] == "CANCELLED"


def test_a_retry_is_a_new_job_at_runpod(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "FAILED", error="boom")
    assert acme.client.retry(job) == "IN_QUEUE"
    assert acme.dispatch() == 1
    acme.hears(job, "COMPLETED", attempt=2, output=2)
    assert (state(job), len(acme.there.jobs)) == ("COMPLETED", 2)
    check_usage(acme.client.tenant)


def test_an_outage_of_minutes_costs_only_time(acme: Pushed) -> None:
    jobs = [acme.submit({"n": n}) for n in range(8)]
    acme.dispatch()
    for op in ("status", "run", "health", "cancel"):
        acme.there.meets(op, *[Fault(status=503)] * 30)
    for job in jobs[:4]:
        acme.there.becomes(acme.remote(job), "COMPLETED", output=1)
    for _ in range(5):
        acme.passes(60)
        sweep(STEPS)
        acme.dispatch()
    assert [state(job) for job in jobs] == ["IN_PROGRESS"] * 4 + ["IN_QUEUE"] * 4
    acme.there.faults.clear()
    acme.attends(61)
    assert [state(job) for job in jobs] == ["COMPLETED"] * 4 + ["IN_PROGRESS"] * 4
    assert all(kinds(job) == ["created", "handed", "completed"] for job in jobs[:4])


def test_an_attempt_that_nobody_can_tell_of_is_given_up_when_its_life_there_is_over(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.there.meets("status", *[Fault(status=503)] * 100)
    acme.there.meets("health", *[Fault(status=503)] * 100)
    acme.passes(1800 + 600 + 600 + remote.MARGIN_S + 60)
    acme.dispatch()
    remote.give_up_expired()
    assert state(job) == "IN_PROGRESS", "RunPod may come back and tell"
    acme.passes(remote.PATIENCE_S)
    remote.give_up_expired()
    assert state(job) == "IN_QUEUE"


def test_an_ended_attempt_of_unknown_outcome_frees_its_slot_when_its_life_there_is_over(acme: Pushed) -> None:
    acme.there.meets("run", DROPPED)
    job = acme.submit({"n": 1}, policy={"ttl": 20_000, "executionTimeout": 5_000})
    acme.dispatch()
    acme.passes(21)
    time_out_overdue()
    acme.attends(10)
    assert (state(job), acme.attempt(job).released_at) == ("TIMED_OUT", None)
    acme.passes(100)
    remote.give_up_expired()
    assert acme.attempt(job).released_at is not None


def test_our_workers_start_counts_for_a_pushed_attempt_and_only_for_the_current_one(own: Pushed) -> None:
    job = own.pushed()
    assert news.started(AttemptId(job.uuid, 1))
    loss.lose(job.uuid, 1, "it was lost")
    own.dispatch()
    assert not news.started(AttemptId(job.uuid, 1))
    assert news.started(AttemptId(job.uuid, 2))


def test_a_job_that_our_worker_gives_back_goes_out_again(own: Pushed) -> None:
    job = own.pushed()
    assert loss.hand_back(job.uuid, 1, "ComfyUI crashed", "comfyui_crashed")
    own.hears(job, "FAILED", error="Not run: the job went back to Hearth")
    assert state(job) == "IN_QUEUE"
    assert own.dispatch() == 1


def test_a_job_that_our_worker_could_not_announce_goes_out_again(own: Pushed) -> None:
    job = own.pushed()
    own.hears(job, "FAILED", error="Not run: started: Hearth is not reachable, for 60 s")
    assert kinds(job) == ["created", "handed", "lost"]


def test_the_sweeper_wakes_a_dispatcher_for_what_is_due_but_not_each_second(acme: Pushed) -> None:
    acme.pushed({"n": 1})
    OrmQ.objects.all().delete()
    remote.wake_waiting()
    assert woken(acme) == 0
    acme.passes(6)
    remote.wake_waiting()
    remote.wake_waiting()
    assert woken(acme) == 1


def test_the_sweeper_wakes_a_dispatcher_for_what_waits_in_the_queue(acme: Pushed) -> None:
    acme.submit({"n": 1})
    OrmQ.objects.all().delete()
    acme.passes(4)
    remote.wake_waiting()
    assert woken(acme) == 1


def test_the_end_of_a_job_wakes_the_dispatcher(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    OrmQ.objects.all().delete()
    acme.hears(job, "COMPLETED", output=1)
    assert woken(acme) == 1


def test_rests_grow_to_a_minute_and_are_at_least_what_was_asked_for() -> None:
    busy = BackendError("", permanent=False)
    assert 1 <= rest_s(1, busy) <= 2
    assert 30 <= rest_s(9, busy) <= 60
    assert rest_s(1, BackendError("", permanent=False, retry_after_s=90)) == 90
    assert rest_s(1, BackendError("", permanent=True)) >= 30
