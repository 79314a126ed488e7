"""One running instance, looked at and hurt from many sides."""

import json
import os
import re
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.local.running import Running, eventually, get, hearth, is_gone, new_home

PARTS = {"postgres", "s3", "web", "tasks-fast", "tasks-slow", "sweeper", "deliverer", "comfyui-1", "worker-1"}


@pytest.fixture(scope="module")
def up() -> Iterator[Running]:
    folder = new_home()
    running = Running(folder / ("long" * 25))  # too long for a Unix socket in it
    yield running
    running.signal(signal.SIGTERM)
    shutil.rmtree(folder)


def test_it_is_healthy_when_it_says_ready(up: Running) -> None:
    assert up.health() == {"status": "ok", "db": "ok", "s3": "ok", "worker": "ok"}


def test_its_console_tells_the_steps_with_seconds_the_login_and_what_to_try(up: Running) -> None:
    assert re.search(r"^ +\d+\.\d s  PostgreSQL is up$", up.console, re.M)
    assert re.search(r"^ +\d+\.\d s  All is healthy$", up.console, re.M)
    login = json.loads(up.home.file("admin.json").read_text())
    assert f"{login['username']} / {login['password']}" in up.console
    assert f"curl -s {up.url}/healthz" in up.console
    if os.geteuid() == 0:
        assert "system user pgserver" in up.console


def test_run_json_lists_the_pid_and_port_of_each_part(up: Running) -> None:
    run = up.run_json()
    assert run["base_url"] == up.url
    assert run["pid"] == up.pid
    assert set(run["parts"]) == PARTS
    assert run["parts"]["web"]["port"] == up.port
    for part in run["parts"].values():
        assert psutil.Process(part["pid"]).create_time() == pytest.approx(part["started"], abs=1)


@pytest.mark.parametrize("name", ["run.json", "admin.json", "s3.json", "secrets/HEARTH_SECRET_KEY"])
def test_what_holds_a_secret_is_the_owners(up: Running, name: str) -> None:
    assert stat.S_IMODE(up.home.file(name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["s3", "postgres", "logs", "sockets", "secrets", "comfyui-1"])
def test_no_other_user_can_look_into_a_folder(up: Running, name: str) -> None:
    folder = up.home.sockets() if name == "sockets" else up.home.file(name)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_listens_on_this_machine_only(up: Running) -> None:
    listening = [
        one.laddr.ip
        for process in up.processes()
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_workers_do_not_see_the_control_planes_secrets(up: Running) -> None:
    for name in ("worker-1", "comfyui-1"):
        assert not {"HEARTH_SECRET_KEY", "HEARTH_SEAL_KEYS", "DATABASE_URL"} & set(up.part(name).environ())
    assert up.part("worker-1").environ()["HOME"] == str(up.home.file("worker-1"))


def test_manage_py_uses_the_running_database_and_knows_the_base_url(up: Running) -> None:
    made = up.manage("create_tenant", "by-hand", "--json")
    assert set(made) == {"tenant", "endpoint", "base_url", "api_key", "worker_key"}
    assert (made["endpoint"], made["base_url"]) == ("comfyui", up.url)
    assert up.part("postgres").is_running()


def test_a_second_start_in_the_same_home_names_the_first(up: Running) -> None:
    done = hearth(up.home.path, "up", PORT="0")
    assert done.returncode == 1
    assert f"pid {up.pid}" in done.stderr
    assert up.health()["status"] == "ok"


def test_a_port_that_another_instance_uses_is_a_clear_error(up: Running, home_path: Path) -> None:
    done = hearth(home_path, "up", PORT=str(up.port))
    assert done.returncode == 2
    assert f"port {up.port} of 127.0.0.1" in done.stderr
    assert "PORT=" in done.stderr
    assert not (home_path / "postgres").exists()


@pytest.mark.parametrize("name", ["web", "tasks-fast", "sweeper", "deliverer", "comfyui-1"])
def test_a_killed_part_comes_back(up: Running, name: str) -> None:
    before = up.part(name)
    before.kill()
    assert eventually(lambda: up.pid_of(name) != before.pid)
    assert f"{name} (pid {before.pid}) ended, code -9" in up.console
    assert eventually(lambda: f"{name} is started again" in up.console)


def test_requests_wait_while_web_is_away(up: Running) -> None:
    up.part("web").kill()
    assert up.health()["db"] == "ok"  # asked at once: no new web can have started yet


@pytest.mark.parametrize("name", ["postgres", "s3"])
def test_the_data_parts_come_back_and_so_does_health(up: Running, name: str) -> None:
    before = up.part(name)
    before.kill()
    assert eventually(lambda: up.pid_of(name) != before.pid)

    def healthy() -> bool:
        try:
            return get(f"{up.url}/healthz") == {"status": "ok", "db": "ok", "s3": "ok", "worker": "ok"}
        except OSError:
            return False

    assert eventually(healthy, 40)


def test_a_worker_that_dies_takes_its_ping_process_along(up: Running) -> None:
    worker = up.part("worker-1")
    assert eventually(lambda: bool(worker.children()))
    pings = worker.children()
    worker.kill()
    assert eventually(lambda: all(map(is_gone, pings)))
    assert eventually(lambda: up.pid_of("worker-1") != worker.pid)


def test_a_connection_from_another_machine_is_not_taken(up: Running) -> None:
    with socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex(("127.0.0.2", up.port)) != 0
