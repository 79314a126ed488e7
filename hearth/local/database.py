"""A database for manage.py without DATABASE_URL: a running instance's, or the embedded one, started for one command."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hearth.local import postgres
from hearth.local.home import Home, LocalError, Lock
from hearth.local.process import Child, stop

NEEDS_NONE = {"help", "version", "--help", "-h", "--version"}


@contextmanager
def reachable_database() -> Iterator[None]:
    """While it is open, Hearth's database answers at the settings' DATABASE_URL."""
    if not sys.argv[1:] or sys.argv[1] in NEEDS_NONE:
        yield
        return
    try:
        home = Home.from_environment()
        lock = _ours_unless_running(home)
        server = _started(home) if lock else None
    except LocalError as error:
        sys.exit(f"hearth: {error}")
    try:
        yield
    finally:
        if lock and server:
            stop([server])
            home.clear_sockets()
            lock.release()


def _ours_unless_running(home: Home) -> Lock | None:
    """The home's lock, or None when its instance is up and its database answers. Waits for another manage.py."""
    lock = Lock(home)
    told = False
    until = time.monotonic() + postgres.START_S
    while not lock.take(f"manage.py {sys.argv[1]}"):
        pid, what = lock.holder()
        if what == "up" and postgres.answers(home):
            lock.release()
            return None
        if what == "up" and time.monotonic() > until:
            raise LocalError(f"The instance in {home.path} (pid {pid}) is up, but its PostgreSQL does not answer.")
        if what.startswith("manage.py") and not told:
            told = True
            print(f"hearth: waiting for `{what}` (pid {pid}), which has started the database", file=sys.stderr)
        time.sleep(0.05)
    return lock


def _started(home: Home) -> Child:
    def say(line: str) -> None:
        print(f"hearth: {line}", file=sys.stderr)

    server = Child(postgres.part(home, say), home.folder("logs") / "postgres.log")
    until = time.monotonic() + postgres.START_S
    while not server.is_ready():
        if server.ended() is not None or time.monotonic() > until:
            stop([server])
            raise LocalError(f"PostgreSQL did not start. The end of {server.log}:\n{server.last_lines()}")
        time.sleep(0.02)
    return server
