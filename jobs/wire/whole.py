"""WholeBody: a request reaches Django when its body has arrived, so that a slow client holds no thread; and AtMost,
before what may hold one for long."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from starlette.requests import Request

from accounts.errors import Refused
from jobs.wire.answers import refused
from jobs.wire.bodies import receive_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
IN_MEMORY_BYTES, CHUNK_BYTES = 1024**2, 64 * 1024


class WholeBody:
    """Before an ASGI app: larger bodies than `most` bytes are answered 413, others given on with their length."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] != "http" or not {b"content-length", b"transfer-encoding"} & headers.keys():
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        with SpooledTemporaryFile(IN_MEMORY_BYTES) as body:
            try:
                await receive_body(request, self._most, body.write, lambda: body.truncate(0))
            except Refused as error:
                await (await refused(request, error))(scope, receive, send)
                return
            size = body.tell()
            body.seek(0)
            told = [(name, value) for name, value in scope["headers"] if name not in OF_LENGTH]
            told.append((b"content-length", str(size).encode()))
            await self._app({**scope, "headers": told}, _again(body, size, receive), send)


OF_LENGTH = (b"content-length", b"transfer-encoding")


def _again(body: IO[bytes], size: int, receive: Receive) -> Receive:
    """The body from where it was kept, then what comes after it."""

    async def next_message() -> Message:
        if body.tell() >= size and size:
            return await receive()
        chunk = body.read(CHUNK_BYTES)
        return {"type": "http.request", "body": chunk, "more_body": body.tell() < size}

    return next_message


class AtMost:
    """Before an ASGI app: of the requests that `held` names, `at_once` are with it at a time; others wait without a
    thread, and are answered 503 after a while. So an S3 that hangs takes no more of the pool's threads than these."""

    def __init__(
        self,
        app: Any,
        held: Callable[[MutableMapping[str, Any]], bool],
        at_once: int,
        wait_s: float,
        why: str = "Other uploads have kept S3 busy",
    ) -> None:
        self._app, self._held, self._wait_s, self._why = app, held, wait_s, why
        self._permits = asyncio.Semaphore(at_once)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._held(scope):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._permits.acquire()
        except TimeoutError:
            error = f"{self._why} for {self._wait_s:g} s: it is slow. Try again."
            refusal = Refused(503, "storage_unavailable", error, retry_after_s=5)
            await (await refused(Request(scope, receive), refusal))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._permits.release()
