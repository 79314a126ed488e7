"""The parameters of a version as JSON Schema 2020-12: it takes what a job's `params` may be, and nothing else.

But for what a schema cannot know: that a file may also be the name of one that comes with the job, and whether a URL
leads to a public address.
"""

from collections.abc import Iterable
from typing import Any

from jobs.workflows.parameters import FILE_PATTERN, LONGEST_REFERENCE, Parameter, Type

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(parameters: Iterable[Parameter], title: str, description: str = "") -> dict[str, Any]:
    parameters = list(parameters)
    return {
        "$schema": DIALECT,
        "title": title,
        **({"description": description} if description else {}),
        "type": "object",
        "properties": {one.name: _property(one) | {"x-order": at} for at, one in enumerate(parameters)},
        "required": [one.name for one in parameters if one.required],
        "additionalProperties": False,
    }


def _property(one: Parameter) -> dict[str, Any]:
    """`x-…`: for who draws a form."""
    about = {"title": one.title or None, "description": one.description or None, "default": one.default}
    about |= {"x-step": one.step}
    told = {name: value for name, value in about.items() if value is not None}
    return told | _values(one) | {"x-type": one.type.value, "x-paths": list(one.paths)}


def _values(one: Parameter) -> dict[str, Any]:
    match one.type:
        case Type.STRING:
            return {"type": "string", "maxLength": one.longest}
        case Type.BOOLEAN:
            return {"type": "boolean"}
        case Type.CHOICE:
            return {"enum": list(one.choices)}
        case Type.FILE:
            return {"type": "string", "maxLength": LONGEST_REFERENCE, "pattern": FILE_PATTERN}
    least, most = one.bounds
    bounds = {"minimum": least, "maximum": most, "multipleOf": one.multiple}
    kind = {"type": "number" if one.type == Type.NUMBER else "integer"}
    random = {"x-random": True} if one.type == Type.SEED and not one.required else {}
    return kind | {name: value for name, value in bounds.items() if value is not None} | random
