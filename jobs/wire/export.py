"""GET /api/v1/jobs/export: a tenant's jobs as CSV or lines of JSON; for operators beside the list of jobs in the admin.

It is not Django's: a thread of web's few would be held for as long as its reader takes. Here, between two pages, an
export holds no thread, no connection and no transaction, and the next page is read when the last one has been taken.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from accounts.errors import Refused, bad_request
from jobs import export
from jobs.admin.watch import listed
from jobs.export import Format, Page
from jobs.granted import READ, holder
from jobs.live import Hub
from jobs.search import Search
from jobs.wire.answers import key_of, refused
from jobs.wire.call import verb
from jobs.wire.rates import of_api

log = logging.getLogger("hearth.web")
PATH, ADMIN_PATH = "/api/v1/jobs/export", "/admin/jobs/job/export"
MOST_OF_ONE, MOST = 4, 50  # of a tenant or a user of the admin, and of all, at a time in one process: each has a page
SLICE_BYTES, PATIENCE_S = 64 * 1024, 60.0  # a reader takes so much in that time, or is given up
AWAY_S, AWAY_TRIES = 1.0, 60  # while the database is away
RETRY_S = 30
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
Read = Callable[[UUID | None], Page]

_open: Counter[str] = Counter()  # exports, by whose they are
_reading = asyncio.Semaphore(max(1, settings.WEB_THREADS // 4))  # of web's threads, those that exports may use


async def exported(request: Request) -> Response:
    key = key_of(request)
    caller = await verb(holder, key, READ)
    query, form = _asked(request)
    search = await verb(_search, query)
    return Export(request, f"tenant {caller.tenant_id}", form, partial(export.of_tenant, key, search, form))


async def listed_of_all(request: Request) -> Response:
    query, form = _asked(request)
    user, jobs = await verb(listed, request.cookies, query)
    return Export(request, f"user {user}", form, partial(export.page, jobs, form, of_all=True))


def _search(query: QueryDict) -> Search:
    """In a thread: the pages of the API, which know the filters, are loaded when first needed. Raises Refused(400)."""
    from jobs.api.jobs import wanted

    return wanted(query)


def _asked(request: Request) -> tuple[QueryDict, Format]:
    """The query, and the `format` that was in it. Raises Refused(400)."""
    try:
        query = QueryDict(request.url.query, mutable=True)
    except SuspiciousOperation as error:
        raise bad_request(f"The query is not sound: {error}.") from error
    (text,) = query.pop("format", [Format.CSV.value])[-1:]
    if text not in list(Format):
        raise bad_request(f"`format` must be {' or '.join(Format)}, not {text[:20]!r}.")
    return query, Format(text)


class Export(Response):
    """A file of pages. One that breaks off has no end, by which who reads it knows that it is not whole."""

    def __init__(self, request: Request, whose: str, form: Format, read: Read) -> None:
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="jobs.{form}"'}
        headers |= {"X-Accel-Buffering": "no", "Content-Type": export.TYPES[form]}
        super().__init__(headers=headers)
        del self.headers["Content-Length"]
        self._request, self._whose, self._read = request, whose, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with _room(self._whose):
                first = await _page(self._read, None)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if scope["method"] == "HEAD" or await self._sent(first, send):
                    await send(END)
        except Refused as error:  # nothing is sent yet
            await (await refused(self._request, error))(scope, receive, send)

    async def _sent(self, page: Page, send: Send) -> bool:
        """Whether all of it was."""
        try:
            while True:
                for at in range(0, len(page.body), SLICE_BYTES):
                    async with asyncio.timeout(PATIENCE_S):
                        part = page.body[at : at + SLICE_BYTES]
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                if page.last is None:
                    return True
                if await self._is_over():
                    return False
                page = await self._next(page.last)
        except TimeoutError:
            log.info("an export is given up: its reader took less than %s bytes in %s s", SLICE_BYTES, PATIENCE_S)
        except Refused as refusal:
            log.info("an export broke off: %s", refusal.error)
        return False

    async def _next(self, after: UUID) -> Page:
        """Raises Refused: the key is not good any more, or the database was away for too long."""
        for _ in range(AWAY_TRIES):
            try:
                return await _page(self._read, after)
            except Refused as refusal:
                if refusal.status != 503 or await self._is_over():
                    raise
            await asyncio.sleep(AWAY_S)
        return await _page(self._read, after)

    async def _is_over(self) -> bool:
        return (Hub.current is not None and Hub.current.draining) or await self._request.is_disconnected()


async def _page(read: Read, after: UUID | None) -> Page:
    async with _reading:
        return await verb(read, after)


@contextmanager
def _room(whose: str) -> Iterator[None]:
    """Raises Refused: 429, 503."""
    if _open[whose] >= MOST_OF_ONE:
        error = f"{MOST_OF_ONE} exports of yours are on their way here, which is the limit: read one to its end first."
        raise Refused(429, "too_many_exports", error, retry_after_s=RETRY_S)
    if _open.total() >= MOST:
        raise Refused(503, "too_many_exports", "Too many exports are on their way. Try again.", retry_after_s=RETRY_S)
    _open[whose] += 1
    try:
        yield
    finally:
        _open[whose] -= 1
        if not _open[whose]:
            del _open[whose]


ROUTES = [Route(PATH, of_api(exported), methods=["GET"])]
ADMIN_ROUTES = [Route(ADMIN_PATH, listed_of_all, methods=["GET"])]
