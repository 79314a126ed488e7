"""Rule 17: tasks start on a NOTIFY, join their transaction, and outlive a lost connection."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connection, transaction
from django_q.brokers import get_broker
from django_q.models import OrmQ
from django_q.tasks import async_task

from hearth.broker import NotifyBroker
from jobs.models import Endpoint
from tests.cast import new_client, new_place, row, unique

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def broker() -> NotifyBroker:
    """A queue of this test alone."""
    made = get_broker(unique("queue"))
    assert isinstance(made, NotifyBroker)
    return made


def until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_an_empty_queue_answers_within_the_poll(broker: NotifyBroker) -> None:
    begun = time.monotonic()
    assert broker.dequeue() is None
    assert time.monotonic() - begun < 20


def test_a_task_is_handed_out_once(broker: NotifyBroker) -> None:
    broker.enqueue("payload")
    assert [payload for _, payload in broker.dequeue() or []] == ["payload"]
    assert broker.dequeue() is None


def test_a_waiting_pusher_is_woken_by_the_commit(broker: NotifyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.dequeue()  # it listens from here on
    monkeypatch.setattr("hearth.broker.POLL_S", 60.0)
    sent: list[float] = []

    def send() -> None:
        time.sleep(0.2)
        sent.append(time.monotonic())
        with transaction.atomic():
            get_broker(broker.list_key).enqueue("payload")
        connection.close()

    thread = threading.Thread(target=send)
    thread.start()
    assert broker.dequeue()
    assert time.monotonic() - sent[0] < 20
    thread.join()


def test_a_task_of_a_transaction_that_failed_never_was(broker: NotifyBroker) -> None:
    with transaction.atomic():
        broker.enqueue("payload")
        transaction.set_rollback(True)
    assert broker.dequeue() is None


def test_a_lost_connection_is_survived(broker: NotifyBroker) -> None:
    broker.dequeue()
    connection.close()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [f"hearth tasks {broker.list_key}"],
        )
    assert broker.dequeue() is None
    broker.enqueue("payload")
    assert broker.dequeue()


@pytest.fixture(scope="module")
def cluster(database: str) -> Iterator[subprocess.Popen[bytes]]:
    """The real fast task cluster."""
    env = {**os.environ, "Q_CLUSTER_NAME": "fast", "DATABASE_URL": database}
    process = subprocess.Popen([sys.executable, "manage.py", "qcluster"], cwd=ROOT, env=env)
    yield process
    process.terminate()
    process.wait(20)


def test_the_fast_cluster_dispatches_a_dummy_endpoints_job(cluster: subprocess.Popen[bytes]) -> None:
    client = new_client(new_place(backend=Endpoint.Backend.DUMMY))
    job = client.submit({"n": 1})
    until(lambda: row(job).state == "COMPLETED", 30)
    assert bytes(row(job).payload.output) == b'{"n":1}'


def test_a_finished_task_leaves_the_queue(cluster: subprocess.Popen[bytes]) -> None:
    async_task("jobs.tasks.dispatch", new_place(backend=Endpoint.Backend.DUMMY).endpoint.pk, cluster="fast")
    until(lambda: not OrmQ.objects.filter(key="fast").exists(), 30)
