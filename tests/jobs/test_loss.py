"""Rules 2 and 3: leases, and what becomes of a job whose worker is gone."""

from collections.abc import Iterator

import pytest

from accounts import sql
from accounts.models import uuid7
from jobs import history, loss, news, workers
from jobs.loss import hand_back, lose, undo
from jobs.queue import Claimed
from jobs.sweep import lose_silent, lose_unstarted
from tests.cast import Client, Place, attempt_of, attempt_row, kinds, new_client, row


def age(claimed: Claimed, seconds: float) -> None:
    """Move all times of an attempt and its worker into the past."""
    back = f"- interval '{seconds} s'"
    sql.run(
        f"UPDATE jobs_attempt SET handed_at = handed_at {back}, confirmed_at = confirmed_at {back},"
        f" named_at = named_at {back}, started_at = started_at {back} WHERE job_id = %s",
        [claimed.job],
    )
    sql.run(
        f"UPDATE jobs_worker w SET take_at = take_at {back}, stop_at = stop_at {back}, ping_at = ping_at {back}"
        " FROM jobs_attempt a WHERE a.worker_id = w.id AND a.job_id = %s",
        [claimed.job],
    )


@pytest.fixture(autouse=True)
def web_is_up() -> Iterator[None]:
    """A web process that has taken pings for a minute."""
    process = uuid7()
    history.beat(process)
    sql.run("UPDATE jobs_webprocess SET up_since = up_since - interval '1 minute' WHERE id = %s", [process])
    yield
    sql.run("DELETE FROM jobs_webprocess WHERE id = %s", [process])


def lost(claimed: Claimed) -> bool:
    lose_silent()
    return attempt_row(claimed).outcome == "lost"


def test_an_unconfirmed_hand_over_is_lost_after_the_lease(acme: Client) -> None:
    acme.submit()
    claimed = acme.place.worker().take_one()
    age(claimed, 20)
    assert not lost(claimed)
    age(claimed, 6)
    assert lost(claimed)
    assert row(claimed).state == "IN_QUEUE"


