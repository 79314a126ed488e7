"""`python -m benchmarks [ROW …] [--rounds N] [--quick]`: prints a table and writes benchmarks/latest.json."""

import argparse
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.machine import described, versions
from benchmarks.measure import Row, table
from benchmarks.processes import Instance, environment, running_instance
from hearth.local.instance import ROOT

ROWS = {  # in this order: the first finds the instance at rest, the last stops it and starts it again
    "memory": "benchmarks.rest",
    "tasks": "benchmarks.rest",
    "run": "benchmarks.wire",
    "status": "benchmarks.wire",
    "claim": "benchmarks.claim",
    "handler": "benchmarks.worker",
    "runsync": "benchmarks.worker",
    "busy": "benchmarks.worker",
    "waiting": "benchmarks.waiting",
    "following": "benchmarks.waiting",
    "polling": "benchmarks.waiting",
    "up": "benchmarks.rest",
}
BROKE_OFF = "it broke off"


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended
    raise_file_limit()
    begun, rows = time.time(), dict[str, Row]()
    said: dict[str, Any] = {"machine": described(), "versions": versions(), "interrupted": False}
    try:
        with running_instance(options.quick) as instance:
            measure(instance, options, rows)
    except KeyboardInterrupt:
        said["interrupted"] = True
    said |= {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)), "seconds": round(time.time() - begun)}
    said |= {"rounds": options.rounds, "quick": options.quick, "rows": {name: row.json() for name, row in rows.items()}}
    options.out.write_text(json.dumps(said, indent=1))
    say(f"\n{table(rows)}\n\n{said['seconds']} s, on {said['machine']['cpu']}; raw rounds are in {options.out}")
    broke_off = any(row.left_out.startswith(BROKE_OFF) for row in rows.values())
    return 130 if said["interrupted"] else int(broke_off)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="each figure is the median of so many (default 5)")
    parser.add_argument("--quick", action="store_true", help="only shows that everything works")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "latest.json")
    given = parser.parse_args()
    if unknown := [name for name in given.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    return given


def raise_file_limit() -> None:
    """5,000 waiting clients are as many sockets, here and in web, which inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(instance: Instance, options: argparse.Namespace, rows: dict[str, Row]) -> None:
    """Each row as it comes. One that breaks off says why, and the others are measured all the same."""
    say(f"an instance in {instance.home.path} was ready after {instance.start():.1f} s")
    use_its_database(instance)
    bench = Bench(instance=instance, rounds=options.rounds, quick=options.quick)
    try:
        for module, names in groupby((name for name in ROWS if name in (options.rows or ROWS)), key=ROWS.__getitem__):
            bench.let_go()
            for name in names:
                rows[name] = measured(bench, module, name)
    finally:
        bench.let_go()


def measured(bench: Bench, module: str, name: str) -> Row:
    begun = time.monotonic()
    try:
        row: Row = getattr(importlib.import_module(module), name)(bench)
    except Exception as error:
        traceback.print_exc()
        row = Row(left_out=f"{BROKE_OFF}: {error}")
    say(f"{name}, {time.monotonic() - begun:.0f} s:\n{table({name: row})}\n")
    return row


def use_its_database(instance: Instance) -> None:
    """From here on the models are those of the instance, whatever the environment said of another."""
    for name in set(os.environ) - set(environment()):
        del os.environ[name]
    ours = {"HEARTH_HOME": str(instance.home.path), "HEARTH_LOG_LEVEL": "WARNING"}
    os.environ |= {**ours, "DJANGO_SETTINGS_MODULE": "hearth.settings"}
    import django

    django.setup()


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
