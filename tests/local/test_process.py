import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from hearth.local.process import LOG_MAX_BYTES, MARK, Child, Part, end_leftovers, leftovers, stop
from tests.local.running import eventually, is_gone

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
WITH_A_CHILD = "sleep 1000 & echo $!; wait"


def shell(script: str, home: Path, **fields: object) -> Child:
    home.mkdir(parents=True, exist_ok=True)
    env = {"PATH": os.environ["PATH"], MARK: str(home)}
    part = Part(name="shell", argv=["/bin/sh", "-c", script], env=env, **fields)  # type: ignore[arg-type]
    return Child(part, home / "shell.log")


def test_an_ended_child_tells_its_code_and_its_last_lines(home_path: Path) -> None:
    child = shell("echo one; echo two >&2; exit 7", home_path)
    assert eventually(lambda: child.ended() == 7)
    assert child.last_lines() == "one\ntwo"


def test_a_child_that_does_not_listen_is_killed_after_its_grace(home_path: Path) -> None:
    child = shell(STUBBORN, home_path, grace_s=0.3)
    assert eventually(lambda: child.last_lines() == "ready")
    begun = time.monotonic()
    stop([child])
    assert child.ended() == -signal.SIGKILL
    assert time.monotonic() - begun >= 0.3


def test_whoever_is_in_a_hurry_waits_for_no_grace(home_path: Path) -> None:
    child = shell(STUBBORN, home_path, grace_s=1000)
    assert eventually(lambda: child.last_lines() == "ready")
    stop([child], hurry=lambda: True)
    assert child.ended() == -signal.SIGKILL


def test_what_a_child_has_started_ends_with_it(home_path: Path) -> None:
    child = shell(WITH_A_CHILD, home_path)
    assert eventually(lambda: child.last_lines() != "")
    grandchild = psutil.Process(int(child.last_lines()))
    os.kill(child.pid, signal.SIGKILL)
    assert eventually(lambda: child.ended() == -signal.SIGKILL)
    assert eventually(lambda: is_gone(grandchild))


def test_ctrl_c_in_the_terminal_does_not_reach_a_child(home_path: Path) -> None:
    child = shell("sleep 1000", home_path)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    stop([child])


def test_a_child_dies_with_a_killed_supervisor(home_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from tests.local.test_process import shell
print(shell("sleep 1000", Path({str(home_path)!r})).pid, flush=True)
time.sleep(1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: is_gone(child))


def test_leftovers_of_this_home_are_found_and_ended_and_no_others(home_path: Path) -> None:
    ours, stubborn = shell("sleep 1000", home_path / "a"), shell(STUBBORN, home_path / "a")
    other = shell("sleep 1000", home_path / "b")
    assert eventually(lambda: stubborn.last_lines() == "ready")
    assert {process.pid for process in leftovers(home_path / "a")} >= {ours.pid, stubborn.pid}
    assert end_leftovers(home_path / "a", grace_s=0.5) >= 2
    assert leftovers(home_path / "a") == []
    assert other.ended() is None
    stop([ours, stubborn, other])


def test_a_log_that_has_grown_is_put_aside_at_the_next_start(home_path: Path) -> None:
    home_path.mkdir()
    (home_path / "shell.log").write_bytes(b"x" * (LOG_MAX_BYTES + 1))
    child = shell("echo new", home_path)
    assert eventually(lambda: child.ended() == 0)
    assert (home_path / "shell.log").read_text() == "new\n"
    assert (home_path / "shell.log.1").stat().st_size > LOG_MAX_BYTES
