"""Nobody waits for another tenant's receiver; leases."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.db.models import F

from jobs.models import Delivery
from jobs.webhooks.deliver import Answer, Bounds, claim, finish, overdue, release
from jobs.webhooks.register import register
from tests.cast import Client, Place, new_client
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import ALL, claimed, deliveries, ended, only, states, tries, until

Deliver = Callable[..., None]


def tell(client: Client, n: int, url: str) -> None:
    """n deliveries of the client's that are due, in one lane."""
    webhook = register(client.tenant, url, ["completed"]).webhook
    own = {"tenant": client.tenant, "webhook": webhook, "lane": webhook.pk, "kind": "test"}
    Delivery.all_tenants.bulk_create(Delivery(**own) for _ in range(n))


@pytest.fixture
def dead() -> Iterator[str]:
    """A host that drops what is sent to it: its queue of connections is full, so none is ever made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        for _ in range(5):
            knock = stack.enter_context(socket.socket())
            knock.setblocking(False)
            knock.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def others_are_told(place: Place, receiver: Receiver, deliver: Deliver, troubled: Client) -> None:
    """49 tenants' deliveries arrive long before the troubled one's first try is given up."""
    others = [new_client(place) for _ in range(49)]
    deliver(at_once=20, post_s=60)
    until(lambda: [d for d in deliveries(troubled) if d.leased_until])
    begun = time.monotonic()
    for client in others:
        ended(client, webhook=receiver.url)
    until(lambda: all(states(client) == ["delivered"] for client in others))
    assert time.monotonic() - begun < 45
    assert len(receiver.got) == 49
    assert "delivered" not in states(troubled)


def test_of_50_tenants_a_dead_one_delays_no_other(
    acme: Client, receiver: Receiver, deliver: Deliver, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.webhooks.post.CONNECT_S", 60)
    tell(acme, 200, dead)
    others_are_told(acme.place, receiver, deliver, acme)


def test_of_50_tenants_a_slow_one_with_200_due_delays_no_other(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    with Receiver(hold=threading.Event()) as silent:
        tell(acme, 200, silent.url)
        others_are_told(acme.place, receiver, deliver, acme)
        assert silent.most_at_once == len(silent.got) == Bounds.per_lane


def test_a_tenant_has_no_more_on_their_way_than_its_bound_over_all_lanes(acme: Client) -> None:
    for _ in range(3):
        register(acme.tenant, "https://example.com/", ["completed"])
    for _ in range(6):
        ended(acme, webhook="https://example.com/")
    bounds = Bounds(at_once=1000, per_tenant=8, per_lane=4)
    found = claimed(acme, bounds)
    assert len(found) == 8
    lanes = [each.lane for each in found]
    assert max(lanes.count(lane) for lane in lanes) <= 4
    assert claimed(acme, bounds) == [], "what others have on their way counts"
    for each in found[:3]:
        finish(each, Answer(ms=1, status=200))
    assert len(claimed(acme, bounds)) == 3


def test_a_failing_lane_has_one_on_its_way_and_the_tenants_others_go_on(acme: Client) -> None:
    webhook = register(acme.tenant, "https://example.com/", ["completed"]).webhook
    for _ in range(4):
        ended(acme, webhook="https://example.com/")
    found = claimed(acme, Bounds(at_once=1000), failing=[acme.tenant.pk])
    assert sorted(each.lane == webhook.pk for each in found) == [False, True, True, True, True]


def test_room_goes_round_the_tenants_before_anyone_has_a_second(place: Place) -> None:
    first, second = new_client(place), new_client(place)
    tell(first, 10, "https://example.com/")
    tell(second, 10, "https://example.com/")
    others = Delivery.all_tenants.exclude(tenant__in=[first.tenant, second.tenant])
    others.filter(state="pending").update(next_at="2100-01-01T00:00Z")
    found = claim(6, Bounds(at_once=6))
    lanes = [each.lane for each in found]
    assert sorted(map(lanes.count, set(lanes))) == [3, 3]


def test_the_oldest_of_a_lane_goes_first_and_what_is_not_due_waits(acme: Client) -> None:
    for _ in range(3):
        ended(acme, webhook="https://example.com/")
    old, middle, new = deliveries(acme)
    Delivery.all_tenants.filter(pk=new.pk).update(next_at=F("next_at") - timedelta(minutes=5))
    Delivery.all_tenants.filter(pk=old.pk).update(next_at=F("next_at") + timedelta(minutes=5))
    one = Bounds(at_once=1000, per_lane=1)
    (first,) = claimed(acme, one)
    assert first.id == new.pk
    finish(first, Answer(ms=1, status=200))
    assert [each.id for each in claimed(acme, one)] == [middle.pk]
    assert claimed(acme) == []


def test_a_lease_keeps_others_away_until_it_runs_out(acme: Client) -> None:
    ended(acme, webhook="https://example.com/")
    (first,) = claimed(acme)
    assert claimed(acme) == []
    Delivery.objects.of(acme.tenant).update(leased_until=F("leased_until") - timedelta(seconds=ALL.lease_s + 1))
    (second,) = claimed(acme)
    finish(first, Answer(ms=1, error="it was cut off"))
    assert only(acme).leased_until == second.leased_until, "a lost lease changes nothing"
    assert only(acme).tries == 0
    finish(second, Answer(ms=1, error="down"))
    assert (only(acme).tries, only(acme).leased_until) == (1, None)
    assert [each.error for each in tries(acme)] == ["it was cut off", "down"], "each try is kept"


def test_a_success_counts_whoever_has_the_lease_by_now(acme: Client) -> None:
    ended(acme, webhook="https://example.com/")
    (first,) = claimed(acme)
    Delivery.objects.of(acme.tenant).update(leased_until=F("leased_until") - timedelta(seconds=ALL.lease_s + 1))
    (second,) = claimed(acme)
    finish(first, Answer(ms=1, status=200))
    finish(second, Answer(ms=1, error="down"))
    assert states(acme) == ["delivered"]


def test_what_is_given_back_is_due_at_once_and_cost_no_try(acme: Client) -> None:
    ended(acme, webhook="https://example.com/")
    (first,) = claimed(acme)
    release(first)
    (again,) = claimed(acme)
    assert (again.id, again.tries) == (first.id, 0)


def test_the_latest_tries_are_kept_and_no_more_than_that(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.webhooks.deliver.TRIES_KEPT", 3)
    ended(acme, webhook="https://example.com/")
    (first,) = claimed(acme)
    for number in range(5):
        finish(first, Answer(ms=number, error=f"{number}"))
    assert [each.error for each in tries(acme)] == ["2", "3", "4"]


def test_what_is_due_and_sent_by_nobody_is_counted(acme: Client) -> None:
    before = overdue()
    ended(acme, webhook="https://example.com/")
    assert overdue() == before
    Delivery.objects.of(acme.tenant).update(next_at=F("next_at") - timedelta(seconds=61))
    assert overdue() == before + 1
    claimed(acme)
    assert overdue() <= before
