"""Permits: several processes together stay within a limit, and one process alone may use all of it."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts import rates
from accounts.errors import Refused
from accounts.rates import WINDOW_S, Block, Quota
from jobs.limits import Queue, Refusal, Seen
from jobs.wire.gate import Room
from jobs.wire.rates import Rates
from tests.cast import unique

FULL = Refusal(status=429, code="queue_full", error="It is full.", retry_after_s=1)


def quota(limit: int, scope: str = "tenant") -> Quota:
    return Quota(scope=scope, name="run", limit=limit, rule="a rule")


class Server:
    """The row of a window, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.taken, self.asked = 0.0, dict[tuple[str, int], int](), 0

    async def take(self, scope: str, permits: int, limit: int) -> Block:
        self.asked += 1
        window = int(self.now // WINDOW_S)
        before = min(limit, self.taken.get((scope, window), 0))
        self.taken[scope, window] = self.taken.get((scope, window), 0) + permits
        after = min(limit, self.taken[scope, window])
        return Block(permits=after - before, free=limit - after, left_s=WINDOW_S * (window + 1) - self.now)

    def process(self) -> Rates:
        return Rates(self.take, lambda: self.now)


async def admitted(process: Rates, *quotas: Quota) -> bool:
    try:
        await process.admit(quotas)
    except Refused:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 2**32))
def test_no_window_lets_in_more_than_its_limit(limit: int, processes: int, seed: int) -> None:
    async def main() -> None:
        dice, server, let_in = random.Random(seed), Server(), dict[int, int]()
        all_processes = [server.process() for _ in range(processes)]
        for _ in range(limit * 3):
            server.now += dice.choice([0, 0, 0, 0.01, 1])
            window = int(server.now // WINDOW_S)
            let_in[window] = let_in.get(window, 0) + await admitted(dice.choice(all_processes), quota(limit))
        assert max(let_in.values()) <= limit

    asyncio.run(main())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000))
def test_one_process_lets_in_all_of_it_and_asks_for_blocks_only(limit: int) -> None:
    async def main() -> None:
        server = Server()
        process = server.process()
        found = [await admitted(process, quota(limit)) for _ in range(limit + 50)]
        assert found == [True] * limit + [False] * 50
        assert server.asked <= 41

    asyncio.run(main())


def test_a_request_that_one_quota_refuses_costs_the_other_nothing() -> None:
    async def main() -> None:
        server = Server()
        process = server.process()
        narrow, wide = quota(2, "key"), quota(5, "tenant")
        assert [await admitted(process, narrow, wide) for _ in range(10)] == [True] * 2 + [False] * 8
        assert [await admitted(process, wide) for _ in range(4)] == [True] * 3 + [False]

    asyncio.run(main())


def test_the_next_window_begins_anew() -> None:
    async def main() -> None:
        server = Server()
        process = server.process()
        assert [await admitted(process, quota(1)) for _ in range(2)] == [True, False]
        server.now = WINDOW_S
        assert await admitted(process, quota(1))

    asyncio.run(main())


def test_the_row_itself_gives_no_more_than_the_limit(database: str) -> None:
    scope = unique("scope")
    blocks = [rates.take(scope, 7, 20) for _ in range(5)]
    per_window = sum(block.permits for block in blocks)
    assert per_window == 20 or any(a.left_s < b.left_s for a, b in itertools.pairwise(blocks))
    assert all(0 < block.left_s <= WINDOW_S for block in blocks)


class Jobs:
    """A queue that is counted a while after it was asked for."""

    def __init__(self) -> None:
        self.queued, self.looks = 0, 0

    async def look(self, queue: Queue) -> Seen:
        self.looks += 1
        queued = self.queued
        await asyncio.sleep(0)
        return Seen(queued=queued, refusal=FULL if queued >= queue.limit else None)


async def submit(room: Room, jobs: Jobs, queue: Queue, write: Callable[[], Awaitable[None]]) -> bool:
    try:
        await room.enter(queue)
    except Refused:
        return False
    await write()
    jobs.queued += 1
    room.leave()
    return True


@pytest.mark.parametrize("limit", [1, 3, 20, 100])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_queue_passes_its_limit_by_a_block_for_each_further_process_at_most(limit: int, processes: int) -> None:
    async def main() -> None:
        jobs, queue = Jobs(), Queue(of="tenant", id=1, limit=limit, whose="T")
        rooms = [Room(jobs.look) for _ in range(processes)]
        found = await asyncio.gather(
            *(submit(rooms[n % processes], jobs, queue, lambda: asyncio.sleep(0.001)) for n in range(3 * limit))
        )
        assert sum(found) == jobs.queued <= limit + (processes - 1) * max(1, limit // 20)
        assert jobs.queued >= limit

    asyncio.run(main())


def test_a_flood_of_refused_submissions_counts_once_in_half_a_second() -> None:
    async def main() -> None:
        now = [0.0]
        jobs, queue = Jobs(), Queue(of="tenant", id=1, limit=2, whose="T")
        room, jobs.queued = Room(jobs.look, lambda: now[0]), 2
        found = [await submit(room, jobs, queue, lambda: asyncio.sleep(0)) for _ in range(100)]
        assert (any(found), jobs.looks) == (False, 1)
        now[0], jobs.queued = 0.6, 1
        assert await submit(room, jobs, queue, lambda: asyncio.sleep(0))

    asyncio.run(main())


def test_a_queue_that_takes_long_to_count_lets_in_and_is_counted_rarely() -> None:
    """Longer than a count is good for: who waits for it must not have to count again."""

    async def main() -> None:
        now, queue = [0.0], Queue(of="tenant", id=1, limit=1_000_000, whose="T")
        looks = 0

        async def look(_: Queue) -> Seen:
            nonlocal looks
            looks += 1
            now[0] += 2.0
            await asyncio.sleep(0)
            return Seen(queued=400_000)

        room = Room(look, lambda: now[0])
        for _ in range(300):
            await room.enter(queue)
            room.leave()
            now[0] += 0.1
        assert looks == 1

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_long_count_of_a_full_queue_refuses_no_longer_than_it_says() -> None:
    async def main() -> None:
        now, jobs, queue = [0.0], Jobs(), Queue(of="tenant", id=1, limit=2, whose="T")

        async def look(of: Queue) -> Seen:
            now[0] += 2.0
            return await jobs.look(of)

        room, jobs.queued = Room(look, lambda: now[0]), 2
        assert not await submit(room, jobs, queue, lambda: asyncio.sleep(0))
        now[0], jobs.queued = now[0] + FULL.retry_after_s, 1
        assert await submit(room, jobs, queue, lambda: asyncio.sleep(0))

    asyncio.run(asyncio.wait_for(main(), 20))
