"""One guarded POST to a tenant's receiver: no redirects, bounded in time and in what is read, and no error raised."""

import asyncio
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp
from yarl import URL

from jobs.webhooks.deliver import Answer
from jobs.webhooks.message import Message
from worker.guard import connector
from worker.wire import UrlRefused, check_url, type_of_network

CONNECT_S = 5.0
ANSWER_BYTES = 500  # that are kept of an answer
ANSWER_S = 2.0  # that its body may take once its head has come
NOT_PUBLIC = "Its host leads to an address that is not public."


class Poster:
    """A session without cookies and without connections that are kept: tenants share nothing here."""

    def __init__(self, allowed: tuple[type_of_network, ...], post_s: float) -> None:
        self._allowed, self._post_s = allowed, post_s
        self._session = aiohttp.ClientSession(
            connector=connector(allowed, once=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding"),
            timeout=aiohttp.ClientTimeout(total=post_s, sock_connect=CONNECT_S),
        )

    async def __aenter__(self) -> "Poster":
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def post(self, message: Message) -> Answer:
        begun = time.monotonic()
        try:
            check_url(message.url, self._allowed)
            url = URL(message.url, encoded=message.url.isascii())  # as given: it may carry a token
            async with self._session.post(
                url, data=message.body, headers=message.headers, allow_redirects=False
            ) as response:
                ms = _ms(begun)
                return Answer(
                    ms=ms,
                    status=response.status,
                    answer=await _first_bytes(response),
                    retry_after_s=retry_after_s(response.headers.get("Retry-After", ""), datetime.now(UTC)),
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(ms=_ms(begun), error=self._told(error)[:300])

    def _told(self, error: Exception) -> str:
        """For the tenant: without the addresses that names of ours lead to."""
        if isinstance(error, UrlRefused):
            return NOT_PUBLIC if "is not public" in str(error) else f"The URL is refused: {error}."
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PermissionError):
            return NOT_PUBLIC
        if isinstance(error, TimeoutError):
            return f"No answer within {self._post_s:.0f} s ({CONNECT_S:.0f} s to connect)."
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "Its host was not found."
        return f"No answer: {error or type(error).__name__}."


async def _first_bytes(response: aiohttp.ClientResponse) -> str:
    """What the answer begins with; the status has decided already, so nothing here fails."""
    got = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            while len(got) < ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES - len(got))):
                got += more
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        pass
    return got.decode(errors="replace")


def retry_after_s(text: str, now: datetime) -> float | None:
    """Of a Retry-After header, in seconds or as a date; None for what is neither."""
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _ms(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
