"""Two Hearths, of which the far one plays RunPod for the near one, with stock SDK workers behind it, and a faulty proxy
between them. Each is killed (-9) as a whole or in part, and started again."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from hearth.local.seaweed import free_ports
from tests.chain.proxy import Proxy
from tests.local.running import Running, eventually, is_gone, manage

WORKERS = ("w0", "w1")
LOCAL = {"WORKERS": "0", "HEARTH_URL_ALLOW": "127.0.0.0/8", "HEARTH_LEASE_S": "8"}
# One process for all commands of a side, since a start of Django takes seconds.
FAR = f"""
from django.core.management import call_command as call
from jobs.models import Endpoint
Endpoint.objects.create(name="gpu", dialect="raw")
call("create_tenant", "hearth", endpoint="gpu", json=True)
for name in {WORKERS}:
    print("==", name)
    call("worker_env", "gpu", name=name)
"""
NEAR = """
from django.core.management import call_command as call
call("add_runpod_endpoint", "cloud", *{options})
call("create_tenant", "acme", endpoint="cloud", json=True)
"""


@dataclass
class Side:
    """One Hearth under a home, on one port, whichever process is at it."""

    home: Path
    more: dict[str, str]
    port: int = field(default_factory=lambda: free_ports(1)[0])

    def start(self) -> None:
        self.up = Running(self.home, PORT=str(self.port), **LOCAL, **self.more)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """All of it at once, and the next one as soon as it is gone."""
        self.end()
        self.start()

    def end(self) -> None:
        processes = self.up.processes()
        for process in processes:
            kill(process)
        assert eventually(lambda: all(map(is_gone, processes)))
        self.up.signal(signal.SIGKILL)

    def told(self, code: str, **more: str) -> tuple[dict[str, str], str]:
        """What a script with create_tenant says of the tenant, and what it says after that."""
        done = manage(self.home, "shell", "-c", code, **more)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        made = next(number for number, line in enumerate(lines) if line.startswith("{"))
        return json.loads(lines[made]), "\n".join(lines[made + 1 :])

    def kill_part(self, name: str) -> None:
        try:
            kill(self.up.part(name))
        except (psutil.NoSuchProcess, KeyError):
            return  # it is being started

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """While the database is started anew, again."""
        until = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(self.up.home.database_url()) as session:
                    return session.execute(query).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


class Sides:
    """`keys`: near knows that far keeps Idempotency-Keys; else far is as RunPod: unknown outcomes are waited for."""

    def __init__(self, folder: Path, proxy: Proxy, *, keys: bool, in_flight: int, wait_s: int) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.runs.touch()
        self.far = Side(folder / "far", {})
        near = {"HEARTH_RUNPOD_URL": f"{proxy.calls_url}/v2", "HEARTH_URL": proxy.news_url}
        self.near = Side(folder / "near", near)
        proxy.targets = {proxy.calls: self.far.url, proxy.news: self.near.url}
        self._workers: list[Child] = []
        options = ["--id", "gpu", "--max-in-flight", str(in_flight), "--wait", str(wait_s), "--dialect", "raw"]
        try:
            self._begin(options + (["--hearth"] if keys else []))
        except BaseException:
            self.stop()
            raise

    def _begin(self, options: list[str]) -> None:
        with ThreadPoolExecutor(1) as pool:
            near = pool.submit(self.near.start)
            self.far.start()
            there, workers = self.far.told(FAR)
            near.result()
        self._workers += [self._worker(*each.split("\n", 1)) for each in workers.split("== ")[1:]]
        key = {"RUNPOD_API_KEY": there["api_key"], "HEARTH_RUNPOD_URL": f"{self.far.url}/v2"}
        acme, _ = self.near.told(NEAR.format(options=options), **key)
        self.api_key = acme["api_key"]

    def _worker(self, name: str, block: str) -> Child:
        lines = block.splitlines()
        given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        home = self.folder / name
        home.mkdir()
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("HEARTH_", "DATABASE_"))}
        env = keep | given | {"HOME": str(home), "RUNPOD_PING_INTERVAL": "2000", "RUNPOD_LOG_LEVEL": "WARN"}
        argv = [sys.executable, str(ROOT / "tests" / "chain" / "handler.py"), str(self.runs)]
        return Child(Part(name=name, argv=argv, cwd=home, env=env), home / "log")

    def stop(self) -> None:
        stop(self._workers)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Side.end, [side for side in (self.near, self.far) if hasattr(side, "up")]))
