"""The gate before an endpoint's queue: what it lets in it has counted, but not for each job anew (rules.md 23)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from jobs import limits
from jobs.limits import Caller, Queue, Refusal, Seen, Terms
from jobs.wire.call import verb
from jobs.wire.kept import Clock, Kept
from storage import assets

TERMS_S, STORED_S, REFUSAL_S = 1.0, 10.0, 0.5
RARELY = 20.0  # what was counted is good for so many times as long as counting took
Look = Callable[[Queue], Awaitable[Seen]]


async def _look(queue: Queue) -> Seen:
    return await verb(limits.look, queue)


class Room:
    """What this process may add to a queue with a limit.

    A count gives it permits, for a second (longer if it took long): at most a twentieth of the limit, less what it let
    in whose end it has not seen, as that may not be counted. So one process never passes the limit, and each further
    one by a twentieth.
    """

    def __init__(self, look: Look = _look, clock: Clock = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._permits = self._inside = 0
        self._permits_end = self._refusal_ends = 0.0
        self._refusal: Refusal | None = None
        self._looking = asyncio.Lock()
        self._left = asyncio.Event()

    async def enter(self, queue: Queue) -> None:
        """Take a permit; `leave` once the job is written. Raises Refused(429), the same for REFUSAL_S or, if counting
        took long, until its Retry-After at most."""
        while not self._known():
            async with self._looking:
                if not self._known():
                    await self._count(queue)
        if self._refusal:
            raise self._refusal.refused()
        self._permits -= 1
        self._inside += 1

    def leave(self, *, unused: bool = False) -> None:
        self._permits += unused
        self._inside -= 1
        self._left.set()

    def _known(self) -> bool:
        now = self._clock()
        if self._refusal and now >= self._refusal_ends:
            self._refusal = None
        return self._refusal is not None or (self._permits > 0 and now < self._permits_end)

    async def _count(self, queue: Queue) -> None:
        asked, inside = self._clock(), self._inside
        self._permits = 0
        seen = await self._look(queue)
        now = self._clock()
        dear_s = RARELY * (now - asked)
        if seen.refusal:
            self._refusal = seen.refusal
            self._refusal_ends = now + max(REFUSAL_S, min(dear_s, seen.refusal.retry_after_s))
            return
        block = max(1, queue.limit // 20)
        self._permits += min(queue.limit - seen.queued, block) - inside
        self._permits_end = now + max(TERMS_S, dear_s)
        if self._permits <= 0 and self._inside == inside:  # they are counted once they have left
            self._left.clear()
            await self._left.wait()


class Gate:
    """All of this process's submissions pass it."""

    def __init__(self, look: Look = _look, clock: Clock = time.monotonic) -> None:
        self._terms: Kept[tuple[int, int], Terms] = Kept(TERMS_S, clock)
        self._stored: Kept[UUID, int] = Kept(STORED_S, clock)
        self._rooms: dict[tuple[str, object], Room] = {}
        self._look, self._clock = look, clock

    @asynccontextmanager
    async def passing(self, caller: Caller) -> AsyncIterator[None]:
        """Around the verb that queues a job. Raises Refused: 429, or 503 if the endpoint takes none."""
        terms = await self._terms.get((caller.key_id, caller.endpoint_id), lambda: verb(limits.terms, caller))
        if refusal := terms.refusal or await self._storage_full(caller, terms):
            raise refusal.refused()
        rooms = await self._enter(terms.queues) if terms.queues else ()
        try:
            yield
        finally:
            for room in rooms:
                room.leave()

    async def _enter(self, queues: tuple[Queue, ...]) -> list[Room]:
        entered: list[Room] = []
        try:
            for queue in queues:
                room = self._rooms.get((queue.of, queue.id))
                if room is None:
                    room = self._rooms[queue.of, queue.id] = Room(self._look, self._clock)
                await room.enter(queue)
                entered.append(room)
        except BaseException:
            for room in entered:
                room.leave(unused=True)
            raise
        return entered

    async def _storage_full(self, caller: Caller, terms: Terms) -> Refusal | None:
        limit = terms.max_stored_bytes
        if limit is None:
            return None
        tenant = caller.tenant_id
        stored = await self._stored.get(tenant, lambda: verb(assets.stored_bytes, tenant))
        return limits.storage_full(terms.tenant, limit, stored) if stored >= limit else None


GATE = Gate()
