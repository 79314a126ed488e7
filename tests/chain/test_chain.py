"""A short `make chain`: both Hearths are killed, and a part of each."""

import subprocess
import sys

from hearth.local.instance import ROOT

SHORT = ["--seed=14", "--jobs=40", "--seconds=8", "--kills=1", "--parts=3", "--settle=120", "--hearth"]


def test_each_job_ends_once_while_both_sides_are_killed_and_the_way_between_them_is_faulty() -> None:
    argv = [sys.executable, "-m", "tests.chain", *SHORT]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
