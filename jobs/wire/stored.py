"""Whether the files that a worker puts are in S3, their uploads in parts, and files that come inside of results. S3 is
asked in threads that hold no database connection and no transaction, so that a slow one keeps nobody waiting but who
asks."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar
from uuid import UUID

from accounts.errors import bad_request
from jobs import inline, uploads
from jobs.ids import AttemptId
from jobs.inline import Inline, NotStored, Put, Stored
from jobs.reported import AtS3
from jobs.wire.call import verb
from storage import objects
from storage.objects import Wanted
from storage.outputs import NotLookedAt
from worker.wire import Found, Part

P = ParamSpec("P")
T = TypeVar("T")
POOL = ThreadPoolExecutor(16, thread_name_prefix="s3")
AT_ONE_S3 = 4  # of them, so that one tenant's that hangs leaves the others theirs
LOOK_S, PUT_S, COMPLETE_S = 10, 60, 80
_permits: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONE_S3))


async def look(attempt: AttemptId, ids: Sequence[UUID]) -> list[Found] | None:
    """What S3 has of these slots' files, in that order; None if the attempt is no longer current."""
    wanted = await verb(uploads.wanted, attempt, ids)
    if wanted is None:
        return None
    found = {one.id: one for one in await asyncio.gather(*(_look(one) for one in wanted))}
    await _mark(list(found.values()))
    return [found.get(str(id)) or Found(id=str(id), there=False) for id in ids]


async def at_s3(attempt: AttemptId, first: NotLookedAt | NotStored, patience_s: float) -> AtS3:
    """Do what comes first: look for the files that are reported, or store those that came inside of the result; if S3
    is away, again for patience_s."""
    if isinstance(first, NotStored):
        return AtS3(stored=await _keep(attempt, first.inline, patience_s))
    found = await look(attempt, first.blobs) or ()
    return AtS3(absent=frozenset(UUID(one.id) for one in found if one.there is False))


async def _keep(attempt: AttemptId, files: Sequence[Inline], patience_s: float) -> Stored:
    puts = await verb(inline.begin, attempt, files)
    if isinstance(puts, Stored):
        return puts
    until = asyncio.get_running_loop().time() + patience_s
    found = await asyncio.gather(*(_put(put, until) for put in puts))
    await _mark(found)
    return inline.outcome(puts, found)


async def _put(put: Put, until: float) -> Found:
    pause_s = 0.5
    while True:
        found = await _told(put.wanted, PUT_S, objects.put, put.wanted, put.inline.content)
        if not inline.is_away(found) or asyncio.get_running_loop().time() + pause_s > until:
            return found
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, 5.0)


async def part_urls(attempt: AttemptId, id: UUID, numbers: Sequence[int]) -> list[Part] | Found | None:
    """Where to put these parts of a slot's file, whose upload begins with the first that is asked for; a Found if S3
    does not let it begin. None: the attempt is no longer current. Refused(400)."""
    wanted = await _in_parts(attempt, id)
    if wanted is None:
        return None
    if not all(wanted.size_of(number) for number in numbers):
        raise bad_request(f"The file has no such parts: it has {wanted.bytes} bytes in parts of {wanted.part_bytes}.")
    if not wanted.upload_id:
        begun = await _told(wanted, LOOK_S, objects.begin, wanted)
        if isinstance(begun, Found):
            return begun
        wanted = await verb(uploads.begun, wanted, begun)
        if wanted.place and wanted.upload_id != begun:
            await _told(wanted, LOOK_S, objects.abort, wanted.place, wanted.key, begun)
    return await in_s3(_endpoint(wanted), LOOK_S, objects.sign_parts, wanted, numbers)


async def complete(attempt: AttemptId, id: UUID, etags: Mapping[int, str]) -> Found | None:
    """Make one file of the parts. None: the attempt is no longer current. Refused(400)."""
    wanted = await _in_parts(attempt, id)
    if wanted is None:
        return None
    found = await _told(wanted, COMPLETE_S, objects.complete, wanted, etags)
    await _mark([found])
    if found.there is False:
        await verb(uploads.begin_anew, wanted)
    return found


async def _in_parts(attempt: AttemptId, id: UUID) -> Wanted | None:
    found = await verb(uploads.wanted, attempt, [id])
    if found is not None and not (found and found[0].part_bytes):
        raise bad_request(f"The file {id} of this attempt is not uploaded in parts.")
    return found[0] if found else None


async def _look(wanted: Wanted) -> Found:
    return await _told(wanted, LOOK_S, objects.look, wanted)


async def _mark(found: Sequence[Found]) -> None:
    """What S3 has, or says that it may not tell, is not looked for again."""
    if taken := [UUID(one.id) for one in found if one.there or one.untold]:
        await verb(uploads.mark_stored, taken)


async def _told(wanted: Wanted, within_s: float, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Found:
    """do(…); a Found that tells nothing, if it takes too long."""
    try:
        return await in_s3(_endpoint(wanted), within_s, do, *args, **kwargs)
    except TimeoutError:
        return Found(id=str(wanted.id), there=None, code="TimeoutError")


def _endpoint(wanted: Wanted) -> str:
    return wanted.place.endpoint_url if wanted.place else ""


async def in_s3(endpoint_url: str, within_s: float, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """do(…), which talks to that S3. Raises TimeoutError; the thread then goes on by itself, and keeps its permit."""
    permit = _permits[endpoint_url]
    async with asyncio.timeout(within_s):
        await permit.acquire()
        working = POOL.submit(lambda: do(*args, **kwargs))
        working.add_done_callback(partial(_give_back, asyncio.get_running_loop(), permit))
        return await asyncio.wrap_future(working)


def _give_back(loop: asyncio.AbstractEventLoop, permit: asyncio.Semaphore, _: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: this process ends
        loop.call_soon_threadsafe(permit.release)
