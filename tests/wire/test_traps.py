"""tests/golden/runpod/TRAPS.md names, for every trap of RunPod's protocol, a test that is there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
NAMED = re.findall(r"\| (\S+\.py)::(\w+) \|$", (TESTS / "golden" / "runpod" / "TRAPS.md").read_text(), re.M)


def test_every_trap_is_held_by_a_test_that_is_there() -> None:
    assert len(NAMED) > 60
    for file, name in NAMED:
        functions = [
            node.name for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions, f"{file}::{name}"
