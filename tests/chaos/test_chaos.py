"""A short `make chaos`: a worker by kill -9, the deliverer, tasks and PostgreSQL are killed or ended."""

import subprocess
import sys
from collections import Counter

from hearth.local.instance import ROOT
from tests.chaos.plan import Size, make

SEED, SIZE = 182, Size(jobs=60, tenants=4, workers=2, seconds=18)
FALLEN = {"term deliverer": 1, "kill group worker": 1, "kill tasks": 1, "kill backend postgres": 1, "kill postgres": 1}


def test_the_short_runs_seed_has_the_faults_that_matter_most() -> None:
    faults = make(SEED, SIZE).faults
    assert Counter(f"{fault.how} {fault.part.split('-')[0]}" for fault in faults) == FALLEN


def test_every_accepted_job_ends_once_while_parts_are_killed() -> None:
    size = [f"--{name}={value}" for name, value in vars(SIZE).items()]
    argv = [sys.executable, "-m", "tests.chaos", "--with-parent", f"--seed={SEED}", *size]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
