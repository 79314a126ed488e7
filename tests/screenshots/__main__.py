"""`make screenshots`: the README's pictures of the admin, of a new instance with a past and a few real jobs.

It starts the instance under a temporary home, and writes docs/screenshots (or --to FOLDER).
"""

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from hearth.local.instance import ROOT
from tests.admin.chromium import launch
from tests.e2e.instance import Instance, TenantClient, example, picture, saved
from tests.local.running import manage, new_home
from tests.screenshots.shots import Shot, take

TENANTS = ("acme", "globex", "initech", "umbrella")
WORKFLOWS = ("img_chain", "batch", "two_outputs", "video_mp4", "img_chain")
FAULT = {"image": ["1", 0], "kind": "error", "message": "mat1 and mat2 cannot be multiplied (77x2048 and 768x320)"}
FOLDER = ROOT / "docs" / "screenshots"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__)
    parser.add_argument("--to", type=Path, default=FOLDER)
    to = parser.parse_args().to
    home = new_home()
    up = Instance(home / "home", WORKERS="2")
    try:
        shots = shots_of(*story(up))
        with sync_playwright() as playwright, launch(playwright) as browser:
            for made in take(browser, up.url, password_of(up), shots, to):
                print(f"{made}  {made.stat().st_size:,} bytes")
    finally:
        up.signal(signal.SIGTERM)
        shutil.rmtree(home, ignore_errors=True)
    return 0


def password_of(up: Instance) -> str:
    found: str = json.loads((up.home.path / "admin.json").read_text())["password"]
    return found


def story(up: Instance) -> tuple[str, str]:
    """Tenants with a past, and some jobs of now. The UUIDs of one that was completed, and of one that failed."""
    tenants = [client(up, name) for name in TENANTS]
    code = f"from tests.screenshots.demo import fill; fill(*{TENANTS!r})"
    done = manage(up.home.path, "shell", "-c", code)
    assert done.returncode == 0, done.stderr
    acme = tenants[0]
    ended = [acme.ended(acme.run(example(name))) for name in WORKFLOWS]
    graph = picture(256) | {"2": {"class_type": "StandinFault", "inputs": FAULT}}
    failed = acme.ended(acme.run(saved(graph, "2")))
    assert (ended[-1]["status"], failed["status"]) == ("COMPLETED", "FAILED"), (ended, failed)
    return uuid_of(ended[2]["id"]), uuid_of(failed["id"])


def client(up: Instance, name: str) -> TenantClient:
    made = up.manage("create_tenant", name, "--json")
    return TenantClient(up.url, made["endpoint"], made["api_key"], made["worker_key"])


def uuid_of(job: str) -> str:
    return job.removeprefix("sync-").removesuffix("-e1")


def shots_of(completed: str, failed: str) -> list[Shot]:
    page = "/admin/jobs/job/{}/change/".format
    return [
        Shot("home", "/admin/?since=24h", "Endpoints", height=1400),
        Shot("home-dark", "/admin/?since=1h", "Endpoints", height=800, dark=True),
        Shot("job", page(completed), "Where the time went", height=1420),
        Shot("failed-job", page(failed), "Why it failed", height=900),
    ]


if __name__ == "__main__":
    sys.exit(main())
