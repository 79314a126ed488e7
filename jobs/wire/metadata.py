"""A job's metadata: what a client says of it for itself, flat and bounded, and how it is asked for."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from accounts.errors import Refused, bad_request
from jobs.wire.bodies import kind, shown

MOST, CHARS, BYTES = 20, 500, 8 * 1024  # entries; of one value; of all names and values as UTF-8
NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}", re.ASCII)
FILTER = "metadata."  # begins the query parameters that ask for it


def parse_metadata(given: Any) -> dict[str, Any]:
    """The entries of a request's `metadata`. Raises Refused(400)."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _wrong(f"`metadata` must be an object, not {kind(given)}.")
    if len(given) > MOST:
        raise _wrong(f"`metadata` has {len(given)} entries; at most {MOST} are kept.")
    for name, value in given.items():
        _check_name(name)
        if fault := _type_fault(value) or _text_fault(written(value)):
            raise _wrong(f"`metadata.{name}` {fault}.")
    if (size := sum(len(name) + len(written(value).encode()) for name, value in given.items())) > BYTES:
        raise _wrong(f"`metadata` has {size} bytes of names and values; at most {BYTES} are kept.")
    return given


def asked_for(parameters: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The (name, value)s that a query asks for by `metadata.<name>=<value>`. Raises Refused(400)."""
    asked = [(name.removeprefix(FILTER), value) for name, value in parameters if name.startswith(FILTER)]
    if len(asked) > MOST:
        raise _wrong(f"Jobs are found by at most {MOST} entries of their metadata at a time, not {len(asked)}.")
    for name, value in asked:
        _check_name(name)
        if fault := _text_fault(value):
            raise _wrong(f"`{FILTER}{name}` {fault}.")
    return asked


def written(value: Any) -> str:
    """As it is kept and asked for: text as it is, anything else as JSON, a whole number without a fraction."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the statement that makes a job: None if there is nothing to keep."""
    return {
        "metadata_names": list(metadata) or None,
        "metadata_values": [written(value) for value in metadata.values()] or None,
        "metadata_texts": [isinstance(value, str) for value in metadata.values()] or None,
    }


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise _wrong(f"`metadata`: the name {shown(name)} must be 1 to 40 of A–Z, a–z, 0–9, `_`, `.` and `-`.")


def _type_fault(value: Any) -> str:
    """Infinity and NaN are no JSON, and refused before. A longer whole number is not written by every JSON writer."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "is a whole number of more than 64 bits; send it as text"
    return "" if isinstance(value, str | int | float) else f"must be text, a number, true or false, not {kind(value)}"


def _text_fault(text: str) -> str:
    if len(text) > CHARS:
        return f"has {len(text)} characters; at most {CHARS} are kept"
    return "has a NUL character, which cannot be kept" if "\0" in text else ""


def _wrong(error: str) -> Refused:
    return bad_request(error, "invalid_metadata")
