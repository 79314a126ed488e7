"""Where a job's files go: into the answer as base64, through Hearth into the tenant's bucket, or the caller's own."""

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from worker import media
from worker.bucket import Bucket
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.inputs import JobInput
from worker.put import Putter
from worker.upload import through_hearth

MAX_BASE64_BYTES = 10 * 1024**2  # of a job in Hearth: a larger answer would be refused

Store = Callable[[Sequence[OutputFile]], Awaitable[list[Stored | JobError]]]


def choose(
    given: JobInput,
    files: Sequence[OutputFile],
    job_id: str,
    hearth: Hearth | None,
    bucket: Bucket | None,
    putter: Putter,
) -> Store:
    """bucket: the worker's own setting, which the job's goes before. Without Hearth and a bucket, base64 it is."""
    small = sum(file.size for file in files) <= MAX_BASE64_BYTES
    own = given.bucket or bucket
    store: Store
    if hearth and not (given.to_base64 and small):
        store = lambda files: through_hearth(files, hearth, putter)  # noqa: E731
    elif hearth or given.to_base64 or not own:
        store = as_base64
    else:
        store = lambda files: own.store(files, job_id)  # noqa: E731
    return lambda files: _with_facts(files, store)


async def _with_facts(files: Sequence[OutputFile], store: Store) -> list[Stored | JobError]:
    """Stored, and meanwhile looked into."""
    known, stored = await asyncio.gather(media.facts_of(files), store(files))
    return [
        item.telling(**asdict(facts)) if isinstance(item, Stored) else item
        for item, facts in zip(stored, known, strict=True)
    ]


async def as_base64(files: Sequence[OutputFile]) -> list[Stored | JobError]:
    return [_base64(file) for file in files]


def _base64(file: OutputFile) -> Stored:
    text = base64.b64encode(file.body.read_at(0, file.size)).decode()
    return Stored(entry=text, asset=file.asset(id=str(uuid.uuid4()), key=None))
