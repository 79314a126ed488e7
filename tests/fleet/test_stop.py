"""job-stop (runpod.md 1.4; rules 6, 13): a worker hears within 200 ms what it is to stop, and not twice at once."""

import time

from accounts import sql
from jobs.loss import lose
from jobs.sweep import time_out_overdue
from tests.cast import Client, Place, new_client, row
from tests.fleet.conftest import HELD_S, SDK_WAITS_S
from tests.fleet.wire import WireWorker, aside, call, public

WAKE_S = 0.2


def test_a_stop_poll_is_held_and_then_answers_204(worker: WireWorker) -> None:
    answer = worker.stop()
    assert (answer.status, answer.body) == (204, b"")
    assert HELD_S <= answer.seconds < SDK_WAITS_S


def test_a_cancel_wakes_the_stop_poll_within_200_ms(worker: WireWorker, acme: Client, quick: str) -> None:
    late = []
    for n in range(5):
        job = acme.submit({"n": n})
        worker.take_one()
        poll = worker.polls("stop")
        assert call("POST", f"{quick}/v2/{acme.place.name}/cancel/{public(job)}", b"{}", acme.headers).status == 200
        cancelled = time.monotonic()
        assert poll.result().json == {"jobsToStop": [public(job)]}
        late.append(poll.result().at - cancelled)
        worker.done(public(job), output=1)
    assert sorted(late)[-2] < WAKE_S, late


def test_a_stop_names_the_attempt(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job = acme.submit()
    worker.take_one()
    lose(job.uuid, 1, "test")
    second = other.take_one()
    acme.cancel(job)
    assert other.stop().json == {"jobsToStop": [second]}
    assert second.endswith("-a2")


def test_all_that_is_to_stop_is_said_in_one_answer(worker: WireWorker, acme: Client) -> None:
    jobs = [acme.submit({"n": n}) for n in range(3)]
    worker.take_batch(3)
    for job in jobs:
        acme.cancel(job)
    assert sorted(worker.stop().json["jobsToStop"]) == sorted(map(public, jobs))


def test_who_has_nothing_to_stop_is_told_nothing(quick: str, place: Place, acme: Client) -> None:
    """A worker that does not hold it; one that has reported since; anybody, of a job that was only queued."""
    holder, other, quicker = (WireWorker(quick, place, name) for name in ("holder", "other", "quicker"))
    job, over = acme.submit({"n": 1}), acme.submit({"n": 2})
    holder.take_one()
    quicker.done(quicker.take_one(), output="in spite of the cancel")
    for cancelled in (job, over, acme.submit({"n": 3})):
        acme.cancel(cancelled)
    polls = [aside(worker.stop) for worker in (other, quicker)]
    assert holder.stop().json == {"jobsToStop": [public(job)]}
    assert [poll.result().status for poll in polls] == [204, 204]


def test_a_stop_is_said_again_only_after_ten_seconds(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    worker.take_one()
    acme.cancel(job)
    assert [worker.stop().status for _ in range(2)] == [200, 204]
    sql.run("UPDATE jobs_attempt SET stop_sent_at = stop_sent_at - interval '9 s' WHERE job_id = %s", [job.uuid])
    assert worker.stop().json == {"jobsToStop": [public(job)]}, "it was 9 s and a hold ago"


def test_a_time_out_wakes_the_stop_poll(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    worker.take_one()
    poll = worker.polls("stop")
    sql.run("UPDATE jobs_job SET deadline_at = clock_timestamp() - interval '1 s' WHERE id = %s", [job.uuid])
    time_out_overdue()
    assert poll.result().json == {"jobsToStop": [public(job)]}
    assert row(job).state == "TIMED_OUT"


def test_the_slot_stays_taken_until_the_worker_has_let_go(quick: str, place: Place) -> None:
    client = new_client(place, max_running=1)
    worker, other = WireWorker(quick, place), WireWorker(quick, place, "w2")
    first, second = client.submit(), client.submit()
    attempt = worker.take_one()
    client.cancel(first)
    assert other.take().status == 204, "the cancelled one still runs"
    poll = other.polls()
    worker.done(attempt, output=1)
    assert poll.result().json["id"] == public(second)
