"""How often a caller may ask: all requests of clients pass here, and one for each block asks the database."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from accounts import access, rates
from accounts.errors import Refused
from accounts.rates import WINDOW_S, Block, Quota
from jobs import limits
from jobs.limits import Caller
from jobs.wire.answers import endpoint_of, key_of, refused
from jobs.wire.bodies import drop_body
from jobs.wire.call import verb
from jobs.wire.kept import Clock, Kept

CALLER_S = 5.0
Take = Callable[[str, int, int], Awaitable[Block]]
Handler = Callable[[Request], Awaitable[Response]]


async def _take(scope: str, permits: int, limit: int) -> Block:
    return await verb(rates.take, scope, permits, limit)


class _Window:
    """What this process knows of a scope's window: permits that it holds, what was free beside them, and its end."""

    def __init__(self) -> None:
        self.permits = self.free = 0
        self.ends = 0.0
        self.asking = asyncio.Lock()


class Rates:
    """The permits of this process. Of a limit it takes a twentieth at a time; what it refused it refuses, without
    asking again, until the window is over. The window is the database's, its end measured on the process's clock."""

    def __init__(self, take: Take = _take, clock: Clock = time.monotonic) -> None:
        self._take, self._clock = take, clock
        self._windows: dict[str, _Window] = {}
        self._look_over_at = 0.0

    async def admit(self, quotas: Sequence[Quota]) -> dict[str, str]:
        """One request: headers that say what is left. Raises Refused(429); then it has cost no quota a permit."""
        told: list[str] = []
        admitted: list[tuple[_Window, float]] = []
        for quota in quotas:
            window = self._windows.get(quota.scope) or self._begin(quota.scope)
            if not await self._permit(quota, window):
                for other, ends in admitted:
                    other.permits += other.ends == ends  # in a later window it would be one too many
                raise self._refused(quota, window)
            admitted.append((window, window.ends))
            told.append(f'"{quota.name}";r={window.permits + window.free};t={self._left_s(window)}')
        return {"RateLimit-Policy": ", ".join([q.policy for q in quotas]), "RateLimit": ", ".join(told)} if told else {}

    async def _permit(self, quota: Quota, window: _Window) -> bool:
        while True:
            if self._clock() < window.ends:
                if window.permits:
                    window.permits -= 1
                    return True
                if not window.free:
                    return False
            async with window.asking:
                if self._clock() >= window.ends or (window.free and not window.permits):
                    await self._ask(quota, window)

    async def _ask(self, quota: Quota, window: _Window) -> None:
        asked = self._clock()  # the end is never later than the database's, whose next window may have begun
        block = await self._take(quota.scope, max(1, quota.limit // 20), quota.limit)
        window.permits, window.free, window.ends = block.permits, block.free, asked + block.left_s

    def _left_s(self, window: _Window) -> int:
        return max(1, math.ceil(window.ends - self._clock()))

    def _refused(self, quota: Quota, window: _Window) -> Refused:
        left_s = self._left_s(window)
        error = f"Too many requests: {quota.rule}. More are taken in {left_s} s."
        refused = Refused(429, "rate_limited", error, retry_after_s=left_s)
        refused.headers = {"RateLimit-Policy": quota.policy, "RateLimit": f'"{quota.name}";r=0;t={left_s}'}
        return refused

    def _begin(self, scope: str) -> _Window:
        now = self._clock()
        if now >= self._look_over_at:
            self._look_over_at = now + WINDOW_S
            self._windows = {name: window for name, window in self._windows.items() if window.ends > now}
        return self._windows.setdefault(scope, _Window())


RATES = Rates()
OF_API: Kept[bytes, Sequence[Quota]] = Kept(CALLER_S)
CALLERS: Kept[tuple[bytes, str], Caller] = Kept(CALLER_S)


def limited(handler: Handler, operation: str, scope: str) -> Handler:
    """The handler behind its quotas, which count for good keys only; `request.state.caller` says whose this one is.

    Order: 401, 403, 404, then 429, then what the handler finds. A refusal lets the client send its body first.
    """

    async def admitted(request: Request) -> Response:
        access.api_key_params(key_of(request), scope)  # no body is read for who has no API key at all
        try:
            caller = request.state.caller = await _caller(request, scope)
            told = await RATES.admit(caller.quotas[operation])
        except Refused:
            await drop_body(request)
            raise
        try:
            response = await handler(request)
        except Refused as error:
            error.headers = told
            raise
        response.raw_headers += _raw(told)
        return response

    return admitted


def of_api(handler: Handler) -> Handler:
    """A handler under /api/v1 that is not Django's, behind the same quotas. Without a good key it is refused."""

    async def admitted(request: Request) -> Response:
        told = await RATES.admit(await _of_api(request))
        response = await handler(request)
        response.raw_headers += _raw(told)
        return response

    return admitted


def _raw(told: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in told.items()]


class ApiLimited:
    """Before an ASGI app that has /api/v1: requests to it have quotas too. Without a good key they are the app's to
    refuse."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not str(scope["path"]).startswith("/api/v1/"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            told = await RATES.admit(await _of_api(request))
        except Refused as error:
            if error.status != 429:
                await self._app(scope, receive, send)
                return
            await drop_body(request)
            await (await refused(request, error))(scope, receive, send)
            return
        await self._app(scope, receive, _telling(send, told))


async def _of_api(request: Request) -> Sequence[Quota]:
    key = key_of(request)

    async def ask() -> Sequence[Quota]:
        return await verb(limits.of_api, key)

    return await OF_API.get(key.digest, ask)


def _telling(send: Send, told: Mapping[str, str]) -> Send:
    headers = _raw(told)

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return telling


async def _caller(request: Request, scope: str) -> Caller:
    """Who calls, as it was learned from the database a few seconds ago, or is now."""
    key, endpoint = key_of(request), endpoint_of(request)

    async def ask() -> Caller:
        return await verb(limits.caller, key, endpoint, scope)

    caller = await CALLERS.get((key.digest, endpoint), ask)
    return caller if scope in caller.scopes else await ask()
