"""Rule 3: a poll whose client has hung up gets no job, or its hand-over is undone and the next poll has it at once."""

import contextlib
import random
import select
import socket
import time
from collections.abc import Iterator

import psycopg

from jobs.ids import JobId
from jobs.models import Attempt
from tests.cast import Client, Place, kinds, row
from tests.fleet.wire import WireWorker, public, until

AT_ONCE_S = 0.5


def waiting(worker: WireWorker, what: str = "job-take") -> socket.socket:
    """A poll's socket, once the poll waits."""
    sock = worker.waiting_socket(what)
    until(lambda: worker.seen(what.partition("-")[2]))
    return sock


@contextlib.contextmanager
def locked(database: str, place: Place) -> Iterator[None]:
    """Claims find the grants of this place locked, and try again for a second."""
    with psycopg.connect(database) as session:
        session.execute("SELECT 1 FROM jobs_grant WHERE endpoint_id = %s FOR NO KEY UPDATE", [place.endpoint.pk])
        yield


def outcomes(job: JobId) -> list[str]:
    return list(Attempt.objects.filter(job_id=job.uuid).order_by("number").values_list("outcome", flat=True))


def test_who_hung_up_while_waiting_is_handed_nothing(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    waiting(worker).close()
    poll = other.polls()
    job = acme.submit()
    submitted = time.monotonic()
    assert poll.result().json["id"] == public(job)
    assert poll.result().at - submitted < AT_ONCE_S
    assert kinds(job) == ["created", "handed"]


def test_twenty_who_hung_up_do_not_keep_a_job_from_the_one_who_waits(
    quick: str, place: Place, other: WireWorker, acme: Client
) -> None:
    socks = [waiting(WireWorker(quick, place, f"gone{n}")) for n in range(20)]
    poll = other.polls()
    for sock in socks:
        sock.close()
    job = acme.submit()
    submitted = time.monotonic()
    assert poll.result().json["id"].startswith(public(job))
    assert poll.result().at - submitted < AT_ONCE_S


def test_a_hand_over_to_who_hung_up_meanwhile_is_undone_and_the_next_poll_has_it(
    worker: WireWorker, other: WireWorker, acme: Client, database: str
) -> None:
    with locked(database, acme.place):
        job = acme.submit()
        sock = worker.waiting_socket()
        until(lambda: worker.seen())  # it claims, and finds the grant locked
        sock.close()
    until(lambda: kinds(job)[-1] == "undone")
    undone = time.monotonic()
    answer = other.take()
    assert answer.json["id"] == f"{public(job)}-a2"
    assert answer.at - undone < AT_ONCE_S
    assert (row(job).losses, row(job).free_losses, outcomes(job)) == (0, 0, ["undone", ""])


def test_a_batch_is_undone_whole(worker: WireWorker, other: WireWorker, acme: Client, database: str) -> None:
    with locked(database, acme.place):
        jobs = [acme.submit({"n": n}) for n in range(3)]
        sock = worker.waiting_socket("job-take-batch")
        until(lambda: worker.seen())
        sock.close()
    until(lambda: kinds(jobs[0])[-1] == "undone")
    answer = other.take_batch(3)
    assert sorted(job["id"].removesuffix("-a2") for job in answer.json) == sorted(map(public, jobs))


def test_a_poll_that_waits_gets_what_was_undone(
    worker: WireWorker, other: WireWorker, acme: Client, database: str
) -> None:
    with locked(database, acme.place):
        job = acme.submit()
        sock = worker.waiting_socket()
        until(lambda: worker.seen())
        sock.close()
    poll = other.polls()
    assert poll.result().json["id"].startswith(public(job))
    assert outcomes(job)[-1] == ""


def test_hanging_up_right_when_a_job_comes_never_keeps_it_from_the_next(quick: str, place: Place, acme: Client) -> None:
    """40 times: it is with who read it, or with who waits behind him, at once.

    An answer may cross the hang-up by a hair's breadth; then the attempt is his who hung up until its lease ends.
    """
    chance, crossed = random.Random(7), 0
    for n in range(40):
        gone, behind = (waiting(WireWorker(quick, place, f"{name}{n}")) for name in ("gone", "behind"))
        job = acme.submit({"n": n})
        read = select.select([gone], [], [], chance.uniform(0, 0.01))[0]
        gone.close()
        if not read and not select.select([behind], [], [], AT_ONCE_S)[0]:
            assert row(job).worker_name == f"gone{n}", "it lies in the queue though somebody waits"
            crossed += 1
        behind.close()
    assert crossed < 15


def test_a_stop_poll_that_hung_up_does_not_harm_the_next(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    worker.take_one()
    waiting(worker, "job-stop").close()
    poll = worker.polls("stop")
    acme.cancel(job)
    assert poll.result().json == {"jobsToStop": [public(job)]}
