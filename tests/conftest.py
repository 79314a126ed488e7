"""What the tests run on: one PostgreSQL and one S3 for the run, and for each process a database and a web of its own.

The process that was started by hand (with xdist: the controller) starts the parts, migrates the database `hearth`,
and stops the parts at the end. Each process that runs tests copies that database when a test first asks for it, by the
fixtures `database` and `web`. What imports models calls django.setup() first (tests/cast.py).
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hearth.local import instance, postgres, seaweed
from hearth.local.health import Probe
from hearth.local.home import Home
from hearth.local.process import Child, Part, stop

TESTS = Path(__file__).parent
WITHOUT_PARTS = tuple(
    str(TESTS / name)
    for name in ("local", "worker", "standin", "graph", "golden", "docs", "benchmarks", "chaos", "chain")
)
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "main")
CONTROLS = "HEARTH_TEST_HOME" not in os.environ
S3_BUCKET = "hearth-tests"


def set_environment() -> Home:
    """Before anything reads hearth.settings. What the controller sets here, its workers inherit."""
    if not CONTROLS:
        return Home(Path(os.environ["HEARTH_TEST_HOME"]))
    for name in list(os.environ):
        if name.startswith(("HEARTH_", "DATABASE_")) and name != "HEARTH_NO_SKIPS":
            del os.environ[name]
    home = Home(Path(tempfile.mkdtemp(prefix="hearth-tests-")))
    os.environ |= {
        "HEARTH_TEST_HOME": str(home.path),
        "HEARTH_TEST_FSYNC": "off",
        "HEARTH_HOME": str(home.path),
        "HEARTH_SECRET_KEY": home.secret("HEARTH_SECRET_KEY"),
        "HEARTH_SEAL_KEYS": home.secret("HEARTH_SEAL_KEYS"),
        "HEARTH_URL_ALLOW": "127.0.0.0/8",
        "HEARTH_S3_BUCKET": S3_BUCKET,
        "DJANGO_SETTINGS_MODULE": "hearth.settings",
    }
    return home


HOME = set_environment()
S3 = seaweed.part(HOME, S3_BUCKET) if CONTROLS else None
LISTENER = socket.create_server(("127.0.0.1", 0), backlog=2048)  # of this process's web
URL = f"http://127.0.0.1:{LISTENER.getsockname()[1]}"
DATABASE = f"hearth_{PROCESS}"
PARTS: list[Child] = []


def database_url(name: str) -> str:
    return HOME.database_url().replace("/hearth?", f"/{name}?")


os.environ |= {f"HEARTH_S3_{name.upper()}": value for name, value in seaweed.credentials(HOME).items()}
os.environ |= {"DATABASE_URL": database_url(DATABASE), "HEARTH_URL": URL}


def pytest_configure(config: pytest.Config) -> None:
    paths = [os.path.abspath(argument.partition("::")[0]) for argument in config.args]
    if CONTROLS and not config.option.collectonly and not all(path.startswith(WITHOUT_PARTS) for path in paths):
        start_parts()


def start_parts() -> None:
    assert S3
    s3 = start(S3)
    started = start(postgres.part(HOME, lambda line: None))
    wait(postgres.START_S, started.is_ready, started)
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0", "--skip-checks"]
    env = {**os.environ, "DATABASE_URL": HOME.database_url()}
    done = subprocess.run(migrate, env=env, cwd=instance.ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.exit(f"The migration failed:\n{done.stderr}", returncode=3)
    wait(seaweed.START_S, s3.is_ready, s3)


def start(part: Part) -> Child:
    PARTS.append(Child(part, HOME.folder("logs") / f"{part.name}-{PROCESS}.log"))
    return PARTS[-1]


def wait(seconds: float, done: Callable[[], bool], child: Child) -> None:
    until = time.monotonic() + seconds
    while not done():
        if child.ended() is not None or time.monotonic() > until:
            raise AssertionError(f"{child.part.name} is not ready. The end of {child.log}:\n{child.last_lines(40)}")
        time.sleep(0.02)


def pytest_unconfigure() -> None:
    stop(PARTS)
    LISTENER.close()
    if CONTROLS:
        seaweed.clear_sockets(HOME)
        HOME.clear_sockets()
        shutil.rmtree(HOME.path, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With HEARTH_NO_SKIPS, as in CI, a run that left a test out has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("HEARTH_NO_SKIPS") and reporter and reporter.stats.get("skipped") and session.exitstatus == 0:
        reporter.write_line("\nHEARTH_NO_SKIPS is set, and tests were left out: the run has failed.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The URL of this process's database, migrated and empty at first. Django is set up on it."""
    import django
    import psycopg

    with psycopg.connect(database_url("postgres"), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {DATABASE} TEMPLATE hearth")
    django.setup()
    yield database_url(DATABASE)
    from django.db import connections

    connections.close_all()
    with psycopg.connect(database_url("postgres"), autocommit=True) as session:
        session.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


class Web:
    """A real web process. Its listening socket is the tests', so while it is away connections wait."""

    url = URL

    def __init__(self) -> None:
        env = instance.environment(HOME, URL, *LISTENER.getsockname())
        self._part = instance.control_plane(env, LISTENER.fileno(), LISTENER.getsockname()[1], grace_s=15)[0]
        self.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def log(self) -> str:
        return self._child.log.read_text(errors="replace")

    def start(self) -> None:
        self._child = start(self._part)
        probe = Probe(*LISTENER.getsockname())
        wait(60, lambda: probe.look().get("db") == "ok", self._child)

    def stop(self) -> None:
        """By SIGTERM, as at a restart of the machine."""
        stop([self._child])

    def kill(self) -> None:
        self._child.kill()
        stop([self._child])

    def restart(self) -> None:
        self.stop()
        self.start()


@pytest.fixture(scope="session")
def web(database: str) -> Iterator[Web]:
    running = Web()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def comfyui_url() -> str:
    """The ComfyUI that COMFYUI_URL names, else a stand-in for this process."""
    given = os.environ.get("COMFYUI_URL")
    if given:
        return given
    port = seaweed.free_ports(1)[0]
    standin = start(instance.comfyui(HOME, PROCESS, port))
    wait(30, lambda: answers(port), standin)
    return f"http://127.0.0.1:{port}"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
