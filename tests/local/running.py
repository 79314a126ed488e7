"""An instance as a person runs it: `python -m hearth.local up`, watched through its console."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hearth.local.home import Home
from hearth.local.instance import ROOT
from hearth.local.process import leftovers
from hearth.local.seaweed import free_ports

OURS = ("HEARTH_", "DATABASE_", "DJANGO_", "PYTEST_")


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a newcomer's shell has, and HEARTH_HOME."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**bare, "HEARTH_HOME": str(home), "HEARTH_TEST_FSYNC": "off", **more}


def hearth(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """`python -m hearth.local …` to its end."""
    argv = [sys.executable, "-m", "hearth.local", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment(home, **more), capture_output=True, text=True, timeout=100)


def manage(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "manage.py", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=environment(home, **more), capture_output=True, text=True, timeout=100)


def eventually(true: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def new_home() -> Path:
    """A folder outside pytest's, to which another run of pytest takes away the server's way."""
    return Path(tempfile.mkdtemp(prefix="hearth-t-"))


def is_gone(process: psutil.Process) -> bool:
    """A zombie is gone too: only nobody has asked yet how it ended."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


class Running:
    """One `up`, healthy once this is made."""

    options: tuple[str, ...] = ()

    def __init__(self, home: Path, **more: str) -> None:
        self.home = Home(home)
        self.port = int(more.setdefault("PORT", str(free_ports(1)[0])))
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "hearth.local", "up", *self.options]
        env = environment(home, **more)
        self._process = subprocess.Popen(
            argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.pid = self._process.pid
        self.console = ""
        self._ready: queue.Queue[bool] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.get(timeout=90), self.console

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.console += line
            if line.startswith("READY "):
                self._ready.put(True)
        self._ready.put(False)

    def run_json(self) -> dict[str, Any]:
        return self.home.run()

    def pid_of(self, name: str) -> int:
        return int(self.run_json()["parts"][name]["pid"])

    def part(self, name: str) -> psutil.Process:
        return psutil.Process(self.pid_of(name))

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all that it has started, PostgreSQL's processes too."""
        supervisor = psutil.Process(self.pid)
        return [supervisor, *supervisor.children(recursive=True), *leftovers(self.home.path)]

    def health(self) -> dict[str, Any]:
        return get(f"{self.url}/healthz")

    def manage(self, *arguments: str) -> dict[str, Any]:
        """The JSON object in the last line of a manage.py command."""
        done = manage(self.home.path, *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def signal(self, number: signal.Signals) -> int:
        """Its exit code after that signal."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(timeout=60)
        self._reader.join(timeout=10)
        return code
