"""Each process of Hearth is killed (-9) in the middle of its part in a push: nothing is lost, and nothing runs twice
unless the timeline says why. The whole chain is killed in tests/e2e/test_runpod_chain.py."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from django.db import connection

from accounts import sql
from hearth.local.instance import ROOT
from jobs import remote
from jobs.ids import JobId
from jobs.models import Attempt
from jobs.sweep import STEPS, sweep
from tests.cast import new_client, new_place
from tests.conftest import Web
from tests.fleet.wire import call, until
from tests.jobs.recount import check_usage
from tests.runpod.cloud import Cloud, Fault, There
from tests.runpod.pushed import Pushed, claimed, kinds, new_pushed, state

DISPATCH = "import django; django.setup(); from jobs.dispatch import dispatch; dispatch({})"
LIFE_S = 1800 + 2 * 600 + remote.MARGIN_S + 1  # of an attempt at RunPod, with the usual bounds


@contextmanager
def dispatcher(cloud: Cloud, endpoint_id: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own, killed at the end."""
    argv = [sys.executable, "-c", DISPATCH.format(endpoint_id)]
    env = os.environ | {"HEARTH_RUNPOD_URL": cloud.url}
    with subprocess.Popen(argv, cwd=ROOT, env=env) as process:
        yield process
        process.kill()


def killed_at(cloud: Cloud, acme: Pushed, op: str, *, done: bool) -> None:
    """A dispatcher is killed while it waits for RunPod's answer to its first request of that kind."""
    held = threading.Event()
    acme.there.meets(op, Fault(held=held, done=done))
    before = len(acme.there.asked(op))
    with dispatcher(cloud, acme.endpoint_id):
        until(lambda: len(acme.there.asked(op)) > before, 60)
    held.set()


def test_killed_while_runpod_takes_a_job_and_the_webhook_tells(cloud: Cloud, acme: Pushed) -> None:
    job = acme.submit({"n": 1})
    killed_at(cloud, acme, "run", done=True)
    sweep(STEPS)
    assert acme.attends(600) == 0
    assert (len(acme.there.asked("run")), state(job)) == (1, "IN_PROGRESS")
    (name,) = acme.there.jobs
    acme.hears_body(job, acme.there.becomes(name, "COMPLETED", output=1))
    assert (state(job), kinds(job)) == ("COMPLETED", ["created", "handed", "completed"])


def test_killed_before_runpod_took_it_and_after_its_life_there_it_is_sent_again(cloud: Cloud, acme: Pushed) -> None:
    job = acme.submit({"n": 1})
    killed_at(cloud, acme, "run", done=False)
    assert acme.attends(LIFE_S - 60) == 0
    assert state(job) == "IN_PROGRESS"
    acme.passes(60)
    sweep(STEPS)
    assert acme.dispatch() == 1
    assert kinds(job) == ["created", "handed", "lost", "handed"]
    assert len(acme.there.jobs) == 1


@pytest.mark.parametrize("done", [True, False])
def test_killed_while_it_asks(cloud: Cloud, acme: Pushed, done: bool) -> None:
    job = acme.pushed({"n": 1})
    acme.there.becomes(acme.remote(job), "COMPLETED", output=1)
    acme.passes(6)
    killed_at(cloud, acme, "status", done=done)
    acme.attends(10)
    assert (state(job), kinds(job)) == ("COMPLETED", ["created", "handed", "completed"])


@pytest.mark.parametrize("done", [True, False])
def test_killed_while_it_cancels(cloud: Cloud, acme: Pushed, done: bool) -> None:
    job = acme.pushed({"n": 1})
    acme.client.cancel(job)
    killed_at(cloud, acme, "cancel", done=done)
    assert acme.attempt(job).released_at is None
    acme.attends(10)
    assert acme.there.jobs[acme.remote(job)]["status"] == "CANCELLED"
    assert acme.attempt(job).released_at is not None


