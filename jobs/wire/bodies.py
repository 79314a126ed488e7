"""Request bodies: read within limits, parsed strictly, and kept as the very bytes that came (rules.md 9, 26)."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from starlette.requests import ClientDisconnect, Request

from accounts.errors import Refused, bad_request

DRAIN_MAX_BYTES, DRAIN_MAX_S = 64 * 1024**2, 30
MAX_DEPTH = 500  # Python 3.11 reads just under 1,000 levels
ORJSON_DEPTH = 1024  # what orjson reads, and not one more


class Unreadable(ValueError):
    """Bytes that are no JSON object; the message says why."""


@dataclass(frozen=True)
class Part:
    """A value of a JSON object: parsed, and as the bytes that stood there."""

    value: Any
    raw: bytes


@dataclass(frozen=True)
class Parts:
    """A JSON object's values. `mended`: NaN or Infinity stood in it and was made null, also in `raw`."""

    values: dict[str, Part]
    mended: bool = False

    def value(self, name: str, otherwise: Any = None) -> Any:
        part = self.values.get(name)
        return part.value if part else otherwise


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body; Refused(413) when it is larger, once the client had the chance to send it all."""
    chunks: list[bytes] = []
    await receive_body(request, max_bytes, chunks.append, chunks.clear)
    return b"".join(chunks)


async def receive_body(
    request: Request, max_bytes: int, keep: Callable[[bytes], object], drop: Callable[[], object]
) -> None:
    """`keep` the chunks of a body; a larger one is dropped, and Refused(413) once the client had the chance to send it.

    An answer before the end of the body reaches most clients as a connection reset.
    """
    size = 0
    try:
        async with asyncio.timeout(None) as limit:
            async for chunk in request.stream():
                size += len(chunk)
                if size <= max_bytes:
                    keep(chunk)
                elif limit.when() is None:
                    drop()
                    limit.reschedule(asyncio.get_running_loop().time() + DRAIN_MAX_S)
                if size > DRAIN_MAX_BYTES + max_bytes:
                    break
    except TimeoutError:
        pass  # it is too large whatever is still to come
    except ClientDisconnect as error:
        raise bad_request("The body ended early.") from error
    if size > max_bytes:
        raise Refused(413, "too_large", f"The body has {size} bytes or more; at most {max_bytes} are taken here.")


async def read_output(request: Request) -> tuple[bytes, str]:
    """A result's body, or why it cannot be taken: what is refused is lost."""
    try:
        return await read_body(request, settings.OUTPUT_MAX_BYTES), ""
    except Refused as error:
        if error.status != 413:
            raise
        return b"{}", f"it is larger than {settings.OUTPUT_MAX_BYTES} bytes"


async def drop_body(request: Request) -> None:
    """Let a client that is refused send its body, as above, unless it waits to be told to (`Expect: 100-continue`)."""
    if "expect" in request.headers:
        return
    with suppress(Refused):
        await read_body(request, 0)


def parse_request(body: bytes) -> Parts:
    """A client's JSON object: strict (no NaN, no broken UTF-8). Raises Refused(400)."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is not valid JSON: {error}.", "invalid_json") from error
    if not isinstance(whole, dict):
        raise bad_request(f"The body must be a JSON object, not {kind(whole)}.", "invalid_json")
    if _too_deep(body):
        raise bad_request(f"The body is nested more than {MAX_DEPTH} levels deep.", "invalid_json")
    try:
        return split_object(body)
    except Unreadable as error:
        raise bad_request(f"The body is not valid JSON: {error}.", "invalid_json") from error


def _too_deep(body: bytes) -> bool:
    """Whether valid JSON is nested deeper than every Python reads that may come across it: a worker's, ours."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    padding = ORJSON_DEPTH - MAX_DEPTH
    try:
        orjson.loads(b"[" * padding + body + b"]" * padding)
    except orjson.JSONDecodeError:
        return True
    return False


def json_object(fields: Mapping[str, bytes]) -> bytes:
    """A JSON object of values that are JSON already."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + raw for name, raw in fields.items()) + b"}"


_SPACE = re.compile(r"[ \t\n\r]*")


def split_object(body: bytes) -> Parts:
    """Split a JSON object into its values without changing a byte of them, except NaN and Infinity, made null.

    Raises Unreadable.
    """
    seen: list[str] = []
    decoder = json.JSONDecoder(parse_constant=seen.append)
    values: dict[str, Part] = {}
    mended = False
    try:
        text = body.decode()
        at = _expect(text, _skip(text, 0), "{")
        while text[at] != "}":
            if values:
                at = _expect(text, at, ",")
            name, at = decoder.raw_decode(text, at)
            if not isinstance(name, str):
                raise Unreadable(f"the name that ends at character {at} is no string")
            start = _skip(text, _expect(text, _skip(text, at), ":"))
            value, end = decoder.raw_decode(text, start)
            raw = text[start:end] if not seen else json.dumps(value)
            mended = mended or bool(seen)
            seen.clear()
            values[name] = Part(value, raw.encode())
            at = _skip(text, end)
        if _skip(text, at + 1) != len(text):
            raise Unreadable("something follows the object")
    except Unreadable:
        raise
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise Unreadable(str(error)) from error
    except IndexError as error:
        raise Unreadable("it ends early") from error
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    return Parts(values, mended)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, char: str) -> int:
    """The place after `char`, which must stand at `at`, and after the space that follows."""
    if text[at] != char:
        raise Unreadable(f"{char!r} expected at character {at}")
    return _skip(text, at + 1)


def kind(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value in a message, cut to a length that a person reads."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
