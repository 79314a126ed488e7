"""All that the OpenAPI document tells of, held to it by requests that Schemathesis makes (fuzz.py).

FUZZ_EXAMPLES=500 makes it as long as one likes.
"""

import os
import subprocess
import sys
from typing import Any

import pytest

from hearth.local.instance import ROOT

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))


@pytest.mark.timeout(120 + 10 * EXAMPLES)
def test_each_answer_is_one_that_the_document_tells(web: Any) -> None:
    before = len(web.log)
    argv = [sys.executable, "-m", "tests.walk.fuzz", web.url, "--examples", str(EXAMPLES)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert "0 operations failed" in done.stdout
    assert " ERROR " not in web.log[before:]
