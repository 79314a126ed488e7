"""Files that came inside of a result, as base64: put into the job's bucket before the result is applied. Each step is
its own, since S3 is asked while no transaction is open and by no thread that holds a connection."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from accounts.errors import Refused
from jobs import uploads
from jobs.ids import AttemptId
from storage.objects import Wanted
from worker.kinds import content_type_of, kind_of
from worker.wire import Found, Slot, Upload


@dataclass(frozen=True, kw_only=True)
class Inline:
    """A file that came inside of a result, at this place of its files."""

    position: int
    name: str
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def upload(self) -> Upload:
        content_type = content_type_of(self.name)
        return Upload(
            name=self.name,
            content_type=content_type,
            bytes=len(self.content),
            sha256=self.sha256,
            node="",
            kind=kind_of(self.name, content_type),
        )


class NotStored(Exception):
    """These files of a result have to be stored first."""

    def __init__(self, inline: Sequence[Inline]) -> None:
        super().__init__(f"{len(inline)} files are not stored yet")
        self.inline = inline


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where the files are, by their places; why others are not. away: since S3 is, so that another try may help."""

    slots: Mapping[int, Slot] = field(default_factory=dict)
    faults: Sequence[str] = ()
    away: bool = False


@dataclass(frozen=True, kw_only=True)
class Put:
    """One of them on its way."""

    inline: Inline
    slot: Slot
    wanted: Wanted


def begin(attempt: AttemptId, inline: Sequence[Inline]) -> list[Put] | Stored:
    """What is to be put where; a Stored if there is no use in it."""
    try:
        slots = uploads.slots(attempt, [one.upload() for one in inline])
    except Refused as error:
        return Stored(faults=[error.error])
    if slots is None:
        return Stored()  # it has ended: what comes of it is not kept anyway
    wanted = {one.id: one for one in uploads.wanted(attempt, [UUID(slot.id) for slot in slots]) or ()}
    pairs = zip(inline, slots, strict=True)
    return [Put(inline=one, slot=slot, wanted=found) for one, slot in pairs if (found := wanted.get(UUID(slot.id)))]


def outcome(puts: Sequence[Put], found: Sequence[Found]) -> Stored:
    pairs = list(zip(puts, found, strict=True))
    return Stored(
        slots={put.inline.position: put.slot for put, one in pairs if one.there},
        faults=[fault(put.inline.name, one) for put, one in pairs if not one.there],
        away=any(is_away(one) for _, one in pairs),
    )


def is_away(found: Found) -> bool:
    return not found.there and (found.status == 0 or found.status == 429 or found.status >= 500)


def fault(name: str, found: Found) -> str:
    said = f"S3 answered {found.status} {found.code}".strip() if found.status else f"S3 did not answer ({found.code})"
    return f"{name} could not be stored: {said}. See the settings of the job's bucket, then run the job again."
