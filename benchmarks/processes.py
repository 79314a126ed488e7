"""What is measured: an instance as `make up` starts it, in a home of its own, and other servers beside it."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil

from hearth.local.home import Home
from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, leftovers, stop
from hearth.local.seaweed import free_ports, is_free

READY_S = 120.0
NOT_OURS = ("HEARTH_", "DATABASE_", "DJANGO_", "RUNPOD_", "BUCKET_", "PYTEST_")


class Instance:
    """`make up` with one worker, fsync on unless it is only to be quick. Its folder is gone at the end."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self.home = Home(folder)
        self._settings = {"HEARTH_TEST_FSYNC": "off"} if quick else {}
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Seconds until it says READY."""
        more = {"HEARTH_HOME": str(self.home.path), "PORT": str(self.port), "HOST": "127.0.0.1", "WORKERS": "1"}
        part = Part(
            name="instance",
            argv=[sys.executable, "-m", "hearth.local", "up"],
            env={**environment(), **more, **self._settings},
            cwd=ROOT,
            grace_s=90.0,
        )
        begun = time.monotonic()
        self._up = Child(part, self.home.folder("logs") / "instance.log")
        wait(self._up, lambda: "\nREADY " in self._said())
        return time.monotonic() - begun

    def _said(self) -> str:
        return self._up.log.read_bytes()[self._up.log_start :].decode()

    def stop(self) -> None:
        stop([self._up])

    def restart_web(self) -> int:
        """The pid of a web process that has done nothing yet."""
        before = self.pids()["web"]
        os.kill(before, signal.SIGTERM)
        wait(self._up, lambda: self.pids()["web"] != before)
        with urlopen(f"{self.url}/healthz") as answer:  # it waits for the new one
            answer.read()
        return self.pids()["web"]

    def pids(self) -> dict[str, int]:
        """Of the supervisor and each of its parts."""
        parts = self.home.run()["parts"]
        return {"supervisor": self._up.pid, **{name: part["pid"] for name, part in parts.items()}}

    def processes(self) -> list[psutil.Process]:
        """All of them, PostgreSQL's too, which carry no mark."""
        supervisor = psutil.Process(self._up.pid)
        return list({*supervisor.children(recursive=True), *leftovers(self.home.path), supervisor})


@contextmanager
def running_instance(quick: bool) -> Iterator[Instance]:
    with tempfile.TemporaryDirectory(prefix="hearth-bench-", ignore_cleanup_errors=True) as folder:
        instance = Instance(Path(folder), quick)
        instance.home.folder("logs")
        try:
            yield instance
        finally:
            instance.stop()


def environment() -> dict[str, str]:
    """This process's without settings that were meant for another instance."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


@contextmanager
def server(home: Home, name: str, argv: list[str], env: Mapping[str, str], port: int) -> Iterator[Child]:
    """Another server, from when it listens on that port of 127.0.0.1 until it is ended."""
    part = Part(name=name, argv=[sys.executable, "-m", *argv], env=env, cwd=ROOT, port=port, grace_s=3.0)
    with running(part, home) as child:
        wait(child, lambda: not is_free(port))
        yield child


@contextmanager
def running(part: Part, home: Home) -> Iterator[Child]:
    child = Child(part, home.folder("logs") / f"{part.name}.log")
    try:
        yield child
    finally:
        stop([child])


def wait(child: Child, done: Callable[[], bool], seconds: float = READY_S) -> None:
    until = time.monotonic() + seconds
    while not done():
        if child.ended() is not None or time.monotonic() > until:
            raise RuntimeError(f"{child.part.name} is not ready. The end of its log:\n{child.last_lines(30)}")
        time.sleep(0.01)


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """CPU seconds that the process and what it started have used so far."""
    times = [process.cpu_times() for process in tree(pid)]
    return sum(time.user + time.system for time in times)


def pss_bytes(pid: int) -> int:
    """The process's memory, shared pages counted by their share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def apart(alone: int, others: Iterable[psutil.Process]) -> Iterator[None]:
    """While it is open, the process `alone`, with what it started, has the first core for itself; `others` and we
    share the second. With one core nothing is done."""
    if len(CORES) < 2:
        yield
        return
    served = {process.pid for process in tree(alone)}
    rest = {process.pid for process in others} - served | {os.getpid()}
    try:
        _pin(rest, {CORES[1]})
        _pin(served, {CORES[0]})
        yield
    finally:
        _pin(served | rest, set(CORES))


def _pin(pids: Iterable[int], cores: set[int]) -> None:
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cores)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
