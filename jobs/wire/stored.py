"""Whether the files that a worker has put are in S3: asked in threads that hold no database connection and no
transaction, so that a slow S3 keeps nobody waiting but who asks."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

from jobs import uploads
from jobs.ids import AttemptId
from jobs.wire.call import verb
from storage import objects
from storage.objects import Wanted
from worker.wire import Found

T = TypeVar("T")
POOL = ThreadPoolExecutor(16, thread_name_prefix="s3")
AT_ONE_S3 = 4  # of them, so that one tenant's that hangs leaves the others theirs
LOOK_S = 10
_permits: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONE_S3))


async def look(attempt: AttemptId, ids: Sequence[UUID]) -> list[Found] | None:
    """What S3 has of these slots' files, in that order; None if the attempt is no longer current.

    Those that it has, or says that it may not tell, are marked, and not looked for again.
    """
    wanted = await verb(uploads.wanted, attempt, ids)
    if wanted is None:
        return None
    found = {one.id: one for one in await asyncio.gather(*(_look(one) for one in wanted))}
    if taken := [UUID(one.id) for one in found.values() if one.there or one.status in (401, 403)]:
        await verb(uploads.mark_stored, taken)
    return [found.get(str(id)) or Found(id=str(id), there=False) for id in ids]


async def _look(wanted: Wanted) -> Found:
    try:
        return await in_s3(wanted.place.endpoint_url if wanted.place else "", LOOK_S, objects.look, wanted)
    except TimeoutError:
        return Found(id=str(wanted.id), there=None, code="TimeoutError")


async def in_s3(endpoint_url: str, within_s: float, do: Callable[[Wanted], T], wanted: Wanted) -> T:
    """do(wanted), which talks to that S3. Raises TimeoutError; the thread then goes on by itself."""
    async with asyncio.timeout(within_s), _permits[endpoint_url]:
        return await asyncio.get_running_loop().run_in_executor(POOL, do, wanted)
