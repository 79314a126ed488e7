"""Where a job's files go: into the answer as base64, through Hearth into the tenant's bucket, or the caller's own."""

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace

from worker import convert, media
from worker.bucket import Bucket
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.inputs import JobInput
from worker.preview import Previews
from worker.put import Putter
from worker.upload import through_hearth

Store = Callable[[Sequence[OutputFile]], Awaitable[list[Stored | JobError]]]


def choose(
    given: JobInput, job_id: str, hearth: Hearth | None, bucket: Bucket | None, putter: Putter, most_base64_bytes: int
) -> Store:
    """As the job wishes them. bucket: the worker's own setting, which the job's goes before. Base64 that would not fit
    into the answer goes elsewhere, if there is such a place."""
    elsewhere = _elsewhere(given, job_id, hearth, bucket, putter)

    async def store(files: Sequence[OutputFile]) -> list[Stored | JobError]:
        made, notes = await convert.converted(files, given.wish)
        small = sum(file.size for file in made) <= most_base64_bytes
        if elsewhere is None or (given.to_base64 and small):
            stored = await _with_facts(made, lambda files: as_base64(files, most_base64_bytes))
        else:
            stored = await _with_facts(made, elsewhere)
        return [
            replace(item, note=note) if isinstance(item, Stored) else item
            for item, note in zip(stored, notes, strict=True)
        ]

    return store


def choose_apart(given: JobInput, job_id: str, hearth: Hearth | None, bucket: Bucket | None, putter: Putter) -> Store:
    """For what is too large for the answer in any case."""
    return _elsewhere(given, job_id, hearth, bucket, putter) or (lambda files: as_base64(files, 0))


def _elsewhere(
    given: JobInput, job_id: str, hearth: Hearth | None, bucket: Bucket | None, putter: Putter
) -> Store | None:
    if hearth:
        return lambda files: _with_previews(files, hearth, putter)
    own = given.bucket or bucket
    return (lambda files: own.store(files, job_id)) if own else None


async def _with_previews(files: Sequence[OutputFile], hearth: Hearth, putter: Putter) -> list[Stored | JobError]:
    """Through Hearth, and small pictures of them beside them."""
    previews = Previews(files)
    try:
        return await previews.beside(await through_hearth(files, hearth, putter), hearth, putter)
    finally:
        previews.close()


async def _with_facts(files: Sequence[OutputFile], store: Store) -> list[Stored | JobError]:
    """Stored, and meanwhile looked into."""
    known, stored = await asyncio.gather(media.facts_of(files), store(files))
    return [
        item.telling(**asdict(facts)) if isinstance(item, Stored) else item
        for item, facts in zip(stored, known, strict=True)
    ]


async def as_base64(files: Sequence[OutputFile], most_bytes: int) -> list[Stored | JobError]:
    """The first that fit together."""
    stored: list[Stored | JobError] = []
    for file in files:
        fits = file.size <= most_bytes
        most_bytes -= file.size if fits else 0
        stored.append(_base64(file) if fits else _too_large(file))
    return stored


def _base64(file: OutputFile) -> Stored:
    text = base64.b64encode(file.body.read_at(0, file.size)).decode()
    return Stored(entry=text, asset=file.asset(id=str(uuid.uuid4()), key=None))


def _too_large(file: OutputFile) -> JobError:
    text = f"{file.name} of node {file.node} has {file.size} bytes, and an answer has no room for them"
    return JobError(f"{text}; name an S3 bucket: tobucket, or the worker's BUCKET_* settings", "answer_too_large")
