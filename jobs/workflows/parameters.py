"""The typed parameters of a stored workflow: what one is, and which values it takes.

As the API and the database have it, a parameter is an object of the fields of Parameter, those without a value left
out. What its JSON Schema says (schema.py) and what it takes are the same; a test holds them together.
"""

import random
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from django.conf import settings

from jobs.graph.faults import quoted
from jobs.workflows.faults import Unfit
from worker.wire import UrlRefused, check_url

Value = str | int | float | bool


class Type(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    FILE = "file"
    SEED = "seed"  # an integer that is random when it is left out


NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
WHOLE = (-(2**63), 2**64 - 1)  # what ComfyUI's numbers and every writer of JSON here take
LARGEST = sys.float_info.max
EXACT = 2**53 - 1  # up to here JavaScript reads whole numbers exactly, so no seed drawn is larger
LONGEST_TEXT, LONGEST_REFERENCE = 100_000, 2048
FEW_CHOICES = 20
# What inputs take for a file (worker.wire.REFERENCE), in the words of ECMA 262; `$` alone lets a newline follow.
FILE_PATTERN = (
    r"^(asset:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|s3://[^/\s]+/\S([^\r\n]*\S)?|https?://[^\s]+)$(?![\s\S])"
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """paths: the inputs in the graph that it sets, as `6.inputs.text`. default: None if there is none; left out it is
    then drawn (seed), or stays as it is in the graph (file), or it is required. step: for who draws a form, not
    checked."""

    name: str
    type: Type
    paths: tuple[str, ...]
    title: str = ""
    description: str = ""
    required: bool = False
    default: Value | None = None
    min: int | float | None = None
    max: int | float | None = None
    step: int | float | None = None
    multiple: int | None = None
    max_length: int | None = None
    choices: tuple[str | int | float, ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        empty = {"title": "", "description": "", "choices": ()}
        kept = {name: value for name, value in found.items() if value is not None and value != empty.get(name)}
        lists = {name: list(value) for name, value in kept.items() if isinstance(value, tuple)}
        return kept | lists | {"type": self.type.value}

    @classmethod
    def read(cls, told: dict[str, Any]) -> "Parameter":
        """What `told` wrote."""
        listed = {name: tuple(told.get(name, ())) for name in ("paths", "choices")}
        return cls(**told | listed | {"type": Type(told["type"])})

    @property
    def bounds(self) -> tuple[int | float | None, int | float | None]:
        """The least and the largest number that it takes."""
        if self.type not in (Type.INTEGER, Type.SEED):
            return self.min, self.max
        least = 0 if self.type == Type.SEED else WHOLE[0]
        return least if self.min is None else self.min, WHOLE[1] if self.max is None else self.max

    @property
    def longest(self) -> int:
        return LONGEST_TEXT if self.max_length is None else self.max_length

    @property
    def allowed(self) -> str:
        """What it takes, as it follows "must be"."""
        match self.type:
            case Type.STRING:
                return f"text of at most {self.longest} characters"
            case Type.BOOLEAN:
                return "true or false"
            case Type.CHOICE:
                few = quoted(self.choices[:FEW_CHOICES])
                return f"one of {few}" + (
                    f", … ({len(self.choices)} in all)" if len(self.choices) > FEW_CHOICES else ""
                )
            case Type.FILE:
                return "a file: asset:<id>, an https URL, s3://<S3 bucket>/<key>, or the name of one in `input.files`"
        kind = "a number" if self.type == Type.NUMBER else "a whole number"
        least, most = self.bounds if self.type == Type.NUMBER else (self.min, self.max)
        many = f", a multiple of {self.multiple}" if self.multiple else ""
        if least is None and most is None:
            return kind + many
        if most is None:
            return f"{kind} of at least {least}{many}"
        return f"{kind} of at most {most}{many}" if least is None else f"{kind}, {least} to {most}{many}"

    def taken(self, value: Any, brought: Collection[str] = ()) -> Value:
        """The value as the graph is given it. `brought`: the names of the job's own files. Raises Unfit."""
        match self.type:
            case Type.STRING if isinstance(value, str) and len(value) <= self.longest:
                return value
            case Type.BOOLEAN if isinstance(value, bool):
                return value
            case Type.CHOICE if (isinstance(value, str) or is_number(value)) and value in self.choices:
                return self.choices[self.choices.index(value)]
            case Type.FILE if isinstance(value, str):
                return self._file(value, brought)
            case Type.INTEGER | Type.SEED | Type.NUMBER:
                return self._number(value)
        among = self.choices if self.type == Type.CHOICE else ()
        raise self._unfit(
            "not_a_choice" if among else "wrong_type", value, value if isinstance(value, str) else "", among
        )

    def _unfit(self, type: str, value: Any, word: str = "", among: Collection[Any] = ()) -> Unfit:
        if self.type == Type.STRING and isinstance(value, str):
            return Unfit("too_long", f"must be {self.allowed}; it has {len(value)}")
        return Unfit(type, f"must be {self.allowed}, not {quoted([value])}", value, word, among)

    def _number(self, value: Any) -> int | float:
        least, most = self.bounds
        if not is_number(value) or (self.type != Type.NUMBER and value != int(value)):
            raise self._unfit("wrong_type", value)
        value = value if self.type == Type.NUMBER else int(value)
        if (least is not None and value < least) or (most is not None and value > most):
            raise self._unfit("too_small" if least is not None and value < least else "too_large", value)
        if self.multiple and value % self.multiple:
            raise self._unfit("not_a_multiple", value)
        return value if isinstance(value, float) or WHOLE[0] <= value <= WHOLE[1] else float(value)

    def _file(self, value: str, brought: Collection[str]) -> str:
        if value in brought:
            return value
        if len(value) > LONGEST_REFERENCE or not re.search(FILE_PATTERN, value):
            raise self._unfit("not_a_file", value, value, brought)
        if value.startswith("http"):
            try:
                check_url(value, settings.URL_ALLOW)
            except UrlRefused as error:
                raise Unfit("refused_url", f"cannot be {quoted([value])}: {error}", value) from error
        return value

    def drawn(self) -> int:
        """A seed for a job that names none."""
        least, most = self.bounds
        assert least is not None
        assert most is not None
        return random.randint(int(least), int(most if most <= EXACT or least > EXACT else EXACT))


def is_number(value: Any) -> bool:
    """One that a float can be, and neither true nor false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -LARGEST <= value <= LARGEST
