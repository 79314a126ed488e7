"""A job's news as Server-Sent Events, from where its reader left off until the job ends: for its tenant at
/api/v1/jobs/<id>/events, for operators and members beside the job's page in the admin."""

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from accounts.errors import Refused, bad_request
from jobs import following
from jobs.admin.watch import check_watcher
from jobs.following import News, Reading, Seen
from jobs.granted import READ
from jobs.live import Hub, job_key, news_key
from jobs.wire.answers import job_of, key_of
from jobs.wire.call import verb
from jobs.wire.rates import limited

PATH, ADMIN_PATH = "/api/v1/jobs/{job}/events", "/admin/jobs/job/{job:uuid}/events"
OPERATORS = UUID(int=0)  # all of them, where streams are counted by tenant
MOST_STREAMS = 10_000  # of a tenant, in one process
LIFE_S = 3600.0  # then the client is to connect again, and its key is looked at again
BEAT_S = 15.0
AWAY_S = 1.0
LOOK_S, LOOKS_A_SECOND = 2.0, 150  # at places in the queue: by one stream, by all of them
BEAT = b":\n\n"
LAST_ID = re.compile(r"(\d{1,9})(-end)?")

_open: Counter[UUID] = Counter()  # streams, by tenant


class EventStream(StreamingResponse):
    """Without the two tasks that Starlette's own keeps for each client: `_told` sees by itself when he has gone."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def events(request: Request) -> Response:
    """Its endpoint is the job's: `limited` goes by it."""
    request.path_params["endpoint"] = await verb(following.endpoint_of, key_of(request), job_of(request, where=""))
    return await _admitted(request)


async def _events(request: Request) -> Response:
    return await _stream(request, job_of(request, where="").uuid, request.state.caller.tenant_id)


async def watched(request: Request) -> Response:
    job: UUID = request.path_params["job"]
    tenant = await verb(check_watcher, request.cookies, job)
    return await _stream(request, job, tenant or OPERATORS)


async def _stream(request: Request, job: UUID, tenant: UUID) -> Response:
    last = LAST_ID.fullmatch(request.headers.get("last-event-id", ""))
    seen = Seen(lines=int(last[1]) if last else 0, preview=_previews(request))
    if last and last[2] and _is_all(await verb(following.read, job, seen)):
        return Response(status_code=204)  # a browser's EventSource then stays away
    if _open[tenant] >= MOST_STREAMS:
        error = f"You have {MOST_STREAMS} event streams open, which is the limit: close some, or ask for the status."
        raise Refused(429, "too_many_streams", error, retry_after_s=int(BEAT_S))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    told = _nothing() if request.method == "HEAD" else _told(request, job, tenant, seen)
    return EventStream(told, headers=headers)


def _previews(request: Request) -> str | None:
    """`preview=false` declines them; else they come where the job asked for them."""
    wanted = request.query_params.get("preview", "true")
    if wanted not in ("true", "false"):
        raise bad_request(f"`preview` must be true or false, not {wanted[:20]!r}.")
    return "" if wanted == "true" else None


def _is_all(reading: Reading) -> bool:
    return reading.ended and len(reading.news) <= 1


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _told(request: Request, job: UUID, tenant: UUID, seen: Seen) -> AsyncIterator[bytes]:
    """Register, then read, then wait (rules.md 13). A stream that stops before `end` is to be asked for again."""
    hub = Hub.current
    assert hub is not None
    ends = asyncio.get_running_loop().time() + LIFE_S
    _open[tenant] += 1
    try:
        async with hub.waiting(job_key(job), news_key(job)) as ticket:
            yield b"retry: %d\n\n" % random.randint(1000, 3000)  # so that not all come back at once
            while not await _is_over(request, hub, ends):
                reading = await _read(job, seen, hub)
                seen, ticket.version = reading.seen, reading.seen.version
                if reading.news:
                    yield b"".join(_frame(news) for news in reading.news)
                if reading.ended:
                    return
                while not (reading.more or await ticket.wait(_pause_s(reading)) or await _is_over(request, hub, ends)):
                    news, seen = await verb(following.waits, reading.queued, seen) if reading.queued else ([], seen)
                    yield b"".join(_frame(each) for each in news) or BEAT
            yield b": to be continued: connect again\n\n"
    finally:
        _open[tenant] -= 1
        if not _open[tenant]:
            del _open[tenant]


async def _is_over(request: Request, hub: Hub, ends: float) -> bool:
    return hub.draining or asyncio.get_running_loop().time() > ends or await request.is_disconnected()


async def _read(job: UUID, seen: Seen, hub: Hub) -> Reading:
    """While the database is away the stream waits with its client."""
    while True:
        try:
            return await verb(following.read, job, seen)
        except Refused:
            if hub.draining:
                return Reading([], seen)
            await asyncio.sleep(AWAY_S)


def _pause_s(reading: Reading) -> float:
    """Until a stream in which nothing happens says that it is there, or looks where its job is in the queue."""
    return min(BEAT_S, max(LOOK_S, _open.total() / LOOKS_A_SECOND)) if reading.queued else BEAT_S


def _frame(news: News) -> bytes:
    data = b"".join(b"data: %b\n" % line for line in news.json.splitlines())
    last = b"-end" if news.kind == "end" else b""
    return b"event: %b\nid: %d%b\n%b\n" % (news.kind.encode(), news.lines, last, data)


_admitted = limited(_events, "status", READ)
ROUTES = [Route(PATH, events, methods=["GET"])]
ADMIN_ROUTES = [Route(ADMIN_PATH, watched, methods=["GET"])]
