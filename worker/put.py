"""Presigned PUTs: exactly the headers that were signed, tried again where that can help, guarded where the address came
from a tenant."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from worker import s3
from worker.guard import connector
from worker.s3 import S3Fault
from worker.spool import Spool
from worker.wire import UrlRefused, check_url, type_of_network

T = TypeVar("T")
TRIES, PAUSE_S = 3, 0.5
CHUNK_BYTES = 256 * 1024
LONGEST_S, SLOWEST_BYTES_A_SECOND = 60, 100_000
SKIPPED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """size bytes of a file, from offset on."""

    body: Spool
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A presigned PUT. trusted: of the operator's bucket."""

    url: str
    headers: dict[str, str]
    trusted: bool


class Putter:
    """Holds the two sessions: for the operator's bucket, and for addresses from tenants."""

    def __init__(self, allowed: Iterable[type_of_network], patience_s: float) -> None:
        """patience_s: so long S3 may be away; a tenant's, from when the first of all files failed there, so that jobs
        which wait for one tenant's S3 do not take up the worker."""
        self._allowed = tuple(allowed)
        self._patience_s = patience_s
        self._trusted = aiohttp.ClientSession()
        self._guarded = aiohttp.ClientSession(connector=connector(self._allowed))
        self._failing: dict[str, tuple[float, float]] = {}  # when the first and the last file failed at that host

    async def close(self) -> None:
        await self._trusted.close()
        await self._guarded.close()

    async def put(self, piece: Piece, to: Signed) -> str:
        """The ETag. S3Fault says what S3 answered at last."""
        return await self.patiently(lambda: self.once(piece, to), "" if to.trusted else URL(to.url).host or "")

    async def patiently(self, do: Callable[[], Awaitable[T]], tenants_host: str = "") -> T:
        """What comes of it; on an S3Fault that may pass, tried again. tenants_host: "" for one whose patience begins
        now."""
        pause, tries, began = PAUSE_S, 0, time.monotonic()
        while True:
            tries += 1
            try:
                done = await do()
            except S3Fault as fault:
                if tenants_host:
                    began = self._failing_since(tenants_host)
                is_over = tries >= TRIES and time.monotonic() + pause > began + self._patience_s
                if is_over or not fault.again:
                    raise
            else:
                self._failing.pop(tenants_host, None)
                return done
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    def _failing_since(self, host: str) -> float:
        now = time.monotonic()
        first, last = self._failing.get(host, (now, now))
        self._failing[host] = (first if now - last <= self._patience_s else now, now)
        return self._failing[host][0]

    async def once(self, piece: Piece, to: Signed) -> str:
        """The ETag, or at once an S3Fault."""
        try:
            if not to.trusted:
                check_url(to.url, self._allowed)
            return await self._send(piece, to)
        except (aiohttp.ClientError, TimeoutError, UrlRefused) as error:
            raise s3.of_exception(error) from error

    async def _send(self, piece: Piece, to: Signed) -> str:
        headers = CIMultiDict(to.headers)
        headers["Content-Length"] = str(piece.size)
        request = (self._trusted if to.trusted else self._guarded).put(
            URL(to.url, encoded=True),  # yarl would quote it anew, and the signature would not match
            data=_chunks(piece),
            headers=headers,
            skip_auto_headers=SKIPPED,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=LONGEST_S + piece.size / SLOWEST_BYTES_A_SECOND, sock_connect=15),
        )
        async with request as response:
            if 200 <= response.status < 300:
                return response.headers.get("ETag", "")
            body = (await response.content.read(4096)).decode(errors="replace")
        raise s3.of_answer(response.status, response.reason or "", body, response.headers)


async def _chunks(piece: Piece) -> AsyncIterator[bytes]:
    end = piece.offset + piece.size
    for at in range(piece.offset, end, CHUNK_BYTES):
        yield piece.body.read_at(at, min(CHUNK_BYTES, end - at))
