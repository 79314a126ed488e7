"""Input files that are elsewhere: fetched within bounds of number, size and time, tried again where that can help, and
from addresses that came from a tenant only past the guard. What goes wrong is said before the GPU has begun."""

import asyncio
import hashlib
import mimetypes
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import aiohttp
from yarl import URL

from worker.aside import at_most
from worker.errors import JobError
from worker.guard import connector
from worker.paths import name_fault
from worker.put import TRIES
from worker.spool import Spool
from worker.wire import Source, UrlRefused, check_url, type_of_network

CONNECT_S, READ_S = 15, 30
PAUSE_S = 0.5  # after the first try; then twice as long
AT_ONCE = 4
CHUNK_BYTES = 256 * 1024
PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """name: a plain one, for ComfyUI's folder."""

    name: str
    body: Spool = field(repr=False)


@dataclass(kw_only=True)
class Budget:
    """What is left to one job's files together. until: of time.monotonic()."""

    bytes: int
    until: float


class Fetcher:
    """Holds the two sessions: for the operator's S3, and for addresses from tenants."""

    def __init__(
        self, allowed: Iterable[type_of_network], patience_s: float, most_bytes: int, longest_s: float
    ) -> None:
        """patience_s: so long the operator's S3 may be away; another server gets TRIES. most_bytes, longest_s: of all
        files of a job, which holds its worker's next place meanwhile."""
        self._allowed = tuple(allowed)
        self._patience_s, self._most_bytes, self._longest_s = patience_s, most_bytes, longest_s
        self._trusted = aiohttp.ClientSession(auto_decompress=False)
        self._guarded = aiohttp.ClientSession(connector=connector(self._allowed), auto_decompress=False)

    async def close(self) -> None:
        await self._trusted.close()
        await self._guarded.close()

    async def fetch(self, wanted: Sequence[tuple[str, Source]]) -> list[Fetched]:
        """(what it is called in errors, where it is) of a job's files → the files, in order. JobError for the first
        that is not to be had."""
        budget = Budget(bytes=self._most_bytes, until=time.monotonic() + self._longest_s)
        return await at_most(AT_ONCE, lambda pair: self._patiently(*pair, budget), wanted)

    async def _patiently(self, what: str, source: Source, budget: Budget) -> Fetched:
        if source.fault:
            raise JobError(f"{what}: {source.fault}", "bad_input")
        pause, tries = PAUSE_S, 0
        patient_until = time.monotonic() + (self._patience_s if source.trusted else 0)
        while True:
            tries += 1
            try:
                async with asyncio.timeout(budget.until - time.monotonic()):
                    return await self._once(source, budget)
            except _Wrong as error:
                raise JobError(f"{what}: {error}", "bad_input") from error
            except UrlRefused as error:
                raise JobError(f"{what}: its address is refused: {error}", "bad_input") from error
            except (aiohttp.ClientError, TimeoutError, _Again) as error:
                if (now := time.monotonic() + pause) > budget.until:
                    late = f"{_told(error)}; a job's input files may take {self._longest_s:g} s together"
                    raise JobError(f"{what}: {late}", "input_unavailable") from error
                if tries >= TRIES and now > patient_until:
                    raise JobError(f"{what}: {_told(error)}, tried {tries} times", "input_unavailable") from error
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _once(self, source: Source, budget: Budget) -> Fetched:
        if not source.trusted:
            check_url(source.url, self._allowed)
        request = (self._trusted if source.trusted else self._guarded).get(
            URL(source.url, encoded=True),  # yarl would quote it anew, and a signature would not match
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S),
        )
        async with request as response:
            _check_head(response)
            body = await self._read(response, source, budget)
            return Fetched(name=_name(source, response.content_type), body=body)

    async def _read(self, response: aiohttp.ClientResponse, source: Source, budget: Budget) -> Spool:
        """What is read counts for the job at once, so that no number of files is together above what is allowed."""
        body, digest = Spool(), hashlib.sha256()
        whole = False
        try:
            self._check_size((response.content_length or 0) > budget.bytes)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                budget.bytes -= len(chunk)
                body.write(chunk)
                digest.update(chunk)
                self._check_size(budget.bytes < 0)
            _check_bytes(source, body, digest.hexdigest())
            whole = True
        finally:
            budget.bytes += 0 if whole else body.size
        return body

    def _check_size(self, too_large: bool) -> None:
        if too_large:
            raise _Wrong(f"a job's input files may have {self._most_bytes} bytes together, and with it they have more")


class _Wrong(Exception):
    """It is not to be had, however often it is tried."""


class _Again(Exception):
    """The server is unwell: the same request may work a moment later."""


def _check_head(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status >= 500 or status in (408, 425, 429):
        raise _Again(f"its server answers HTTP {status}")
    if 300 <= status < 400:
        raise _Wrong(f"its server answers HTTP {status}, a redirect, which is not followed; send the final URL")
    if status != 200:
        raise _Wrong(f"its server answers HTTP {status} {response.reason or ''}".rstrip())
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _Wrong("its server sends it compressed, unasked")


def _told(error: Exception) -> str:
    if isinstance(error, _Again):
        return str(error)
    if isinstance(error, TimeoutError):
        return "its server is too slow"
    return f"no connection to its server, or one that breaks ({type(error).__name__})"


def _check_bytes(source: Source, body: Spool, sha256: str) -> None:
    if not body.size:
        raise _Wrong("it is empty")
    if source.bytes is not None and body.size != source.bytes:
        raise _Wrong(f"{body.size} bytes came, and it has {source.bytes}")
    if source.sha256 and sha256 != source.sha256:
        raise _Wrong("other bytes came than were uploaded: their SHA-256 is another")
    if not source.trusted and PAGE.match(body.read_at(0, 200)):
        raise _Wrong("it is an HTML page, no file; is there a login before it?")


def _name(source: Source, content_type: str) -> str:
    """As its owner named it, else as its URL does; with an ending, by which some nodes go."""
    name = (source.name or unquote(urlsplit(source.url).path)).rpartition("/")[2]
    name = re.sub(r"[^\w .()+-]", "_", name)[-100:].strip(" .")
    if not name or name_fault(name):
        name = "input"
    if not PurePosixPath(name).suffix:
        name += mimetypes.guess_extension(content_type) or ""
    return name
