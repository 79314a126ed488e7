"""A job's files on their way through Hearth into the job's bucket: slots, PUTs (in parts, where files are large), and
Hearth's own look whether they are there."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from worker import s3
from worker.aside import at_most
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Away, Hearth
from worker.put import Piece, Putter, Signed
from worker.s3 import S3Fault
from worker.wire import Found, Part, Slot

AT_ONCE = 4  # files, and parts of each
ROUNDS = 3  # so often a file is sent that S3 took and has not


@dataclass(kw_only=True)
class Sending:
    """A file and its slot; `error`: why it came to nothing. etags: of the parts that S3 has taken."""

    file: OutputFile
    slot: Slot
    error: JobError | None = None
    there: bool = False
    etags: dict[int, str] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return not self.there and self.error is None

    def result(self) -> Stored | JobError:
        return self.error or Stored(entry=self.slot.key, asset=self.file.asset(id=self.slot.id, key=self.slot.key))

    def left(self) -> list[int]:
        """The numbers of the parts that are still to be sent."""
        number = -(-self.file.size // self.slot.part_bytes)
        return [each for each in range(1, number + 1) if each not in self.etags]

    def piece(self, number: int) -> Piece:
        offset = (number - 1) * self.slot.part_bytes
        return Piece(body=self.file.body, offset=offset, size=min(self.slot.part_bytes, self.file.size - offset))


async def through_hearth(files: Sequence[OutputFile], hearth: Hearth, putter: Putter) -> list[Stored | JobError]:
    """`files` of the result holds keys: Hearth turns them into signed URLs whenever somebody reads the job."""
    if not files:
        return []
    try:
        slots = await hearth.uploads([file.upload() for file in files])
    except Away as error:
        return [file.failed(str(error)) for file in files]
    sendings = [Sending(file=file, slot=slot) for file, slot in zip(files, slots, strict=True)]
    uploads = Uploads(hearth, putter)
    for _ in range(ROUNDS):
        if left := [sending for sending in sendings if sending.open]:
            await at_most(AT_ONCE, uploads.send, left)
            await uploads.look([sending for sending in left if sending.open])
    for sending in sendings:
        if sending.open:
            reason = f"S3 took it {ROUNDS} times and has it not; see who else writes or deletes in that S3 bucket"
            sending.error = sending.file.failed(reason)
    return [sending.result() for sending in sendings]


class Uploads:
    """Into one job's bucket."""

    def __init__(self, hearth: Hearth, putter: Putter) -> None:
        self._hearth = hearth
        self._putter = putter

    async def send(self, sending: Sending) -> None:
        """Nothing is raised but NotOurs."""
        try:
            await (self._in_parts(sending) if sending.slot.part_bytes else self._whole(sending))
        except S3Fault as fault:
            sending.error = sending.file.failed(str(fault), fault.code)
        except Away as error:
            sending.error = sending.file.failed(str(error))

    async def look(self, sendings: Sequence[Sending]) -> None:
        """Ask Hearth which of them are there. If it cannot tell now, it looks itself when the job is done."""
        whole = [sending for sending in sendings if not sending.slot.part_bytes]
        try:
            found = await self._hearth.stored([sending.slot.id for sending in whole]) if whole else []
        except Away:
            found = [Found(id=sending.slot.id, there=None) for sending in whole]
        for sending, seen in zip(whole, found, strict=True):
            sending.there = seen.there is not False

    async def _whole(self, sending: Sending) -> None:
        async def renewed() -> Signed:
            [sending.slot] = await self._hearth.uploads([sending.file.upload()])
            return _signed(sending.slot, sending.slot)

        piece = Piece(body=sending.file.body, offset=0, size=sending.file.size)
        await self._put(piece, _signed(sending.slot, sending.slot), renewed)

    async def _in_parts(self, sending: Sending) -> None:
        """Each part that fails is sent again by itself; what S3 has taken is not sent twice."""
        parts = await self._parts(sending.slot, sending.left())
        await at_most(AT_ONCE, lambda part: self._part(sending, part), parts)
        found = await self._complete(sending)
        sending.there = found.there is not False
        if not sending.there:
            sending.etags.clear()

    async def _part(self, sending: Sending, part: Part) -> None:
        async def renewed() -> Signed:
            [again] = await self._parts(sending.slot, [part.number])
            return _signed(again, sending.slot)

        etag = await self._put(sending.piece(part.number), _signed(part, sending.slot), renewed)
        sending.etags[part.number] = etag

    async def _put(self, piece: Piece, to: Signed, renewed: Callable[[], Awaitable[Signed]]) -> str:
        """With a new URL, once, where S3 refuses it: it may be too old, or signed by a key that was replaced since."""
        try:
            return await self._putter.put(piece, to)
        except S3Fault as fault:
            if not fault.refused:
                raise
        try:
            return await self._putter.put(piece, await renewed())
        except S3Fault as fault:
            raise S3Fault("upload_clock", fault.said) if fault.expired else fault from None

    async def _parts(self, slot: Slot, numbers: Sequence[int]) -> list[Part]:
        async def ask() -> list[Part]:
            answer = await self._hearth.parts(slot.id, numbers)
            if isinstance(answer, Found):
                raise s3.of_hearths(answer.status, answer.code)
            return answer

        return await self._putter.patiently(ask)

    async def _complete(self, sending: Sending) -> Found:
        async def ask() -> Found:
            found = await self._hearth.complete(sending.slot.id, sending.etags)
            if found.there is None and not found.untold:
                raise s3.of_hearths(found.status, found.code)
            return found

        return await self._putter.patiently(ask)


def _signed(put: Slot | Part, slot: Slot) -> Signed:
    return Signed(url=put.url, headers=put.headers, trusted=slot.trusted)
