"""Where a job's files go: into the answer as base64, through Hearth into the tenant's bucket, or the caller's own."""

import base64
import uuid
from collections.abc import Awaitable, Callable, Sequence

from worker.aside import at_most
from worker.bucket import Bucket
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Away, Hearth
from worker.inputs import JobInput
from worker.put import PutFailed, Putter
from worker.wire import Slot

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
    if hearth and not (given.to_base64 and small):
        return lambda files: through_hearth(files, hearth, putter)
    if hearth or given.to_base64 or not own:
        return as_base64
    return lambda files: own.store(files, job_id)


async def as_base64(files: Sequence[OutputFile]) -> list[Stored | JobError]:
    return [_base64(file) for file in files]


def _base64(file: OutputFile) -> Stored:
    file.body.seek(0)
    text = base64.b64encode(file.body.read()).decode()
    return Stored(entry=text, asset=file.asset(id=str(uuid.uuid4()), key=None))


async def through_hearth(files: Sequence[OutputFile], hearth: Hearth, putter: Putter) -> list[Stored | JobError]:
    """`files` holds keys: Hearth turns them into signed URLs whenever somebody reads the job."""
    if not files:
        return []
    try:
        slots = await hearth.uploads([file.upload() for file in files])
    except Away as error:
        return [file.failed(str(error)) for file in files]
    pairs = zip(files, slots, strict=True)
    return await at_most(4, lambda pair: _into(*pair, hearth, putter), pairs)


async def _into(file: OutputFile, slot: Slot, hearth: Hearth, putter: Putter) -> Stored | JobError:
    try:
        try:
            await putter.put(file, slot)
        except PutFailed as error:
            if not error.expired:
                raise
            [slot] = await hearth.uploads([file.upload()])
            await putter.put(file, slot)
    except (PutFailed, Away) as error:
        return file.failed(str(error))
    return Stored(entry=slot.key, asset=file.asset(id=slot.id, key=slot.key))
