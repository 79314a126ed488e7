"""A process that is killed at a point of its work: `python -m tests.jobs.killed MODULE.NAME TIMES CALL`.

CALL (module:function) runs with batches of one; the TIMES-th time that it comes to MODULE.NAME, with something in hand,
it is killed instead.
"""

import os
import signal
import subprocess
import sys
from importlib import import_module
from typing import Any


def at(where: str, times: int, call: str) -> None:
    """Runs it, in a process of its own, to its death."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.killed", where, str(times), call], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def main(where: str, times: str, call: str) -> None:
    import django

    django.setup()
    from datetime import timedelta

    from jobs import deletion, retention
    from storage import assets

    retention.BATCH = deletion.BATCH = 1
    assets.SLACK = -timedelta(days=1)
    module_name, _, name = where.rpartition(".")
    module, left = import_module(module_name), int(times)
    real = getattr(module, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= bool(args and args[0])
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(module, name, deadly)
    module_name, _, name = call.partition(":")
    getattr(import_module(module_name), name)()


if __name__ == "__main__":
    main(*sys.argv[1:])
