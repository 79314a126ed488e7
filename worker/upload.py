"""A job's files on their way through Hearth into the job's bucket: slots, PUTs, and Hearth's own look whether they
are there."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.aside import at_most
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Away, Hearth
from worker.put import PutFailed, Putter
from worker.wire import Found, Slot

AT_ONCE = 4
ROUNDS = 3  # so often a file is sent that S3 took and has not


@dataclass(kw_only=True)
class Sending:
    """A file and its slot; `error`: why it came to nothing."""

    file: OutputFile
    slot: Slot
    error: JobError | None = None
    there: bool = False

    @property
    def open(self) -> bool:
        return not self.there and self.error is None

    def result(self) -> Stored | JobError:
        return self.error or Stored(entry=self.slot.key, asset=self.file.asset(id=self.slot.id, key=self.slot.key))


async def through_hearth(files: Sequence[OutputFile], hearth: Hearth, putter: Putter) -> list[Stored | JobError]:
    """`files` of the result holds keys: Hearth turns them into signed URLs whenever somebody reads the job."""
    if not files:
        return []
    try:
        slots = await hearth.uploads([file.upload() for file in files])
    except Away as error:
        return [file.failed(str(error)) for file in files]
    sendings = [Sending(file=file, slot=slot) for file, slot in zip(files, slots, strict=True)]
    for _ in range(ROUNDS):
        if left := [sending for sending in sendings if sending.open]:
            await at_most(AT_ONCE, lambda sending: _send(sending, hearth, putter), left)
            await _look(left, hearth)
    for sending in sendings:
        if sending.open:
            reason = f"S3 took it {ROUNDS} times and has it not; see who else writes or deletes in that S3 bucket"
            sending.error = sending.file.failed(reason)
    return [sending.result() for sending in sendings]


async def _send(sending: Sending, hearth: Hearth, putter: Putter) -> None:
    try:
        try:
            await putter.put(sending.file, sending.slot)
        except PutFailed as error:
            if not error.expired:
                raise
            [sending.slot] = await hearth.uploads([sending.file.upload()])
            await putter.put(sending.file, sending.slot)
    except (PutFailed, Away) as error:
        sending.error = sending.file.failed(str(error))


async def _look(sendings: Sequence[Sending], hearth: Hearth) -> None:
    """Ask Hearth which of them are there. If it cannot tell now, it looks itself when the job is done."""
    sent = [sending for sending in sendings if sending.open]
    try:
        found = await hearth.stored([sending.slot.id for sending in sent]) if sent else []
    except Away:
        found = [Found(id=sending.slot.id, there=None) for sending in sent]
    for sending, seen in zip(sent, found, strict=True):
        sending.there = seen.there is not False
