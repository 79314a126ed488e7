"""compose.yaml's services, with the variables that .env would give."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from hearth.local.instance import ROOT

VARIABLE = re.compile(r"\$\{(\w+)(?::-(.*?)|:\?.*?)?\}")


def services(given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By name; KeyError for a variable that has no default and is not given."""
    text = VARIABLE.sub(lambda found: given[found[1]] if found[1] in given else _default(found), _text())
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def required() -> set[str]:
    """The variables without a default."""
    return {found[1] for found in VARIABLE.finditer(_text()) if found[2] is None}


def _text() -> str:
    return (ROOT / "compose.yaml").read_text()


def _default(found: re.Match[str]) -> str:
    if found[2] is None:
        raise KeyError(found[1])
    return found[2]
