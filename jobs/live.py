"""Waiting: one LISTEN connection per process wakes every waiting request; nothing that waits holds a connection.

Keys say what is waited for: a job (its end), a job's news (whatever its followers are told), a job's stream (a chunk),
an endpoint (work in its queue), a worker (room for work, or a stop), deliveries (one to send).
A waiter registers, then reads, then waits (rules.md 13). NOTIFY follows the commit, coalesced per process (14); a lost
one costs RECHECK_S, since every process re-reads all that it waits for that often, and after each reconnect. A job's
news, which may be much, is said twice a second at most.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import connection, transaction

log = logging.getLogger("hearth.live")
CHANNEL = "hearth_live"
NEWS_EVERY_S = 0.5
Key = str
Connection = psycopg.AsyncConnection[Any]


DELIVERIES: Key = "d:"


def job_key(job: UUID) -> Key:
    return f"j:{job}"


def news_key(job: UUID) -> Key:
    return f"n:{job}"


def stream_key(job: UUID) -> Key:
    return f"s:{job}"


def endpoint_key(endpoint_id: int) -> Key:
    return f"e:{endpoint_id}"


def worker_key(worker_id: int) -> Key:
    return f"w:{worker_id}"


def announce(*keys: Key) -> None:
    """Wake who waits for these keys, in all processes, once the current transaction has committed."""
    transaction.on_commit(lambda: _send(keys))


def _send(keys: Iterable[Key]) -> None:
    if Hub.current is not None:
        Hub.current.send(keys)
    else:
        with connection.cursor() as cursor:
            cursor.execute(NOTIFY, {"channel": CHANNEL, "keys": list(keys)})


NOTIFY = "SELECT pg_notify(%(channel)s, key) FROM unnest(%(keys)s::text[]) key"


class Ticket:
    """One waiter's registration. `woken` stays set until the next `wait`. `version`: of the news that it has read."""

    def __init__(self, hub: "Hub") -> None:
        self.version = ""
        self._hub = hub
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    @property
    def woken(self) -> bool:
        return self._event.is_set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait to be woken; False when the time is over or the process is draining."""
        if self._hub.draining:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # wait_for would make a task of its own for each waiter
                await self._event.wait()
        woken = self._event.is_set()
        self._event.clear()
        return woken and not self._hub.draining


Recheck = Callable[[list[Key]], Coroutine[Any, Any, Iterable[tuple[Key, str]]]]


class Hub:
    """All waiters of this process. `recheck` says which of the keys waited for have news, each with the version that it
    is at, or ""; `beat` says we are up."""

    current: "Hub | None" = None

    def __init__(self, recheck: Recheck, beat: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.draining = False
        self._recheck, self._beat = recheck, beat
        self._waiters: dict[Key, list[Ticket]] = {}  # in the order in which they came; most keys have one
        self._outbox: set[Key] = set()
        self._news: set[Key] = set()  # for the outbox when NEWS_EVERY_S are over
        self._news_said_at = 0.0
        self._to_send = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Hub"]:
        tasks = [
            asyncio.create_task(job)
            for job in (self._keep("listen", self._listen), self._keep("notify", self._flush), self._tick())
        ]
        Hub.current = self
        try:
            yield self
        finally:
            Hub.current = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self) -> None:
        """Let every waiter answer now: the process is going down."""
        self.draining = True
        for tickets in self._waiters.values():
            for ticket in tickets:
                ticket.wake()

    @asynccontextmanager
    async def waiting(self, *keys: Key) -> AsyncIterator[Ticket]:
        """Register for these keys. A wake that this waiter no longer uses goes on to the next one."""
        ticket = Ticket(self)
        for key in keys:
            self._waiters.setdefault(key, []).append(ticket)
        try:
            yield ticket
        finally:
            for key in keys:
                self._waiters[key].remove(ticket)
                if not self._waiters[key]:
                    del self._waiters[key]
                elif ticket.woken and not self.draining:
                    self.wake(key)

    def wake(self, key: Key, version: str = "") -> None:
        """Wake everybody who waits for a job or worker, but one taker for an endpoint: he wakes the next if need be.
        Who has read this version is left alone."""
        for ticket in self._waiters.get(key, ()):
            if not ticket.woken and not (version and ticket.version == version):
                ticket.wake()
                if key.startswith("e:"):
                    return

    def send(self, keys: Iterable[Key]) -> None:
        """From any thread: NOTIFY these keys, together with what else this process has to say just now."""
        self._loop.call_soon_threadsafe(self._put, tuple(keys))

    def _put(self, keys: tuple[Key, ...]) -> None:
        news = [key for key in keys if key.startswith("n:")]
        if news and not self._news:
            self._loop.call_at(self._news_said_at + NEWS_EVERY_S, self._say_news)
        self._news.update(news)
        self._outbox.update(key for key in keys if not key.startswith("n:"))
        if self._outbox:
            self._to_send.set()

    def _say_news(self) -> None:
        self._news_said_at = self._loop.time()
        self._outbox |= self._news
        self._news.clear()
        self._to_send.set()

    async def _flush(self, conn: Connection) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            keys, self._outbox = list(self._outbox), set()
            try:
                await conn.execute(NOTIFY, {"channel": CHANNEL, "keys": keys})
            except psycopg.OperationalError:
                self._outbox.update(keys)  # for the next connection to say
                self._to_send.set()
                raise

    async def _listen(self, conn: Connection) -> None:
        await conn.execute(f"LISTEN {CHANNEL}")
        await self._recheck_all()  # what was said while nobody listened
        async for notice in conn.notifies():
            self.wake(notice.payload)

    async def _keep(self, what: str, body: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
        """Run `body` on a connection of its own, anew on another whenever that one is lost."""
        while True:
            try:
                connect = psycopg.AsyncConnection.connect(
                    settings.DATABASE_DIRECT_URL, autocommit=True, application_name=f"hearth {what}"
                )
                async with await connect as conn:
                    await body(conn)
            except psycopg.OperationalError as error:
                log.warning("no database connection to %s: %s", what, error)
                await asyncio.sleep(0.5)

    async def _tick(self) -> None:
        while True:
            await asyncio.gather(self._recheck_all(), self._beat_once())
            await asyncio.sleep(settings.RECHECK_S)

    async def _recheck_all(self) -> None:
        try:
            for key, version in await self._recheck(list(self._waiters)) if self._waiters else ():
                self.wake(key, version)
        except Exception as error:  # the database is away: the next round asks again
            log.warning("could not re-read what is waited for: %s", error)

    async def _beat_once(self) -> None:
        try:
            await self._beat()
        except Exception as error:  # as above
            log.warning("could not say that this process is up: %s", error)
