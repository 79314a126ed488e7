"""kill -9 of the deliverer in the middle: each delivery arrives at least once, and what comes twice has the same id."""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db.models import F

from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from jobs.models import Delivery
from jobs.states import announce_deliveries
from tests.cast import Client
from tests.conftest import start
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import deliveries, ended, states, tries, until

Start = Callable[[], Child]


@pytest.fixture
def deliverer() -> Iterator[Start]:
    """Starts `manage.py deliverer`."""
    made: list[Child] = []

    def begin() -> Child:
        argv = [sys.executable, "manage.py", "deliverer"]
        made.append(start(Part(name="deliverer", argv=argv, env=dict(os.environ), cwd=ROOT, grace_s=20)))
        return made[-1]

    yield begin
    stop(made)


def leases_run_out(client: Client) -> None:
    rows = Delivery.objects.of(client.tenant).exclude(leased_until=None)
    rows.update(leased_until=F("leased_until") - timedelta(minutes=5))
    announce_deliveries(True)


def test_a_deliverer_killed_in_the_middle_loses_nothing(acme: Client, deliverer: Start) -> None:
    with Receiver(hold=threading.Event()) as receiver:
        assert receiver.hold
        for _ in range(12):
            ended(acme, webhook=receiver.url)
        first = deliverer()
        until(lambda: len(receiver.got) == 4)  # as many as a lane has on their way
        first.kill()
        until(lambda: first.ended() is not None)
        receiver.hold.set()
        assert states(acme) == ["pending"] * 12
        leases_run_out(acme)
        deliverer()
        until(lambda: states(acme) == ["delivered"] * 12)
        times = Counter(got.id for got in receiver.got)
    assert times.keys() == {delivery.message_id for delivery in deliveries(acme)}
    assert sorted(times.values()) == [1] * 8 + [2] * 4, "only what was on its way comes twice"
    assert len(tries(acme)) == 12


def test_before_its_lease_runs_out_nobody_else_sends_what_a_killed_one_had(acme: Client, deliverer: Start) -> None:
    with Receiver(hold=threading.Event()) as receiver:
        ended(acme, webhook=receiver.url)
        first = deliverer()
        until(lambda: receiver.got)
        first.kill()
        until(lambda: first.ended() is not None)
        with Receiver() as other:
            deliverer()
            ended(acme, webhook=other.url)
            until(lambda: other.got)
        assert len(receiver.got) == 1


def test_one_that_is_stopped_gives_back_what_it_could_not_finish(acme: Client, deliverer: Start) -> None:
    with Receiver(hold=threading.Event()) as receiver:
        ended(acme, webhook=receiver.url)
        first = deliverer()
        until(lambda: receiver.got)
        stop([first])
        assert first.ended() == 0
    (delivery,) = deliveries(acme)
    assert (delivery.state, delivery.leased_until, delivery.tries) == ("pending", None, 0)


def test_two_at_work_send_each_delivery_once(acme: Client, deliverer: Start) -> None:
    with Receiver() as receiver:
        deliverer()
        deliverer()
        for _ in range(40):
            ended(acme, webhook=receiver.url)
        until(lambda: states(acme) == ["delivered"] * 40)
        assert Counter(got.id for got in receiver.got).most_common(1)[0][1] == 1
