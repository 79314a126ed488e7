"""`python -m hearth.local up | demo`: what `make up` and `make demo` run. `--with-parent`: stop when make dies."""

import os
import signal
import socket
import sys
import time

from hearth.local.home import Home, LocalError, Lock
from hearth.local.process import die_with_parent, end_leftovers

BACKLOG = 2048
WAIT_S = 60.0


class PortInUse(LocalError):
    exit_code = 2


def main() -> int:
    if "--with-parent" in sys.argv:
        die_with_parent(signal.SIGTERM, os.getppid())
    try:
        if sys.argv[1:2] == ["up"]:
            up()
        elif sys.argv[1:2] == ["demo"]:
            from hearth.local.demo import demo

            signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it has started is stopped
            demo()
        else:
            raise LocalError("Usage: python -m hearth.local up | demo")
    except LocalError as error:
        print(f"hearth: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def up() -> None:
    os.umask(0o077)  # customers' files and keys
    home = Home.from_environment()
    check_settings()
    from hearth import settings
    from hearth.local.supervisor import Supervisor

    lock = take_lock(home)
    if ended := end_leftovers(home.path):
        print(f"Ended what a killed instance had left in {home.path}; processes: {ended}", flush=True)
    Supervisor(home, lock, listen(settings.HOST, settings.PORT)).run()


def check_settings() -> None:
    """LocalError where a setting is missing or wrong."""
    from django.core.exceptions import ImproperlyConfigured

    try:
        import hearth.settings  # noqa: F401
    except (ImproperlyConfigured, ValueError) as error:
        raise LocalError(str(error)) from error


def take_lock(home: Home) -> Lock:
    """The lock of a home that runs no instance. Waits for a manage.py command and for an instance that stops."""
    lock = Lock(home)
    told = False
    until = time.monotonic() + WAIT_S
    while not lock.take("up"):
        pid, what = lock.holder()
        if what == "up" or time.monotonic() > until:
            raise LocalError(
                f"An instance runs in {home.path} already: pid {pid} ({what}), {home.run().get('base_url')}. "
                "Stop it first, or set HEARTH_HOME and PORT for another one."
            )
        if what and not told:
            told = True
            print(f"Waiting for pid {pid} ({what}) to leave {home.path}", flush=True)
        time.sleep(0.1)
    return lock


def listen(host: str, port: int) -> socket.socket:
    """The socket that outlives every web process."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise PortInUse(
            f"Cannot listen on port {port} of {host}: {error.strerror}. "
            f"Stop what uses it, or choose another: PORT={port + 1} make up"
        ) from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
