"""Start and stop the stand-in as its users do: as a process."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Standin:
    process: subprocess.Popen[str]
    url: str
    folder: Path


@contextlib.contextmanager
def running_standin(folder: Path, *options: str) -> Iterator[Standin]:
    """A stand-in on a free port; its stderr goes to folder/stderr.txt. Stopped at the end, however that comes."""
    command = [sys.executable, "-m", "worker.standin", "--port", "0", "--dir", str(folder), *options]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stderr.txt").open("a") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        ready = process.stdout.readline().split()
        assert ready[:1] == ["READY"], (folder / "stderr.txt").read_text()
        yield Standin(process, ready[1], folder)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
