"""The calls of a worker to Hearth (wire.py's docstring). The token is the right to them: it is never logged."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import aiohttp

from worker.wire import HEARTH_FIELD, Asset, Found, Part, Slot, Source, Upload

CALL_S, COMPLETE_S = 15, 90  # S3 takes its time to make one file of many parts
SOURCE_FIELDS = [field.name for field in dataclasses.fields(Source)]
T = TypeVar("T")


class NotOurs(Exception):
    """Hearth says that this attempt is no longer this worker's: whatever it does is for nobody."""


class Away(Exception):
    """Hearth gave no usable answer for as long as it may be away."""


class Hearth:
    """One attempt's line to Hearth."""

    def __init__(self, url: str, token: str, session: aiohttp.ClientSession, retry_s: float) -> None:
        self._base = f"{url.rstrip('/')}/hooks/worker/{token}"
        self._session = session
        self._retry_s = retry_s

    async def started(self) -> None:
        """ComfyUI begins now; NotOurs: do not run it."""
        await self._call("started", {})

    async def uploads(self, files: Sequence[Upload]) -> list[Slot]:
        """A slot for each file, in the same order."""
        slots: list[Slot] = []
        for some in _batches(files):
            listed = [dataclasses.asdict(file) for file in some]
            answer = await self._call("uploads", {"files": listed, "parts": True})
            slots += _each(Slot, answer["uploads"], len(some))
        return slots

    async def stored(self, ids: Sequence[str]) -> list[Found]:
        """What S3 has of these slots' files, in the same order."""
        found: list[Found] = []
        for some in _batches(ids):
            answer = await self._call("stored", {"ids": some})
            found += _each(Found, answer["stored"], len(some))
        return found

    async def parts(self, id: str, numbers: Sequence[int]) -> list[Part] | Found:
        """Where to put these parts of a slot's file; a Found, if S3 did not let Hearth begin the upload."""
        answer = await self._call("parts", {"id": id, "numbers": list(numbers)})
        if fault := answer.get("fault"):
            return _each(Found, [fault], 1)[0]
        return _each(Part, answer["parts"], len(numbers))

    async def complete(self, id: str, etags: Mapping[int, str]) -> Found:
        """All parts are in S3: make them one file."""
        parts = [{"number": number, "etag": etags[number]} for number in sorted(etags)]
        answer = await self._call("complete", {"id": id, "parts": parts}, call_s=COMPLETE_S)
        return _each(Found, [answer["found"]], 1)[0]

    async def previews(self, sizes: Mapping[str, int]) -> list[Slot]:
        """Where to put small pictures of so many bytes beside these slots' files, that may have one. Tried once."""
        if not sizes:
            return []
        files = [{"id": id, "bytes": size} for id, size in sizes.items()]
        answer = (await self._call("small", {"files": files}, within_s=0))["small"]
        return _each(Slot, answer, len(answer))

    async def outputs(self, assets: Sequence[Asset]) -> None:
        """These are stored, and may be shown though the job still runs. Tried once."""
        await self._call("outputs", {"assets": [dataclasses.asdict(asset) for asset in assets]}, within_s=0)

    async def preview(self, node: str, content_type: str, data: str) -> None:
        """The newest picture of a node that runs, in base64. Tried once."""
        await self._call("preview", {"node": node, "content_type": content_type, "data": data}, within_s=0)

    async def hand_back(self, reason: str, code: str, within_s: float | None = None) -> None:
        """Another worker shall have the job. It may take twice within_s."""
        body = {"reason": reason, "code": code}
        await self._call("hand-back", body, within_s, call_s=CALL_S if within_s is None else within_s)

    async def alive(self) -> None:
        """This worker still runs it, though it no longer polls; NotOurs: it shall stop."""
        await self._call("alive", {}, within_s=0)

    async def _call(
        self, verb: str, body: dict[str, Any], within_s: float | None = None, call_s: float = CALL_S
    ) -> dict[str, Any]:
        """Tried again while Hearth is away, for within_s, usually retry_s; an answer may take call_s."""
        retry_s = self._retry_s if within_s is None else within_s
        deadline = time.monotonic() + retry_s
        pause = 0.2
        while True:
            status, answer, why = await self._once(verb, body, call_s)
            if status == 200:
                return answer
            if status in (404, 409):
                raise NotOurs(f"{verb}: {why}")
            if status is not None and status < 500 and status not in (408, 429):
                raise Away(f"{verb}: {why}")  # a defect; what the job made must not be dropped for it
            if time.monotonic() + pause > deadline:
                raise Away(f"{verb}: {why}, for {retry_s:g} s")
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def _once(self, verb: str, body: dict[str, Any], call_s: float) -> tuple[int | None, dict[str, Any], str]:
        """(status or None, the JSON of a 200, what happened); no exception's text, which could hold the URL."""
        try:
            async with asyncio.timeout(call_s), self._session.post(f"{self._base}/{verb}", json=body) as response:
                text = await response.text()
                if response.status == 200:
                    return 200, json.loads(text or "{}"), "HTTP 200"
                return response.status, {}, f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return None, {}, f"Hearth is not reachable ({type(error).__name__})"


BATCH = 500  # files in one call, of which Hearth takes some thousands


def _batches(items: Sequence[T]) -> list[list[T]]:
    return [list(items[at : at + BATCH]) for at in range(0, len(items), BATCH)]


def _each(shape: type[T], answered: list[dict[str, Any]], number: int) -> list[T]:
    """The dataclasses of an answer; fields of a newer Hearth are left out."""
    if len(answered) != number:
        raise Away(f"Hearth answered for {len(answered)} of {number} files")
    names = {field.name for field in dataclasses.fields(shape)}  # type: ignore[arg-type]
    return [shape(**{name: value for name, value in one.items() if name in names}) for one in answered]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WayBack:
    """The job's `_hearth`: where to call, by what right, where its input's files are, by their text in it, and the most
    bytes that a result may have."""

    url: str
    token: str = dataclasses.field(repr=False)
    sources: dict[str, Source] = dataclasses.field(default_factory=dict, repr=False)
    answer_bytes: int | None = None


def take_field(job: dict[str, Any]) -> WayBack | None:
    """Cut it out of the job itself, so that nothing later can log it or send it to ComfyUI."""
    given = job.get("input")
    field = given.pop(HEARTH_FIELD, None) if isinstance(given, dict) else None
    if isinstance(field, dict) and isinstance(field.get("url"), str) and isinstance(field.get("token"), str):
        told = {
            ref: Source(**{name: about[name] for name in SOURCE_FIELDS if name in about})
            for ref, about in (field.get("inputs") or {}).items()
        }
        most = field.get("answer_bytes")
        return WayBack(
            url=field["url"],
            token=field["token"],
            sources=told,
            answer_bytes=most if isinstance(most, int) and most > 0 else None,
        )
    return None
