"""Every command of the README and of docs/ is run on an instance as a person has it (tests/docs holds the rest)."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hearth.local import postgres
from hearth.local.instance import ROOT
from tests.docs.pages import blocks
from tests.e2e.instance import Instance, example
from tests.js import node
from tests.local.running import environment, eventually
from tests.runpod import cloud as clouds
from tests.webhooks.receiver import Receiver

IN_DOCKER = "docker compose run --rm web python "
ASKS_NOTHING = {"createsuperuser": "--no-input", "delete_tenant hooli": "--yes"}


@pytest.fixture(scope="module")
def folder(up: Instance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the repository looks from inside, whose files the commands may write."""
    made = tmp_path_factory.mktemp("checkout")
    for name in ("manage.py", "examples", "hearth", "accounts", "storage", "jobs", "worker"):
        (made / name).symlink_to(ROOT / name)
    venv = Path(sys.prefix)
    (made / ".venv").symlink_to(venv)
    return made


def run(folder: Path, up: Instance, argv: list[str], **more: str) -> str:
    env = environment(up.home.path, HEARTH_URL_ALLOW="127.0.0.0/8", **more)  # as the instance itself
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell(folder: Path, up: Instance, command: str, **more: str) -> str:
    return run(folder, up, ["bash", "-euo", "pipefail", "-c", command], **more)


def here(text: str, up: Instance) -> str:
    return text.replace("http://127.0.0.1:8000", up.url)


def test_the_readmes_commands_and_its_python_run(up: Instance, folder: Path) -> None:
    commands, env = blocks("README.md", "bash")
    said = shell(folder, up, here(commands, up))
    assert '"status":"COMPLETED"' in said
    assert "created" in said
    (python,) = blocks("README.md", "python")
    assert "X-Amz-Signature" in run(folder, up, [".venv/bin/python", "-c", python])
    assert "RUNPOD_WEBHOOK_GET_JOB=" in run(folder, up, ["bash", "-c", env])


def test_the_apis_javascript_runs(up: Instance, folder: Path) -> None:
    node.install()
    (folder / "node_modules").symlink_to(node.HERE / "node_modules")
    run(folder, up, ["bash", "-c", ".venv/bin/python manage.py create_tenant js --json | tail -n 1 > acme.json"])
    (javascript,) = blocks("docs/api.md", "js")
    (folder / "example.mjs").write_text(javascript)
    said = run(folder, up, [str(node.NODE / "bin" / "node"), "example.mjs"]).splitlines()
    assert said[-2].startswith("COMPLETED http")
    assert "X-Amz-Signature" in said[-2]
    assert said[-1] == "COMPLETED"


def test_the_apis_commands_run(up: Instance, folder: Path) -> None:
    tenant = up.tenant("curl", "--manage")
    env = {"HEARTH_URL": up.url, "HEARTH_API_KEY": tenant.api_key}
    for command in blocks("docs/api.md", "bash"):
        said = shell(folder, up, command, **env)
        assert "X-Amz-Signature" in said or {"id", "results", "name"} & set(json.loads(said))
    for python in blocks("docs/api.md", "python"):
        assert "X-Amz-Signature" in run(folder, up, [".venv/bin/python", "-c", python], **env)


def test_the_examples_command_runs(up: Instance, folder: Path) -> None:
    (command,) = blocks("examples/README.md", "bash")
    known = command.replace("https://hearth.example.com", up.url).replace("hth_…", up.tenant("examples").api_key)
    assert "X-Amz-Signature" in shell(folder, up, known)


