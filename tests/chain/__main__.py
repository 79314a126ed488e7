"""`make chain`: jobs through two Hearths, of which the far one plays RunPod, and a faulty proxy between, while both
are killed (-9) and started again. Each must end once, as it had to, and run once unless a timeline says why.

Exit code 1: something did not hold; then the folder, with both homes and their logs, is kept and named.
"""

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.chain import checks, plan
from tests.chain.plan import Kill, Planned
from tests.chain.proxy import Proxy
from tests.chain.sides import Sides

FINAL = "('COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chain")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=120, help="how long kills fall")
    parser.add_argument("--kills", type=int, default=2, help="of each side as a whole")
    parser.add_argument("--parts", type=int, default=8, help="kills of single parts")
    parser.add_argument("--share", type=float, default=0.2, help="of the requests between them meet a fault")
    parser.add_argument("--in-flight", type=int, default=24)
    parser.add_argument("--wait", type=int, default=30, help="seconds a job may wait at the far side")
    parser.add_argument("--hearth", action="store_true", help="near knows that far keeps Idempotency-Keys")
    parser.add_argument(
        "--settle", type=float, default=1200, help="after the last kill: at most so long until all have ended"
    )
    return parser.parse_args()


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    asked = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped
    folder = Path(tempfile.mkdtemp(prefix="hearth-chain-"))
    proxy = Proxy(asked.seed, asked.share)
    planned = plan.jobs(asked.seed, asked.jobs)
    say(f"Seed {asked.seed}, {len(planned)} jobs; in {folder}")
    sides = None
    try:
        sides = Sides(folder, proxy, keys=asked.hearth, in_flight=asked.in_flight, wait_s=asked.wait)
        say("both are up")
        wrong = play(asked, sides, planned)
    finally:
        if sides:
            sides.stop()
        proxy.stop()
    print(json.dumps({"proxy": proxy.dealt, "runs": sum(map(len, checks.runs(sides.runs).values()))}))
    if wrong:
        print("\n".join(wrong[:30]))
        print(f"FAILED: {len(wrong)} complaints, seed {asked.seed}. All is kept in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    print(f"All held, seed {asked.seed}")
    return 0


def play(asked: argparse.Namespace, sides: Sides, planned: list[Planned]) -> list[str]:
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        done = [clients.submit(client, sides, job, begun, asked.seconds * 0.6) for job in planned]
        for kill in plan.kills(asked.seed, asked.seconds, asked.kills, asked.parts):
            time.sleep(max(0.0, begun + kill.at_s - time.monotonic()))
            fall(sides, kill)
        for future in done:
            future.result()
    say("all are submitted and no more is killed")
    until = time.monotonic() + asked.settle
    while left := unended(sides):
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    say(f"{left} have not ended")
    settled = time.monotonic() + 30
    while (checks.left(sides.near) or checks.left(sides.far)) and time.monotonic() < settled:
        time.sleep(0.5)  # cancels on their way
    return checks.complaints(planned, sides.near, sides.far, sides.runs)


def fall(sides: Sides, kill: Kill) -> None:
    say(f"kill -9 of {kill.side}'s {kill.part or 'all'}")
    side = sides.near if kill.side == "near" else sides.far
    if kill.part:
        side.kill_part(kill.part)
    else:
        side.kill()


def unended(sides: Sides) -> int:
    return int(sides.near.rows(f"SELECT count(*) FROM jobs_job WHERE state NOT IN {FINAL}")[0][0])


def client(sides: Sides, job: Planned, begun: float, within_s: float) -> None:
    """Submits one, when it is its turn, and asks again as long as it gets no answer."""
    time.sleep(max(0.0, begun + within_s * (job.n % 100) / 100 - time.monotonic()))
    body = {
        "input": {"n": job.n, "seconds": job.seconds, "ends": job.ends},
        "policy": {"executionTimeout": plan.TIMEOUT_MS if job.ends == "TIMED_OUT" else plan.PATIENT_MS},
    }
    id = insist(partial(post, sides, "run", body, f"n-{job.n}"))
    if job.ends == "CANCELLED":
        time.sleep(job.at_s)
        insist(partial(post, sides, f"cancel/{id}", {}, ""))


def insist(ask: Callable[[], str]) -> str:
    until = time.monotonic() + 90
    while True:
        try:
            return ask()
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def post(sides: Sides, path: str, body: object, key: str) -> str:
    headers = {"Authorization": f"Bearer {sides.api_key}", "Content-Type": "application/json"}
    headers |= {"Idempotency-Key": key} if key else {}
    url = f"{sides.near.url}/v2/cloud/{path}"
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.load(answer)["id"])


if __name__ == "__main__":
    sys.exit(main())
