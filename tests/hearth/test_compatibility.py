"""docs/compatibility.md: each row of its tables of promises and faults is backed by a test that exists."""

import ast
import re
from functools import cache

import pytest

from hearth.local.instance import ROOT

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """Of the tables that have a column of tests."""
    found: list[str] = []
    for section in (ROOT / "docs" / "compatibility.md").read_text().split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        found += lines[2:]
    return found


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_tables_are_read() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize("row", rows())
def test_each_row_names_a_test(row: str) -> None:
    named = TEST.findall(row)
    assert named, row
    assert [name for file, name in named if name not in names_in(file)] == []
