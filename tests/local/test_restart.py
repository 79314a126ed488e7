"""Whole instances that are stopped, killed and started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hearth.local.instance import ROOT
from hearth.local.process import leftovers
from tests.local.running import Running, environment, eventually, hearth, is_gone, manage


def test_data_outlives_kill_9_and_a_stop_leaves_nothing_behind(home_path: Path) -> None:
    first = Running(home_path)
    made = first.manage("create_tenant", "acme", "--json")
    login = first.home.file("admin.json").read_text()
    s3 = first.home.s3()["endpoint_url"]
    first.signal(signal.SIGKILL)

    begun = time.monotonic()
    second = Running(home_path, PORT=str(first.port), WORKERS="2")  # at once, while the old parts still end
    assert time.monotonic() - begun < 30  # on a free machine 6: here other tests run beside
    assert second.health()["status"] == "ok"
    assert {"worker-1", "worker-2", "comfyui-1", "comfyui-2"} <= set(second.run_json()["parts"])
    again = manage(home_path, "create_tenant", "acme", "--json")
    assert again.returncode != 0, "the tenant of the first run is not there"
    assert made["tenant"] == "acme"
    assert second.home.file("admin.json").read_text() == login
    assert second.home.s3()["endpoint_url"] == s3

    processes = second.processes()
    sockets = second.home.sockets()
    assert second.signal(signal.SIGTERM) == 0
    assert [process for process in processes if not is_gone(process)] == []
    assert leftovers(home_path) == []
    assert second.run_json()["parts"] == {}
    assert "pid" not in second.run_json()
    assert not sockets.exists()
    ports = second.home.read("s3-ports.json").values()
    assert [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port + 10000}.sock")] == []


def test_ctrl_c_while_it_starts_stops_what_has_started(home_path: Path) -> None:
    argv = [sys.executable, "-m", "hearth.local", "up"]
    starting = subprocess.Popen(argv, cwd=ROOT, env=environment(home_path, PORT="0"), stdout=subprocess.DEVNULL)
    assert eventually(lambda: bool(leftovers(home_path)))
    started = psutil.Process(starting.pid).children(recursive=True)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(timeout=60) == 0
    assert [process for process in started if not is_gone(process)] == []
    assert leftovers(home_path) == []


def test_the_demo_prints_the_result_and_stops_what_it_started(home_path: Path) -> None:
    done = hearth(home_path, "demo", PORT="0")
    assert done.returncode == 0, done.stdout + done.stderr
    result, saved = done.stdout.splitlines()[-2:]
    assert result.startswith("RESULT http://127.0.0.1:")
    word, path, size, digest = saved.split()
    assert (word, Path(path).parent, int(size)) == ("SAVED", home_path / "demo", Path(path).stat().st_size)
    assert len(digest) == 64
    for step in ("All is healthy", "Created the tenant demo-", "COMPLETED", "Downloaded and checked: PNG 128x96"):
        assert step in done.stdout
    assert leftovers(home_path) == []


def test_the_demo_at_runpod_goes_through_two_hearths_and_stops_both(home_path: Path) -> None:
    done = hearth(home_path, "demo", PORT="0", BACKEND="runpod")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].startswith("RESULT http://127.0.0.1:")
    for step in (
        "RunPod is played by a second Hearth",
        "RunPod's endpoint",
        "to backend runpod",
        "Downloaded and checked",
    ):
        assert step in done.stdout
    assert leftovers(home_path / "runpod" / "near") == []
    assert leftovers(home_path / "runpod" / "far") == []


@pytest.mark.parametrize(
    ("env", "said"),
    [({"BACKEND": "lambda"}, "there are fleet and runpod"), ({"BACKEND": "runpod", "RUNPOD_API_KEY": "x"}, "Set both")],
)
def test_the_demo_says_what_it_lacks(home_path: Path, env: dict[str, str], said: str) -> None:
    done = hearth(home_path, "demo", **env)
    assert done.returncode != 0
    assert said in done.stderr
