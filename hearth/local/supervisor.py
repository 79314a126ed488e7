"""`make up`: starts an instance's parts, keeps them running, and stops them all."""

import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from hearth import settings
from hearth.local import instance, postgres, seaweed
from hearth.local.health import Probe
from hearth.local.home import Home, LocalError, Lock
from hearth.local.process import Child, Part, stop

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
SETTLED_S = 30.0  # a part that has lived this long starts again without a pause that grows
DEATHS_WHILE_STARTING = 5
START_S = 120.0
STOP_ORDER = (("worker",), ("comfyui", "web", "tasks", "sweeper", "deliverer"), ("s3", "postgres"))


class Stopped(Exception):
    """A signal asked for the end."""


class Kept:
    """A part that is started again whenever it ends."""

    def __init__(self, part: Part, home: Home) -> None:
        self.part = part
        self.log = home.folder("logs") / f"{part.name}.log"
        self.deaths = 0
        self._pause_s = FIRST_PAUSE_S
        self._due: float | None = None
        self._why = ""
        self.child = Child(part, self.log)
        self._shown = self.child.log_start

    def look(self) -> str:
        """What has happened to it since the last look, for a person; "" if nothing. Starts it again when due."""
        now = time.monotonic()
        if self._due is not None:
            return self._start() if now >= self._due else ""
        code = self.child.ended()
        if code is None:
            return ""
        settled = time.time() - self.child.started > SETTLED_S
        self._pause_s = FIRST_PAUSE_S if settled else min(self._pause_s * (2 if self.deaths else 1), LONGEST_PAUSE_S)
        self.deaths += 1
        self._due = now + self._pause_s
        said = f"{self.part.name} (pid {self.child.pid}) ended, code {code}; again in {self._pause_s:.1f} s"
        why = self.child.last_lines()
        if why != self._why:  # the same again is not said again
            self._why = why
            said += f". The end of {self.log}:\n{why}"
        return said

    def _start(self) -> str:
        self._due = None
        self.child = Child(self.part, self.log)
        self._shown = self.child.log_start
        return f"{self.part.name} is started again (pid {self.child.pid})"

    def new_lines(self) -> list[str]:
        """Whole lines of its log since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._shown)
            whole = log.read().rpartition(b"\n")[0]
        self._shown += len(whole) + 1 if whole else 0
        return whole.decode(errors="replace").splitlines()


class Supervisor:
    """Owns the listening socket and every part of the instance in `home`, whose lock its caller holds."""

    def __init__(self, home: Home, lock: Lock, listener: socket.socket) -> None:
        self.home = home
        self.kept: dict[str, Kept] = {}
        self._lock = lock
        self._listener = listener
        self._host = listener.getsockname()[0]
        self._port: int = listener.getsockname()[1]
        self.base_url = settings.GIVEN_URL or f"http://{reachable(self._host)}:{self._port}"
        self._begun = time.monotonic()
        self._asked_to_stop = False
        self._interrupts = 0
        self._run: dict[str, Any] = {"pid": os.getpid(), "started": time.time(), "base_url": self.base_url}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True
        self._interrupts += number == signal.SIGINT

    def say(self, text: str) -> None:
        show(f"{time.monotonic() - self._begun:6.1f} s  {text}")

    def run(self) -> None:
        """Starts all, says READY, and returns when a signal has come and all has ended."""
        try:
            self.start()
            while True:
                self._look()
                time.sleep(0.1)
        except Stopped:
            self.say("Stopping (Ctrl-C again kills)")
        finally:
            self.stop()

    def start(self) -> None:
        if settings.EMBEDDED_S3:
            self._keep(seaweed.part(self.home, settings.S3_BUCKET))
            self._run["s3"] = seaweed.credentials(self.home)
        if settings.EMBEDDED:
            self._run["database_url"] = self.home.database_url()
            self._keep(postgres.part(self.home, self.say))
            self._wait_for("postgres", postgres.START_S)
        env = instance.environment(self.home, self.base_url, self._host, self._port)
        self._write_run()
        worker_env = self._prepare(env)
        grace_s = settings.WEB_GRACE_S
        for part in instance.control_plane(env, self._listener.fileno(), self._port, grace_s):
            self._keep(part)
        for number in range(1, settings.WORKERS + 1):
            self._keep_worker(number, worker_env)
        self.say(f"Started web, tasks, sweeper, deliverer and {settings.WORKERS} worker(s)")
        if settings.EMBEDDED_S3:
            self._wait_for("s3", seaweed.START_S)
        self._wait_for_health()
        self._greet()

    def _keep(self, part: Part) -> None:
        self.kept[part.name] = Kept(part, self.home)
        self._write_run()

    def _keep_worker(self, number: int, worker_env: dict[str, str]) -> None:
        url, folder = settings.COMFYUI_URL, ""
        if not url:
            port = seaweed.free_ports(1)[0]
            url = f"http://127.0.0.1:{port}"
            folder = str(self.home.folder(f"comfyui-{number}"))
            self._keep(instance.comfyui(self.home, number, port))
        self._keep(instance.worker(self.home, number, worker_env, url, folder))

    def _prepare(self, env: dict[str, str]) -> dict[str, str]:
        """Migrates; the environment of the local workers. Writes admin.json when the operator was made."""
        with tempfile.TemporaryFile() as out:
            child = Child(instance.prepare(env), self.home.folder("logs") / "prepare.log", stdout=out)
            try:
                self._wait("the migration", START_S, lambda: child.ended() is not None)
            finally:
                child.kill()
            if child.ended() != 0:
                raise LocalError(f"`manage.py prepare_local` failed. The end of {child.log}:\n{child.last_lines(30)}")
            out.seek(0)
            said = json.loads(out.read().splitlines()[-1])
        if said["admin"]["password"]:
            self.home.write("admin.json", json.dumps({**said["admin"], "url": f"{self.base_url}/admin/"}, indent=2))
        self.say("The database is migrated")
        return dict(said["worker_env"])

    def _look(self) -> None:
        """Restarts what has ended. Raises Stopped after a signal."""
        for kept in self.kept.values():
            happened = kept.look()
            if happened:
                self.say(happened)
                self._write_run()
            if settings.LOG:
                for line in kept.new_lines():
                    show(f"{kept.part.name:>10} | {line}")
        if self._asked_to_stop:
            raise Stopped

    def _wait(self, what: str, seconds: float, done: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while not done():
            self._look()
            for kept in self.kept.values():
                if kept.deaths >= DEATHS_WHILE_STARTING:
                    raise LocalError(f"{kept.part.name} ended {kept.deaths} times while starting: see {kept.log}")
            if time.monotonic() > until:
                raise LocalError(f"{what} was not ready after {seconds:.0f} s: see {self.home.file('logs')}")
            time.sleep(0.02)

    def _wait_for(self, name: str, seconds: float) -> None:
        self._wait(name, seconds, lambda: self.kept[name].child.is_ready())
        self.say({"postgres": "PostgreSQL is up", "s3": "S3 is up"}[name])

    def _wait_for_health(self) -> None:
        probe = Probe(reachable(self._host), self._port)
        wanted = {"db": "ok", "s3": "ok", **({"worker": "ok"} if settings.WORKERS else {})}
        self._wait("the instance", START_S, lambda: wanted.items() <= probe.look().items())
        self.say("All is healthy")

    def _greet(self) -> None:
        admin = self.home.read("admin.json")
        show(f"  admin   {self.base_url}/admin/  {admin.get('username')} / {admin.get('password')}")
        show(f"  try     curl -s {self.base_url}/healthz")
        show(f"  tenant  HEARTH_HOME={self.home.path} .venv/bin/python manage.py create_tenant acme --json")
        show(f"  stop    Ctrl-C; logs in {self.home.file('logs')}")
        show(f"READY {self.base_url}")

    def _write_run(self) -> None:
        parts = {
            name: {"pid": kept.child.pid, "port": kept.part.port, "started": kept.child.started}
            for name, kept in self.kept.items()
        }
        self.home.write_run({**self._run, "parts": parts})

    def stop(self) -> None:
        """Ends all parts, in STOP_ORDER; another Ctrl-C kills them."""
        self._lock.take("stopping")
        already = self._interrupts
        for kinds in STOP_ORDER:
            children = [kept.child for name, kept in self.kept.items() if name.startswith(kinds)]
            stop(children, hurry=lambda: self._interrupts > already)
        self._listener.close()
        seaweed.clear_sockets(self.home)
        self.home.clear_sockets()
        self.kept.clear()
        for gone in ("pid", "database_url"):
            self._run.pop(gone, None)
        self._write_run()
        self.say("Stopped")


def show(line: str) -> None:
    """A line on the console. The instance goes on when nobody reads it any more."""
    try:
        print(line, flush=True)
    except OSError:
        pass


def reachable(host: str) -> str:
    """The host to use in a URL for what listens there."""
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = wildcards.get(host, host)
    return f"[{host}]" if ":" in host else host
