"""A short `make chaos`: web, PostgreSQL, ComfyUI, the deliverer and a worker are killed, another worker is ended."""

import subprocess
import sys
from collections import Counter

from hearth.local.instance import ROOT
from tests.chaos.plan import Size, make

SEED, SIZE = 770, Size(jobs=60, tenants=4, workers=2, seconds=18)
FALLEN = {"kill web": 2, "kill postgres": 1, "kill comfyui": 1, "kill deliverer": 1}
FALLEN |= {"term worker": 1, "kill group worker": 1}


def test_the_short_runs_seed_has_the_faults_that_matter_most() -> None:
    faults = make(SEED, SIZE).faults
    assert Counter(f"{fault.how} {fault.part.split('-')[0]}" for fault in faults) == FALLEN


def test_every_accepted_job_ends_once_while_parts_are_killed() -> None:
    size = [f"--{name}={value}" for name, value in vars(SIZE).items()]
    argv = [sys.executable, "-m", "tests.chaos", "--with-parent", f"--seed={SEED}", *size]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
