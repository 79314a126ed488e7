"""A deliverer in a thread of the test's own process, and the jobs and deliveries that it is watched by."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
from django.db import transaction

from jobs.ids import JobId
from jobs.live import Hub
from jobs.models import Delivery, DeliveryTry
from jobs.states import State, announce_deliveries, end, lock
from jobs.webhooks.deliver import Bounds, Claimed, claim
from jobs.webhooks.deliverer import Deliverer, new_hub
from tests.cast import Client
from tests.fleet import wire

T = TypeVar("T")


def until(look: Callable[[], T]) -> T:
    """What `look` returns once that is true: on a busy machine a process takes its time to start."""
    return wire.until(look, 60)


@contextmanager
def running(**bounds: Any) -> Iterator[None]:
    started, hubs, loops = threading.Event(), list[Hub](), list[asyncio.AbstractEventLoop]()

    async def run() -> None:
        hub = new_hub()
        async with hub.running():
            hubs.append(hub)
            loops.append(asyncio.get_running_loop())
            started.set()
            await Deliverer(Bounds(**{"at_once": 50} | bounds)).run(hub)

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(10)
    yield
    loops[0].call_soon_threadsafe(hubs[0].drain)
    thread.join(20)
    assert not thread.is_alive()


def ended(client: Client, to: State = State.COMPLETED, output: Any = "done", **fields: Any) -> JobId:
    """A job of the client's that has ended so, by the transaction that ends jobs."""
    job = client.submit({"x": 1}, **fields)
    if to in (State.COMPLETED, State.FAILED):
        client.place.worker().take_one()
    end_now(job, to, output)
    return job


def end_now(job: JobId, to: State, output: Any = "done") -> None:
    with transaction.atomic():
        lock(job.uuid)
        error = orjson.dumps("it broke") if to == State.FAILED else None
        assert end(job.uuid, to, "", released=True, output=orjson.dumps(output), error=error)


def deliveries(client: Client, **which: Any) -> list[Delivery]:
    return list(Delivery.objects.of(client.tenant).filter(**which).order_by("id"))


def only(client: Client) -> Delivery:
    (found,) = deliveries(client)
    return found


def tries(client: Client) -> list[DeliveryTry]:
    return list(DeliveryTry.objects.of(client.tenant).order_by("id"))


def states(client: Client) -> list[str]:
    return [delivery.state for delivery in deliveries(client)]


ALL = Bounds(at_once=10_000, per_tenant=1_000, per_lane=1_000)


def claimed(client: Client, bounds: Bounds = ALL, **more: Any) -> list[Claimed]:
    """What a deliverer would take of this client's; it takes what other tests have left too."""
    own = {delivery.pk for delivery in deliveries(client)}
    return [each for each in claim(10_000, bounds, **more) if each.id in own]


def make_due(client: Client) -> None:
    """As if the time of the next try had come."""
    for delivery in deliveries(client, state="pending"):
        Delivery.all_tenants.filter(pk=delivery.pk).update(next_at=delivery.created_at, leased_until=None)
    announce_deliveries(True)