def test_killed_again_and_again_with_many_on_their_way(cloud: Cloud) -> None:
    acme = new_pushed(cloud, at_a_time=50)
    jobs = [acme.submit({"n": n}) for n in range(40)]
    for sent in (1, 9, 23):
        with dispatcher(cloud, acme.endpoint_id):
            until(partial(sent_to, acme, sent), 60)
    acme.dispatch()
    acme.passes(LIFE_S)  # of those that were marked as sent, and the process died before it sent them
    finish(acme)
    sweep(STEPS)
    acme.dispatch()
    finish(acme)
    assert {state(job) for job in jobs} == {"COMPLETED"}
    ran = Counter(sent.json["input"]["n"] for sent in acme.there.asked("run"))
    for n, job in enumerate(jobs):
        assert kinds(job).count("completed") == 1
        assert ran[n] == 1 or "lost" in kinds(job), kinds(job)
    check_usage(acme.client.tenant)


def sent_to(acme: Pushed, number: int) -> bool:
    return len(acme.there.asked("run")) >= number


def finish(acme: Pushed) -> None:
    """All that is at RunPod ends, and its webhooks come."""
    for sent, name in zip(acme.there.asked("run"), list(acme.there.jobs), strict=True):
        attempt = remote.read_token(sent.json["webhook"].rsplit("/", 1)[1])
        assert attempt
        job = JobId(attempt.job, False)
        acme.hears_body(job, acme.there.becomes(name, "COMPLETED", output=1), attempt=attempt.number)


def test_the_database_hangs_up_while_runpod_takes_a_job_and_its_name_is_kept(acme: Pushed) -> None:
    held = threading.Event()
    acme.there.meets("run", Fault(held=held, done=True, answered=True))
    job = acme.submit({"n": 1})
    sessions: list[int] = []

    def run() -> None:
        sessions.append(sql.one("SELECT pg_backend_pid()")[0])
        acme.dispatch()
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: len(acme.there.asked("run")) == 1)
    assert sql.one("SELECT pg_terminate_backend(%s)", sessions)[0]
    held.set()
    thread.join()
    assert acme.remote(job) in acme.there.jobs


def test_web_killed_while_a_webhook_comes_and_the_result_is_asked_for(web: Web, acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    body = acme.there.becomes(acme.remote(job), "COMPLETED", output={"x": 1})
    url = acme.there.asked("run")[0].json["webhook"]
    held, lock = threading.Event(), threading.Event()

    def hold() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM jobs_job WHERE id = %s FOR UPDATE", [job.uuid])
            held.set()
            lock.wait(60)
            cursor.execute("ROLLBACK")
        connection.close()

    def post() -> None:
        with pytest.raises(ConnectionError):
            call("POST", url, body)

    threads = [threading.Thread(target=hold), threading.Thread(target=post)]
    threads[0].start()
    assert held.wait(30)
    threads[1].start()
    until(waits_for_a_lock, 30)
    web.kill()
    lock.set()
    for thread in threads:
        thread.join()
    web.start()
    assert (state(job), acme.receipts(job)) == ("IN_PROGRESS", [])
    acme.attends(6)
    assert (state(job), kinds(job)) == ("COMPLETED", ["created", "handed", "completed"])
    assert call("POST", url, body).status == 200, "RunPod's second try"
    assert kinds(job) == ["created", "handed", "completed"]


def waits_for_a_lock() -> bool:
    return bool(
        sql.one(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock')"
        )[0]
    )


def test_a_dummys_dispatcher_killed_after_it_had_marked_the_job_and_another_completes_it() -> None:
    client = new_client(new_place(backend="dummy"))
    job = client.submit({"n": 1})
    acme = Pushed(client, There())
    assert remote.send(claimed(acme))
    acme.passes(6)
    sweep(STEPS)
    acme.dispatch()
    assert (state(job), kinds(job)) == ("COMPLETED", ["created", "handed", "completed"])
    assert Attempt.objects.get(job=job.uuid).released_at is not None