class Operator:
    """Whoever runs the commands of docs/operations.md, with the instance's database and S3 as if they were his own."""

    def __init__(self, up: Instance, folder: Path, receiver: Receiver) -> None:
        self.up, self.folder, self.receiver = up, folder, receiver
        up.manage("create_tenant", "hooli", "--json")
        made = "from jobs.models import Endpoint; [Endpoint.objects.create(name=n) for n in ('gpu-cloud', 'new-fleet')]"
        shell(folder, up, f'.venv/bin/python manage.py shell -c "{made}"')
        acme = up.tenant("acme")
        self.kept, gone = acme.run(example("img_chain")), acme.run(example("img_chain"))
        acme.ended(self.kept)
        url, s3 = up.run_json()["database_url"], up.run_json()["s3"]
        self.restored_url = re.sub(r"/hearth(?=\?|$)", "/hearth_restored", url)
        login = {"USERNAME": "docs", "EMAIL": "docs@example.com", "PASSWORD": "of-the-docs-test"}
        self.env = {
            **{name: up.home.secret(name) for name in ("HEARTH_SECRET_KEY", "HEARTH_SEAL_KEYS")},
            **{f"HEARTH_S3_{name.upper()}": value for name, value in s3.items()},
            **{f"DJANGO_SUPERUSER_{name}": value for name, value in login.items()},
            "PATH": f"{postgres.binaries()}:{os.environ['PATH']}",
            "DATABASE_URL": url,
            "RESTORED_URL": self.restored_url,
            "JOB": gone,
        }

    def runs(self, command: str) -> str:
        known = command.replace("https://hooks.example.com/hearth", self.receiver.url)
        for asks in ("createsuperuser", "delete_tenant hooli"):
            known = known.replace(asks, f"{asks} {ASKS_NOTHING[asks]}")
        return shell(self.folder, self.up, known, **self.env)

    def jobs(self, url: str) -> list[Any]:
        with psycopg.connect(url) as session:
            return session.execute("SELECT id, state FROM jobs_job ORDER BY id").fetchall()


def test_the_operators_commands_run(up: Instance, folder: Path) -> None:
    with Receiver() as receiver:
        operator = Operator(up, folder, receiver)
        for command in blocks("docs/operations.md", "bash"):
            operator.runs(command)
        operator.env["DJANGO_SUPERUSER_USERNAME"] = "docs-in-docker"
        for line in "".join(blocks("docs/operations.md", "console")).splitlines():
            if line.startswith(IN_DOCKER):
                operator.runs(line.replace(IN_DOCKER, ".venv/bin/python ").replace("initech", "umbrella"))
    assert [got.headers["hearth-event"] for got in receiver.got] == ["test"]
    assert operator.jobs(operator.restored_url) == operator.jobs(operator.env["DATABASE_URL"])
    assert any(operator.kept.startswith(str(job)) for job, _ in operator.jobs(operator.restored_url))


@pytest.fixture
def runpod() -> Iterator[clouds.Cloud]:
    cloud = clouds.Cloud()
    cloud.endpoints["abc123xyz"] = clouds.There()
    yield cloud
    cloud.close()


def test_an_endpoint_of_runpods_is_registered(up: Instance, folder: Path, runpod: clouds.Cloud) -> None:
    (command,) = blocks("docs/runpod.md", "bash")
    known = command.replace("rpa_…", clouds.KEY).replace("gpu-cloud", "gpu-cloud-9")
    assert "pied-piper" in shell(folder, up, known, HEARTH_RUNPOD_URL=runpod.url)


def test_a_worker_of_ones_own_joins_and_leaves(up: Instance, folder: Path, comfyui_url: str) -> None:
    on_hearths, on_the_gpus = blocks("docs/worker.md", "bash")
    shell(folder, up, on_hearths)
    env = environment(up.home.path, COMFYUI_URL=comfyui_url, HOME=str(folder))
    worker = subprocess.Popen(["bash", "-euc", on_the_gpus], cwd=folder, env=env)
    try:
        with psycopg.connect(up.run_json()["database_url"], autocommit=True) as session:
            came = "SELECT 1 FROM jobs_worker WHERE name LIKE 'gpu-7-%%' AND take_at IS NOT NULL"
            assert eventually(lambda: session.execute(came).fetchone() is not None, 60)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()


def test_the_readmes_two_commands_are_targets_of_make() -> None:
    made = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    commands = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["demo", "test", "up"]
    assert {"demo", "test", "up"} <= set(made)