def test_a_ping_confirms_and_keeps(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    age(claimed, 24)
    worker.ping(claimed)
    age(claimed, 20)
    worker.ping(claimed)
    assert not lost(claimed)


def test_a_confirmed_attempt_whose_pings_stop_is_lost(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    worker.ping(claimed)
    age(claimed, 26)
    assert lost(claimed)


def test_pings_of_an_orphan_do_not_keep_a_job_of_a_worker_that_polled_in_jobs(acme: Client) -> None:
    """SIGKILL leaves the SDK's ping process running; the polls of job-stop end with the worker."""
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    age(claimed, 3)
    worker.stops()
    worker.ping(claimed)
    age(claimed, 26)
    worker.ping(claimed)
    assert lost(claimed)


def test_pings_alone_keep_the_job_of_a_handler_that_blocks(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    worker.stops()
    claimed = worker.take_one()
    age(claimed, 26)
    worker.ping(claimed)
    assert not lost(claimed)


def test_pings_alone_do_not_keep_the_job_of_a_worker_whose_poll_was_cut_off(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    poller = worker.poll()
    claimed = worker.take_one()
    workers.hang_up(poller)
    age(claimed, 26)
    worker.ping(claimed)
    assert lost(claimed)


def test_a_worker_that_polls_again_has_not_hung_up(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    workers.hang_up(worker.poll())
    worker.poll()
    age(claimed, 26)
    worker.ping(claimed)
    assert not lost(claimed)


def test_nothing_is_lost_for_silence_while_nobody_could_listen(acme: Client) -> None:
    acme.submit()
    claimed = acme.place.worker().take_one()
    age(claimed, 60)
    sql.run("UPDATE jobs_webprocess SET up_since = clock_timestamp()")
    assert not lost(claimed)


def test_a_gap_in_the_web_process_starts_the_lease_anew() -> None:
    process = uuid7()
    history.beat(process)
    back = "SET up_since = up_since - interval '1 h', seen_at = seen_at - interval '7 s'"
    sql.run(f"UPDATE jobs_webprocess {back} WHERE id = %s", [process])
    history.beat(process)
    (fresh,) = sql.one(
        "SELECT up_since > clock_timestamp() - interval '5 s' FROM jobs_webprocess WHERE id = %s", [process]
    )
    assert fresh


def test_two_pings_without_it_lose_a_job_at_once(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    age(claimed, 3)
    worker.ping()
    assert attempt_row(claimed).outcome == ""
    worker.ping()
    assert attempt_row(claimed).outcome == "lost"


def test_pings_sent_before_the_hand_over_count_for_nothing(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    worker.ping()
    worker.ping()
    assert attempt_row(claimed).outcome == ""


def test_a_worker_that_asks_with_nothing_in_progress_has_lost_what_it_held(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    age(claimed, 3)
    worker.poll(idle=True)
    assert attempt_row(claimed).outcome == "lost"


def test_that_question_may_be_older_than_the_hand_over(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    worker.poll(idle=True)
    assert attempt_row(claimed).outcome == ""


def test_a_death_notice_loses_all_that_the_worker_held(acme: Client) -> None:
    for n in range(2):
        acme.submit({"n": n})
    worker = acme.place.worker()
    held = worker.take(n=2)
    workers.unhealthy(acme.place.key, acme.place.name, worker.name, "_memory_check")
    assert [attempt_row(claimed).outcome for claimed in held] == ["lost", "lost"]


def test_a_job_that_was_started_is_tried_three_times_and_fails_saying_so(acme: Client) -> None:
    job = acme.submit()
    for n in (1, 2, 3):
        claimed = acme.place.worker(f"w{n}").take_one()
        assert claimed.number == n
        lose(claimed.job, claimed.number, "test")
    found = row(job)
    assert found.state == "FAILED"
    assert b"3 times" in bytes(found.payload.error)
    assert acme.place.worker().take() == []


def test_losses_before_the_start_are_free_three_times(own_place: Place) -> None:
    job = new_client(own_place).submit()
    for n in range(6):
        claimed = own_place.worker(f"w{n}").take_one()
        lose(claimed.job, claimed.number, "test")
        assert row(job).state == ("IN_QUEUE" if n < 5 else "FAILED")


def test_an_attempt_is_lost_once(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    assert lose(claimed.job, claimed.number, "test")
    assert not lose(claimed.job, claimed.number, "test")
    assert kinds(job).count("lost") == 1


def test_an_undone_hand_over_counts_for_nothing(acme: Client) -> None:
    job = acme.submit()
    for n in range(10):
        claimed = acme.place.worker(f"w{n}").take_one()
        assert undo(claimed.job, claimed.number)
    assert (row(job).state, row(job).losses, row(job).free_losses) == ("IN_QUEUE", 0, 0)


def test_a_handed_back_job_goes_to_the_next_worker(own_place: Place) -> None:
    new_client(own_place).submit()
    claimed = own_place.worker().take_one()
    assert hand_back(claimed.job, claimed.number, "shutting down")
    assert own_place.worker("w2").take_one().job == claimed.job


def test_a_worker_that_shuts_down_keeps_its_job_by_saying_that_it_is_alive(own_place: Place) -> None:
    """Its polls and pings have ended."""
    new_client(own_place).submit()
    worker = own_place.worker()
    claimed = worker.take_one()
    news.started(attempt_of(claimed))
    workers.hang_up(worker.poll())
    age(claimed, 26)
    assert workers.alive(attempt_of(claimed))
    assert not lost(claimed)
    age(claimed, 26)
    assert lost(claimed)


def test_an_attempt_that_has_ended_is_not_kept_alive(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    claimed = own_place.worker().take_one()
    client.cancel(job)
    assert not workers.alive(attempt_of(claimed))


def test_an_idle_worker_that_never_starts_what_it_holds_loses_it(own_place: Place) -> None:
    new_client(own_place).submit()
    worker = own_place.worker()
    claimed = worker.take_one()
    worker.ping(claimed)
    age(claimed, 599)
    lose_unstarted()
    assert attempt_row(claimed).outcome == ""
    age(claimed, 2)
    lose_unstarted()
    assert attempt_row(claimed).outcome == "lost"


def test_a_job_made_ready_waits_for_the_running_one(own_place: Place) -> None:
    client = new_client(own_place)
    client.submit()
    client.submit()
    worker = own_place.worker()
    running = worker.take_one()
    news.started(attempt_of(running))
    ready = worker.take_one()
    age(ready, 601)
    lose_unstarted()
    assert attempt_row(ready).outcome == ""


def test_a_lost_worker_that_comes_back_is_told_to_stop(acme: Client) -> None:
    acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    loss.lose(claimed.job, claimed.number, "test")
    sql.run("UPDATE jobs_attempt SET ended_at = ended_at - interval '3 s' WHERE job_id = %s", [claimed.job])
    worker.ping(claimed)
    assert worker.stops() == [attempt_of(claimed)]
    assert worker.stops() == [], "said again only after 10 s"


def test_a_stop_is_no_longer_wanted_once_the_worker_has_let_go(acme: Client) -> None:
    job = acme.submit()
    worker = acme.place.worker()
    claimed = worker.take_one()
    acme.cancel(job)
    age(claimed, 3)
    worker.ping()
    worker.ping()
    attempt = attempt_row(claimed)
    assert attempt.released_at is not None
    assert worker.stops() == []
