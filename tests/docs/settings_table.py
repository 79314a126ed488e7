"""docs/settings.md's table, made of the code: `python -m tests.docs.settings_table` writes it anew.

Of the page only the words are written by hand, and defaults that the code has no constant for.
"""

import ast
import re
import sys
from collections.abc import Iterator

from hearth.local.instance import ROOT

PAGE = ROOT / "docs" / "settings.md"
ROW = re.compile(r"^\| `(\w+)` \| (.*?) ?\| (.*?) ?\|$", re.M)
TABLE = re.compile(r"(?<=^\|---\|---\|---\|\n)(?:\|.*\n)+", re.M)
READS, NAME = re.compile(r"secret|env\.\w+"), re.compile(r"'[A-Z][A-Z0-9_]+'")
NO_WORDS = "?"


def read() -> Iterator[tuple[str, object]]:
    """Each environment variable that the control plane reads, in the code's order, with its default; None: the code has
    no constant, or an empty one. HEARTH_HOME is read before all others."""
    yield "HEARTH_HOME", None
    for module in ("settings", "sign_in"):
        calls = (node for node in ast.walk(ast.parse((ROOT / "hearth" / f"{module}.py").read_text())))
        for call in sorted((node for node in calls if isinstance(node, ast.Call)), key=lambda call: call.lineno):
            if READS.fullmatch(ast.unparse(call.func)) and NAME.fullmatch(name := ast.unparse(call.args[0])):
                given = next((word.value for word in call.keywords if word.arg == "default"), None)
                yield name.strip("'"), constant(given)


def constant(given: ast.expr | None) -> object:
    """What stands there, sums and powers of numbers too."""
    if given is None or any(isinstance(node, ast.Name | ast.Call | ast.JoinedStr) for node in ast.walk(given)):
        return None
    found = eval(ast.unparse(given), {"__builtins__": {}})
    return None if found in ("", [], {}) else found


def shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def made(page: str) -> str:
    """The page with its table as it must be."""
    written = {name: (default, words) for name, default, words in ROW.findall(page)}
    rows = {}
    for name, default in read():
        by_hand, words = written.get(name, ("", NO_WORDS))
        text = by_hand if default is None else shown(default)
        if name not in rows or default is not None:
            rows[name] = f"| `{name}` | {text} | {words} |".replace("|  |", "| |")
    return TABLE.sub(lambda _: "\n".join(rows.values()) + "\n", page)


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
    if f"| {NO_WORDS} |" in PAGE.read_text():
        sys.exit(f"{PAGE}: say in words what the settings with {NO_WORDS!r} are")
