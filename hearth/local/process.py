"""A part of an instance as a child process: how it starts, how it is known to have ended, and how it is ended."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

MARK = "HEARTH_PART_OF"  # in the environment of every part and of what it starts: the home that it belongs to
LOG_MAX_BYTES = 10 * 1024**2
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What to run and how to end it: `stop`, then after `grace_s` seconds `kill`. The kernel sends it `orphaned` when
    its supervisor dies. `ready` is one quick look, given its pid."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    port: int | None = None
    cwd: Path | None = None
    user: str | None = None
    fds: tuple[int, ...] = ()
    stop: signal.Signals = signal.SIGTERM
    grace_s: float = 5.0
    kill: signal.Signals = signal.SIGKILL
    orphaned: signal.Signals = signal.SIGTERM
    ready: Callable[[int], bool] = field(default=lambda pid: True)


def die_with_parent(sig: signal.Signals, parent: int) -> None:
    """Asks the kernel for sig to this process when the thread that started it ends. Linux only."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)  # it died before we asked


def as_user(name: str | None) -> dict[str, Any]:
    """subprocess's arguments that run a child as that system user."""
    if name is None:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Child:
    """One running process of a part, in a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self, part: Part, log: Path, stdout: IO[bytes] | None = None) -> None:
        self.part = part
        self.log = log
        self.killed = False
        _rotate(log)
        here = os.getpid()
        with log.open("ab") as out:
            self.log_start = out.tell()
            self._process = subprocess.Popen(
                part.argv,
                env=part.env,
                cwd=part.cwd,
                stdin=subprocess.DEVNULL,
                stdout=stdout or out,
                stderr=out,
                start_new_session=True,
                pass_fds=part.fds,
                **as_user(part.user),
                preexec_fn=lambda: die_with_parent(part.orphaned, here),
            )
        self.pid = self._process.pid
        self.started = time.time()

    def ended(self) -> int | None:
        """Its exit code if it has ended. What is left of its session ends with it."""
        code = self._process.poll()
        if code is not None:
            self._signal_session(signal.SIGKILL)
        return code

    def is_ready(self) -> bool:
        return self.ended() is None and self.part.ready(self.pid)

    def stop(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, self.part.stop)

    def kill(self) -> None:
        """At once, with all that it has started."""
        if not self.killed:
            self.killed = True
            self._signal_session(self.part.kill)

    def _signal_session(self, sig: signal.Signals) -> None:
        try:
            os.killpg(self.pid, sig)
        except (ProcessLookupError, PermissionError):
            pass

    def last_lines(self, count: int = 10) -> str:
        """The end of what it has written to its log."""
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self.log_start, size - 4000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_suffix(".log.1"))


def stop(children: Iterable[Child], hurry: Callable[[], bool] = lambda: False) -> None:
    """Ends all of them at the same time and waits. Kills those whose grace is over, or all as soon as `hurry()`."""
    left = list(children)
    begun = time.monotonic()
    for child in left:
        child.stop()
    while left := [child for child in left if child.ended() is None]:
        for child in left:
            if hurry() or time.monotonic() - begun > child.part.grace_s:
                child.kill()
        time.sleep(0.02)


def leftovers(home: Path) -> list[psutil.Process]:
    """Every process of this home's parts that is alive: they carry MARK, and so do their children."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            pass  # another user's, or gone
    return found


def end_leftovers(home: Path, grace_s: float = 3.0) -> int:
    """Ends what a killed supervisor left behind, and says how many there were."""
    found = leftovers(home)
    end(found, signal.SIGTERM, grace_s)
    for _ in range(5):  # the killed may have started others since we looked
        end(leftovers(home), signal.SIGKILL, grace_s)
    return len(found)


def end(processes: list[psutil.Process], sig: signal.Signals, grace_s: float) -> list[psutil.Process]:
    """Sends sig to all of them. Those that are still alive after grace_s."""
    for process in processes:
        try:
            process.send_signal(sig)
        except psutil.NoSuchProcess:
            pass
    until = time.monotonic() + grace_s
    while (alive := [process for process in processes if _is_alive(process)]) and time.monotonic() < until:
        time.sleep(0.02)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    """Not when it is a zombie: in a container there may be nobody to reap it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
