"""Imports point one way: worker.wire ← accounts ← storage ← jobs ← hearth; the worker imports no Django (design.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("worker", "accounts", "storage", "jobs", "hearth")
SHARED = {"worker.wire", "worker.guard", "worker.kinds", "worker.paths", "worker.place"}  # the worker's too
MAY_IMPORT = {
    "worker": {"worker"},
    "accounts": {"accounts", *SHARED},
    "storage": {"storage", "accounts", *SHARED},
    "jobs": {"jobs", "storage", "accounts", *SHARED},
    "hearth": {"hearth", "jobs", "storage", "accounts", *SHARED},
}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(app: str) -> list[Path]:
    return sorted((ROOT / app).rglob("*.py"))


def wrong(app: str) -> list[str]:
    allowed = MAY_IMPORT[app]
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files(app)
        for name in imported(file)
        if name.split(".")[0] in APPS and not any(name == there or name.startswith(f"{there}.") for there in allowed)
    ]


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_only_what_stands_below_it(app: str) -> None:
    assert wrong(app) == []


@pytest.mark.parametrize("module", ["django", "psycopg", "rest_framework"])
def test_the_worker_imports_nothing_of_the_control_plane(module: str) -> None:
    found = [file for file in files("worker") for name in imported(file) if name.split(".")[0] == module]
    assert found == []


def test_the_control_plane_does_not_import_the_runpod_sdk() -> None:
    """It costs 2 s and 20 packages; the demo, which is a client, runs it."""
    apps = [file for app in APPS[1:] for file in files(app) if file.name != "demo.py"]
    assert [file for file in apps for name in imported(file) if name.split(".")[0] == "runpod"] == []


def test_what_both_sides_share_needs_the_standard_library_only() -> None:
    shared = ("wire", "kinds", "paths", "place")
    roots = {name.split(".")[0] for module in shared for name in imported(ROOT / "worker" / f"{module}.py")}
    assert roots <= set(sys.stdlib_module_names)


def test_backends_never_touch_models() -> None:
    assert not any("models" in name for file in files("jobs/backends") for name in imported(file))


def test_only_web_loads_the_pages() -> None:
    """They are 15 to 20 MB of a process."""
    load = "import sys, django; django.setup(); import jobs.sweep, jobs.tasks, jobs.webhooks.deliverer; "
    load += "print(*{name.split('.')[1] for name in sys.modules if name.startswith('jobs.')})"
    done = subprocess.run([sys.executable, "-c", load], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"sweep", "tasks", "webhooks"} <= set(done.stdout.split())
    assert not {"admin", "api"} & set(done.stdout.split())


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        str(file.relative_to(ROOT))
        for app in ("accounts", "storage", "jobs")
        for file in files(app)
        if "os.environ" in file.read_text() or "getenv" in file.read_text()
    }
    assert readers == set()
