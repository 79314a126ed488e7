"""What keeps an instance from starting is said, with what to do, and nothing is started."""

import socket
from pathlib import Path

import pytest

from hearth.local.process import leftovers
from tests.local.running import hearth


def test_a_home_with_a_space_is_refused(tmp_path: Path) -> None:
    done = hearth(tmp_path / "my home", "up", PORT="0")
    assert done.returncode == 1
    assert f"HEARTH_HOME is {str(tmp_path / 'my home')!r}" in done.stderr
    assert not (tmp_path / "my home").exists()


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_busy_port_is_a_clear_error_before_anything_starts(home_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = hearth(home_path, command, PORT=str(port))
    assert done.returncode != 0
    assert f"port {port} of 127.0.0.1: Address already in use" in done.stderr
    assert f"PORT={port + 1}" in done.stderr
    assert not (home_path / "postgres").exists()
    assert leftovers(home_path) == []


def test_with_a_database_given_and_no_keys_it_refuses_to_start(home_path: Path) -> None:
    done = hearth(home_path, "up", PORT="0", DATABASE_URL="postgres://nobody@127.0.0.1:1/none")
    assert done.returncode == 1
    assert "HEARTH_SECRET_KEY is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_is_no_number_is_a_clear_error(home_path: Path) -> None:
    done = hearth(home_path, "up", PORT="eighty")
    assert done.returncode == 1
    assert "eighty" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_word_shows_the_usage(home_path: Path) -> None:
    done = hearth(home_path, "upp")
    assert done.returncode == 1
    assert "up | demo" in done.stderr
