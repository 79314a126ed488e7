"""Rules 13 and 14: register, read, wait; one NOTIFY wakes one taker per process; a lost one costs a poll interval."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import psycopg

from jobs import live
from jobs.live import Hub, Key

Recheck = Callable[[list[Key]], Awaitable[list[tuple[Key, str]]]]


async def nothing(keys: list[Key]) -> list[tuple[Key, str]]:
    return []


async def beat() -> None:
    return None


def with_hub(body: Callable[[Hub], Awaitable[None]], recheck: Recheck = nothing) -> None:
    async def main() -> None:
        async with Hub(recheck, beat).running() as hub:
            await ready(hub)
            await body(hub)

    asyncio.run(main())


async def ready(hub: Hub) -> None:
    """Until what the hub sends comes back to it."""
    async with asyncio.timeout(10):
        while True:
            async with hub.waiting("w:0") as ticket:
                hub.send(["w:0"])
                if await ticket.wait(0.1):
                    return


async def wakes(hub: Hub, key: Key, seconds: float = 1.5) -> tuple[bool, float]:
    async with hub.waiting(key) as ticket:
        hub.send([key])
        begun = time.monotonic()
        return await ticket.wait(seconds), time.monotonic() - begun


def test_a_notify_wakes_within_milliseconds() -> None:
    async def body(hub: Hub) -> None:
        woken, seconds = await wakes(hub, "j:1")
        assert woken
        assert seconds < 0.2

    with_hub(body)


def test_everybody_who_waits_for_a_job_is_woken_but_one_taker_of_an_endpoint() -> None:
    async def body(hub: Hub) -> None:
        async with hub.waiting("j:1") as a, hub.waiting("j:1") as b, hub.waiting("e:1") as c, hub.waiting("e:1") as d:
            hub.wake("j:1")
            hub.wake("e:1")
            assert [ticket.woken for ticket in (a, b, c, d)] == [True, True, True, False]

    with_hub(body)


def test_a_wake_that_its_taker_did_not_use_goes_on_to_the_next() -> None:
    async def body(hub: Hub) -> None:
        first = hub.waiting("e:1")
        await first.__aenter__()
        async with hub.waiting("e:1") as second:
            hub.wake("e:1")
            assert not second.woken
            await first.__aexit__(None, None, None)  # its client hung up before it looked
            assert second.woken

    with_hub(body)


def test_what_was_announced_before_the_wait_is_not_missed() -> None:
    async def body(hub: Hub) -> None:
        async with hub.waiting("j:1") as ticket:
            hub.wake("j:1")
            assert await ticket.wait(0.01)

    with_hub(body)


def test_a_lost_notify_costs_a_poll_interval() -> None:
    async def recheck(keys: list[Key]) -> list[tuple[Key, str]]:
        return [(key, "") for key in keys]

    async def body(hub: Hub) -> None:
        async with hub.waiting("j:1") as ticket:
            assert await ticket.wait(3)

    with_hub(body, recheck)


def test_the_listening_connection_is_made_anew_and_all_is_read_again() -> None:
    seen: list[list[Key]] = []

    async def recheck(keys: list[Key]) -> list[tuple[Key, str]]:
        seen.append(keys)
        return []

    async def body(hub: Hub) -> None:
        async with hub.waiting("j:1"):
            async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
                await conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name IN ('hearth listen', 'hearth notify') AND datname = current_database()"
                )
            seen.clear()
            async with asyncio.timeout(5):
                while not seen:
                    await asyncio.sleep(0.01)
        assert seen[-1] == ["j:1"]
        assert (await wakes(hub, "j:2"))[0]

    with_hub(body, recheck)


def test_a_draining_process_lets_every_waiter_answer_at_once() -> None:
    async def body(hub: Hub) -> None:
        async with hub.waiting("j:1") as ticket:
            asyncio.get_running_loop().call_later(0.05, hub.drain)
            begun = time.monotonic()
            assert not await ticket.wait(30)
            assert time.monotonic() - begun < 15

    with_hub(body)


def test_five_thousand_waiters_cost_no_connection() -> None:
    async def body(hub: Hub) -> None:
        async def one(number: int) -> bool:
            async with hub.waiting(f"j:{number}") as ticket:
                return await ticket.wait(20)

        waiting = [asyncio.create_task(one(number)) for number in range(5000)]
        await asyncio.sleep(0)
        hub.send([f"j:{number}" for number in range(5000)])
        assert all(await asyncio.gather(*waiting))

    with_hub(body)


def test_the_recheck_wakes_only_whom_a_version_is_new_for() -> None:
    async def recheck(keys: list[Key]) -> list[tuple[Key, str]]:
        return [(key, "2") for key in keys]

    async def body(hub: Hub) -> None:
        async with hub.waiting("n:1") as old, hub.waiting("n:1") as new:
            old.version, new.version = "1", "2"
            assert await old.wait(5)
            assert not new.woken

    with_hub(body, recheck)


def test_news_is_said_at_once_and_then_twice_a_second_at_most() -> None:
    async def body(hub: Hub) -> None:
        wakes = 0
        begun = time.monotonic()
        async with hub.waiting("n:1") as ticket:
            while (now := time.monotonic()) < begun + 1.2:
                hub.send(["n:1", "n:2"])
                wakes += await ticket.wait(0.02)
        assert 2 <= wakes <= 2 + (now - begun) / live.NEWS_EVERY_S

    with_hub(body)


def test_news_that_waits_holds_nothing_else_up() -> None:
    async def body(hub: Hub) -> None:
        async with hub.waiting("n:1") as ticket:
            hub.send(["n:1"])
            assert await ticket.wait(2)
            hub.send(["n:1"])
            assert (await wakes(hub, "j:1", 0.4))[0]
            assert not ticket.woken

    with_hub(body)
