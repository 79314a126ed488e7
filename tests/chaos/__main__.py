"""`make chaos`: jobs of many tenants while every part is killed at random; each accepted job must end exactly once.

The plan (who submits what, who is killed when) follows from --seed and the size; how the processes' own timing falls
does not. Exit code 1: something did not hold; then the home, with its logs and the plan, is kept and named.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from hearth.local.process import die_with_parent
from tests.chaos import checks, history, report, traces
from tests.chaos.checks import Result, Run
from tests.chaos.clients import Clients
from tests.chaos.faults import Faults
from tests.chaos.instance import Instance
from tests.chaos.plan import Plan, Size, make
from tests.chaos.receiver import Receiver
from tests.local.running import eventually, new_home

LEASE_S = 10
SETTLE_S = 150.0  # after the last fault: so long until all have ended
DISCARD_S = 60.0
TELL_S = 60.0
TIDY_S = 20.0  # workers tidy up beside their next job


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="the same seed, the same plan")
    parser.add_argument("--jobs", type=int, default=Size.jobs)
    parser.add_argument("--tenants", type=int, default=Size.tenants)
    parser.add_argument("--workers", type=int, default=Size.workers)
    parser.add_argument("--seconds", type=float, default=Size.seconds, help="how long faults fall")
    parser.add_argument("--plan", action="store_true", help="print the plan and leave")
    parser.add_argument("--keep", action="store_true", help="keep the home when all held, too")
    parser.add_argument("--with-parent", action="store_true", help="stop when make dies")
    return parser.parse_args()


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    asked = arguments()
    if asked.with_parent:
        die_with_parent(signal.SIGTERM, os.getppid())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped
    plan = make(asked.seed, Size(jobs=asked.jobs, tenants=asked.tenants, workers=asked.workers, seconds=asked.seconds))
    if asked.plan:
        print(json.dumps(plan.json(), indent=1))
        return 0
    home = new_home()
    (home / "plan.json").write_text(json.dumps(plan.json(), indent=1))
    say(f"Seed {plan.seed}: {len(plan.jobs)} jobs, {len(plan.faults)} faults in {plan.size.seconds:.0f} s; in {home}")
    results = chaos(plan, home)
    print("\n".join(report.verdict(results)))
    if any(result.wrong for result in results):
        print(f"FAILED with --seed {plan.seed}. Plan, logs and data are kept in {home}")
        return 1
    if not asked.keep:
        shutil.rmtree(home)
    print(f"All held, seed {plan.seed}")
    return 0


def chaos(plan: Plan, home: Path) -> list[Result]:
    instance = Instance(home, plan.size.workers, LEASE_S)
    try:
        run, left, there = play(plan, instance)
        eventually(lambda: not traces.in_comfyui(instance.home), TIDY_S)
        kept = traces.in_comfyui(instance.home)
    finally:
        processes = instance.stop()
    print("\n".join(report.counts(run)))
    found = traces.tracebacks(home / "logs")
    print("tracebacks  " + ("\n            ".join(f"{n} × {text}" for text, n in found.most_common()) or "none"))
    return [
        *checks.look(run),
        whole("all settled in time", len(run.stories), left),
        whole("files are as recorded", len(there), traces.files_are_as_recorded(run.stories, there)),
        whole("nothing of a job is in ComfyUI", plan.size.workers, kept),
        whole("no process is left", 1, map(str, processes)),
        whole("no part failed by itself", len(found), (text for text in found if not traces.is_expected(text))),
    ]


def play(plan: Plan, instance: Instance) -> tuple[Run, list[str], dict[str, int]]:
    """The run to its end: what is known of it, what did not settle in time, and what is in S3."""
    keys, secrets = zip(*instance.tenants(plan.tenants), strict=True)
    receiver = Receiver(plan.moods, secrets)
    clients, faults = Clients(instance.url, keys, plan.jobs, receiver.url), Faults(instance)
    begun = time.monotonic()
    clients.start(begun)
    try:
        faults.run(plan.faults, begun, say)
    finally:
        faults.resume_all()
    say("No more faults")
    unsettled = settle(instance, clients) or tell(instance, receiver)
    say("Reading everything again")
    clients.read_again()
    discard(instance)
    there = traces.objects(instance.home)
    receiver.stop()
    run = Run(history.load(instance.home.database_url()), clients.seen, faults.struck, receiver.told)
    return run, unsettled, there


def settle(instance: Instance, clients: Clients) -> list[str]:
    """Waits until every job has ended and every slot is free; what was not so in time."""
    calm = time.monotonic()
    if waiting := clients.wait(SETTLE_S):
        return [f"{waiting} clients have not seen the end of their jobs {SETTLE_S:.0f} s after the last fault"]
    database = instance.home.database_url()
    if not eventually(lambda: history.still_open(database) == 0, SETTLE_S):
        return [
            f"{history.still_open(database)} jobs and slots were open {SETTLE_S:.0f} s after their clients had left"
        ]
    say(f"All ended {time.monotonic() - calm:.0f} s after the last fault")
    return [] if eventually(instance.healthy) else ["the instance is not healthy"]


def tell(instance: Instance, receiver: Receiver) -> list[str]:
    """Has Hearth deliver what it has not yet to a receiver that is well, as if the time of each next try had come."""
    database = instance.home.database_url()
    receiver.recover()
    say(f"{history.end_leases(database)} deliveries wait for their next try")
    told = eventually(lambda: history.make_deliveries_due(database) == 0, TELL_S)
    return [] if told else [f"not all deliveries have come in {TELL_S:.0f} s more"]


def discard(instance: Instance) -> None:
    """Has Hearth delete the files that no attempt won, as if their upload URLs had expired."""
    database = instance.home.database_url()
    until = time.monotonic() + DISCARD_S
    while history.make_pending_due(database) and time.monotonic() < until:
        instance.sweep()
    eventually(lambda: history.dying(database) == 0, DISCARD_S)  # a task deletes them


def whole(check: str, looked_at: int, wrong: Iterable[str]) -> Result:
    return Result(check, looked_at, [(None, text) for text in wrong])


if __name__ == "__main__":
    sys.exit(main())
