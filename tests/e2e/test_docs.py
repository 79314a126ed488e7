"""Every command of the README and of docs/ is run, and the settings table is the settings'."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.local.instance import ROOT
from tests.e2e.instance import Instance
from tests.js import node
from tests.local.running import environment
from tests.webhooks.receiver import Receiver

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(name: str, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall((ROOT / name).read_text()) if found == language]


@pytest.fixture(scope="module")
def folder(up: Instance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the repository looks from inside, whose files the commands may write."""
    made = tmp_path_factory.mktemp("checkout")
    for name in ("manage.py", "examples", "hearth", "accounts", "storage", "jobs", "worker"):
        (made / name).symlink_to(ROOT / name)
    venv = Path(sys.prefix)
    (made / ".venv").symlink_to(venv)
    return made


def run(folder: Path, up: Instance, argv: list[str]) -> str:
    env = environment(up.home.path, HEARTH_URL_ALLOW="127.0.0.0/8")  # as the instance itself
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(text: str, up: Instance) -> str:
    return text.replace("http://127.0.0.1:8000", up.url)


def test_the_readmes_commands_and_its_python_run(up: Instance, folder: Path) -> None:
    shell, env = blocks("README.md", "bash")
    said = run(folder, up, ["bash", "-euo", "pipefail", "-c", here(shell, up)])
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
    create = ".venv/bin/python manage.py create_tenant curl --manage --json | tail -n 1"
    made = run(folder, up, ["bash", "-c", create])
    env = f"HEARTH_URL={up.url} HEARTH_API_KEY={json.loads(made)['api_key']}"
    for shell in blocks("docs/api.md", "bash"):
        said = run(folder, up, ["env", *env.split(), "bash", "-euo", "pipefail", "-c", shell])
        assert "X-Amz-Signature" in said or {"id", "results", "name"} & set(json.loads(said))
    for python in blocks("docs/api.md", "python"):
        assert "X-Amz-Signature" in run(folder, up, ["env", *env.split(), ".venv/bin/python", "-c", python])


def test_the_operators_commands_run(up: Instance, folder: Path) -> None:
    with Receiver() as receiver:
        for shell in blocks("docs/operations.md", "bash"):
            command = shell.replace("https://hooks.example.com/hearth", receiver.url)
            said = run(folder, up, ["bash", "-euo", "pipefail", "-c", command])
            assert said or command.endswith(" clearsessions\n")  # which says nothing
    assert [got.headers["hearth-event"] for got in receiver.got] == ["test"]


def test_the_readmes_two_commands_are_targets_of_make() -> None:
    made = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    commands = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert [command.split()[1] for command in commands] == ["demo", "test", "up"]
    assert {"demo", "test", "up"} <= set(made)


def test_the_settings_table_is_complete() -> None:
    source = "".join((ROOT / "hearth" / name).read_text() for name in ("settings.py", "sign_in.py"))
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z0-9_]+)"', source)) | set(re.findall(r'secret\("([A-Z_]+)"\)', source))
    written = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docs" / "settings.md").read_text()))
    assert read | {"HEARTH_HOME"} == written


def test_the_links_of_the_docs_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", file.read_text()):
            assert (file.parent / link).exists(), f"{file.name}: {link}"
