"""The stock `runpod` SDK worker in a process of its own, pointed at Hearth by environment variables alone."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil

from accounts import sql
from hearth.local.process import Child, Part
from jobs.ids import JobId
from jobs.models import Worker
from jobs.tenants import worker_environment
from tests.cast import Place
from tests.fleet.wire import until

NOT_THE_WORKERS = ("HEARTH_", "DATABASE_", "DJANGO_", "RUNPOD_", "PYTEST_")


class StockWorker:
    """`folder`: its home, its log, and the marks that its handler leaves."""

    def __init__(self, url: str, place: Place, name: str, folder: Path, kind: str = "async", concurrency: int = 1):
        self.place, self.name, self.folder = place, name, folder
        folder.mkdir(exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith(NOT_THE_WORKERS)}
        env |= worker_environment(place.endpoint, place.worker_key, url, name)
        env |= {"RUNPOD_PING_INTERVAL": "1000", "RUNPOD_LOG_LEVEL": "INFO", "HOME": str(folder)}
        argv = [sys.executable, str(Path(__file__).with_name("stock_handler.py")), kind, str(concurrency), str(folder)]
        self._child = Child(Part(name=name, argv=argv, env=env, cwd=folder), folder / "log")
        self.pid = self._child.pid

    @property
    def log(self) -> str:
        return self._child.log.read_text(errors="replace")

    def wait_until_it_polls(self) -> "StockWorker":
        until(lambda: Worker.objects.filter(**self._row, stop_at__isnull=False).exists(), 30)
        return self

    def row(self) -> Worker:
        return Worker.objects.get(**self._row)

    @property
    def _row(self) -> dict[str, Any]:
        return {"endpoint": self.place.endpoint, "name": self.name}

    def has(self, what: str, job: JobId, number: int = 1) -> bool:
        """Whether its handler left this mark (began, stopped) for that attempt."""
        return any(self.folder.glob(f"{what}-*{job.uuid}-e1" + (f"-a{number}" if number > 1 else "")))

    def alive(self) -> bool:
        """The main process; its ping process may live on."""
        return bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)

    def kill(self) -> None:
        """kill -9 of the main process alone."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        self._child.stop()

    def code(self) -> int | None:
        """The exit code once it has ended; what was left of its session is killed then."""
        return self._child.ended()

    def end(self) -> None:
        """It and its ping process."""
        self._child.kill()
        until(lambda: self._child.ended() is not None)


def pinged_lately(worker: StockWorker) -> bool:
    query = "SELECT ping_at > clock_timestamp() - interval '3 s' FROM jobs_worker WHERE endpoint_id = %s AND name = %s"
    row = sql.first(query, [worker.place.endpoint.pk, worker.name])
    return bool(row and row[0])
