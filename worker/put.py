"""One presigned PUT: exactly the headers that were signed, tried again where that can help, guarded where the
address came from a tenant."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from worker.files import OutputFile
from worker.guard import connector
from worker.wire import Slot, UrlRefused, check_url, type_of_network

TRIES = 3
CHUNK_BYTES = 256 * 1024
SLOWEST_BYTES_A_SECOND = 100_000
SKIPPED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class PutFailed(Exception):
    """S3 did not take the file. expired: it refused the signature (403), so a new slot may help."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class Putter:
    """Holds the two sessions: for the operator's bucket, and for addresses from tenants."""

    def __init__(self, allowed: Iterable[type_of_network], patience_s: float) -> None:
        """patience_s: so long the operator's S3 may be away; a tenant's gets TRIES."""
        self._allowed = tuple(allowed)
        self._patience_s = patience_s
        self._trusted = aiohttp.ClientSession()
        self._guarded = aiohttp.ClientSession(connector=connector(self._allowed))

    async def close(self) -> None:
        await self._trusted.close()
        await self._guarded.close()

    async def put(self, file: OutputFile, slot: Slot) -> None:
        """PutFailed says what S3 answered at last."""
        pause, tries = 0.5, 0
        until = time.monotonic() + (self._patience_s if slot.trusted else 0)
        while True:
            tries += 1
            try:
                await self._once(file, slot)
                break
            except UrlRefused as error:
                raise PutFailed(f"the bucket's address is refused: {error}") from error
            except (aiohttp.ClientError, TimeoutError, _Again) as error:
                if tries >= TRIES and time.monotonic() + pause > until:
                    raise PutFailed(f"{_told(error)}, tried {tries} times") from error
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _once(self, file: OutputFile, slot: Slot) -> None:
        if not slot.trusted:
            check_url(slot.url, self._allowed)
        headers = CIMultiDict(slot.headers)
        headers["Content-Length"] = str(file.size)
        request = (self._trusted if slot.trusted else self._guarded).put(
            URL(slot.url, encoded=True),  # yarl would quote it anew, and the signature would not match
            data=_chunks(file),
            headers=headers,
            skip_auto_headers=SKIPPED,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=60 + file.size / SLOWEST_BYTES_A_SECOND, sock_connect=15),
        )
        async with request as response:
            if 200 <= response.status < 300:
                return
            body = (await response.content.read(4096)).decode(errors="replace")
        code = re.search(r"<Code>([^<]{1,80})</Code>", body)
        reason = f"S3 answered {response.status} {code[1] if code else response.reason}"
        if response.status >= 500 or response.status == 429:
            raise _Again(reason)
        raise PutFailed(reason, expired=response.status == 403)


class _Again(Exception):
    """S3 is unwell: the same PUT may work a moment later."""


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, _Again) else f"no connection to S3 ({type(error).__name__})"


async def _chunks(file: OutputFile) -> AsyncIterator[bytes]:
    for offset in range(0, file.size, CHUNK_BYTES):
        yield file.body.read_at(offset, CHUNK_BYTES)
