"""The instance that a run is about, as `make up` runs it, and the same home started anew."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from hearth.local.home import Home
from hearth.local.instance import ROOT
from hearth.local.process import leftovers
from hearth.local.seaweed import free_ports
from tests.chaos.plan import ENDPOINT, TenantPlan
from tests.local.running import Running, environment, manage


class Up(Running):
    """It ends when this process is killed."""

    options = ("--with-parent",)


class Instance:
    """Made and started anew by the main thread only, since it ends with the thread that started it."""

    def __init__(self, home: Path, workers: int, lease_s: int) -> None:
        self.home = Home(home)
        self.settings = {
            "PORT": str(free_ports(1)[0]),
            "WORKERS": str(workers),
            "HEARTH_LEASE_S": str(lease_s),
            "HEARTH_WEB_GRACE_S": "5",
            "HEARTH_URL_ALLOW": "127.0.0.0/8",
        }
        self.consoles: list[Running] = []
        self.start()

    def start(self) -> None:
        self._up = Up(self.home.path, **self.settings)
        self.consoles.append(self._up)

    @property
    def url(self) -> str:
        return f"{self._up.url}/v2/{ENDPOINT}"

    @property
    def pid(self) -> int:
        return self._up.pid

    def again(self, how: signal.Signals) -> None:
        """The whole instance by that signal, and at once the next one."""
        self._up.signal(how)
        self.start()

    def stop(self) -> list[psutil.Process]:
        """What it has left behind, which is nothing."""
        self._up.signal(signal.SIGTERM)
        return leftovers(self.home.path)

    def healthy(self) -> bool:
        try:
            found = self._up.health()
        except OSError:
            return False
        return (found["status"], found["s3"], found["worker"]) == ("ok", "ok", "ok")

    def tenants(self, plans: list[TenantPlan]) -> list[tuple[str, str]]:
        """The API key of each, and the secret of its webhooks."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.chaos.tenants"],
            cwd=ROOT,
            env=environment(self.home.path),
            input=json.dumps([asdict(plan) for plan in plans]),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [(key, secret) for key, secret in json.loads(done.stdout.splitlines()[-1])]

    def sweep(self) -> None:
        done = manage(self.home.path, "sweeper", "--once")
        assert done.returncode == 0, done.stderr
