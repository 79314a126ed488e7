import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from hearth.local import postgres
from hearth.local.home import Home
from hearth.local.instance import ROOT
from hearth.local.process import Child, stop
from tests.local.running import environment, eventually, manage

USE_THE_DATABASE = "from django.db import connection; connection.cursor().execute('SELECT 1'); print('in', flush=True)"


@pytest.fixture
def home(home_path: Path) -> Iterator[Home]:
    home = Home(home_path)
    yield home
    home.clear_sockets()


def started(home: Home) -> Child:
    child = Child(postgres.part(home, lambda line: None), home.folder("logs") / "postgres.log")
    assert eventually(child.is_ready, 60), child.last_lines(40)
    return child


def query(home: Home, statement: str) -> str:
    with psycopg.connect(home.database_url(), autocommit=True) as session:
        cursor = session.execute(statement.encode())
        return str((cursor.fetchone() or [""])[0]) if cursor.description else ""


def test_committed_rows_outlive_a_kill_and_the_leftover_is_ended_first(home: Home) -> None:
    first = started(home)
    query(home, "CREATE TABLE kept AS SELECT 1 AS n")
    second = started(home)  # as a supervisor does whose predecessor was killed and left its server
    assert eventually(lambda: first.ended() is not None)
    assert query(home, "SELECT n FROM kept") == "1"
    os.kill(second.pid, signal.SIGKILL)
    assert eventually(lambda: second.ended() is not None)
    third = started(home)
    assert query(home, "SELECT n FROM kept") == "1"
    stop([third])
    assert not postgres.answers(home)


def test_a_pid_file_whose_pid_is_another_process_does_not_stop_the_start(home: Home) -> None:
    stop([started(home)])
    (home.file("postgres") / "postmaster.pid").write_text(f"{os.getpid()}\n{home.file('postgres')}\n0\n5432\n\n\n\n")
    stop([started(home)])


def test_half_of_an_initdb_is_never_used(home: Home) -> None:
    home.folder("postgres.new")
    (home.file("postgres.new") / "PG_VERSION").write_text("18\n")
    child = started(home)
    assert query(home, "SHOW server_encoding") == "UTF8"
    assert query(home, "SHOW max_connections") == "300"
    assert query(home, "SHOW listen_addresses") == ""
    stop([child])


def test_only_the_owner_and_the_server_can_open_the_sockets(home: Home) -> None:
    child = started(home)
    assert home.sockets().stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert psutil.Process(child.pid).username() == postgres.SYSTEM_USER
    stop([child])


def in_shell(home: Home, code: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, env=environment(home.path), stdout=pipe, stderr=pipe, text=True)


def test_manage_py_without_an_instance_has_a_database_and_waits_for_another_that_has_one(home: Home) -> None:
    first = in_shell(home, f"import time; {USE_THE_DATABASE}; time.sleep(2)")
    assert first.stdout
    assert first.stdout.readline() == "in\n"
    second = in_shell(home, f"import time; {USE_THE_DATABASE}; time.sleep(2); {USE_THE_DATABASE}")
    for one in (first, second):
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
    assert out == "in\nin\n"
    assert f"waiting for `manage.py shell` (pid {first.pid})" in err
    assert not postgres.answers(home)
    assert not home.file("postgres/postmaster.pid").exists()


def test_a_killed_manage_py_takes_its_database_along(home: Home) -> None:
    command = in_shell(home, f"import time; {USE_THE_DATABASE}; time.sleep(100)")
    assert command.stdout
    assert command.stdout.readline() == "in\n"
    assert postgres.answers(home)
    command.kill()
    command.communicate()
    assert eventually(lambda: not home.file("postgres/postmaster.pid").exists())


def test_help_starts_no_database(home: Home) -> None:
    assert manage(home.path, "--version").returncode == 0
    assert not home.file("postgres").exists()


def test_with_a_database_given_keys_are_asked_for_and_never_made(home: Home) -> None:
    done = manage(home.path, "check", DATABASE_URL="postgres://nobody@127.0.0.1:1/none")
    assert done.returncode != 0
    assert "HEARTH_SECRET_KEY is not set" in done.stderr
    assert not home.file("secrets").exists()
