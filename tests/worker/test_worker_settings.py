"""The environment, and what of it is refused at the start."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker import sdk, settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings.read({}) == settings.Settings()


def test_every_variable_is_read(tmp_path: Path) -> None:
    read = settings.read(
        {
            **{"COMFYUI_URL": "http://gpu:8188/", "COMFYUI_START_S": "1", "COMFYUI_HTTP_S": "2.5"},
            **{"COMFYUI_HTTP_TRIES": "3", "COMFYUI_SILENCE_S": "4", "COMFYUI_BUSY_S": "5", "COMFYUI_STOP_S": "6"},
            **{"HEARTH_RETRY_S": "7", "HEARTH_URL_ALLOW": "10.0.0.0/8, ::1/128", "HEARTH_WORKER_NAME": "w"},
            "COMFYUI_DIR": str(tmp_path),
        }
    )
    assert (read.comfyui_url, read.start_s, read.http_s, read.http_tries) == ("http://gpu:8188", 1, 2.5, 3)
    assert (read.silence_s, read.busy_s, read.stop_s, read.hearth_retry_s) == (4, 5, 6, 7)
    assert [str(network) for network in read.url_allow] == ["10.0.0.0/8", "::1/128"]
    assert (read.worker_name, read.comfyui_dir) == ("w", str(tmp_path))


@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused_by_name(value: str) -> None:
    with pytest.raises(ValueError, match="COMFYUI_START_S"):
        settings.read({"COMFYUI_START_S": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEARTH_URL_ALLOW", "10.0.0.0/99"),
        ("HEARTH_LOG_LEVEL", "loud"),
        ("COMFYUI_URL", "127.0.0.1:8188"),
        ("COMFYUI_DIR", "/no/such"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        settings.read({name: value})


def test_the_bucket_settings_go_together() -> None:
    env = {"BUCKET_ENDPOINT_URL": "https://b.s3.eu-west-1.amazonaws.com", "BUCKET_ACCESS_KEY_ID": "AK"}
    with pytest.raises(ValueError, match=r"BUCKET_\* settings: accessSecret is missing"):
        settings.read(env)
    read = settings.read(env | {"BUCKET_SECRET_ACCESS_KEY": "s", "BUCKET_REGION": "mars-1"})
    assert read.bucket
    assert (read.bucket.place.bucket, read.bucket.place.region) == ("b", "mars-1")


def test_a_worker_of_hearth_has_a_new_id_at_each_start() -> None:
    read = settings.read({"HEARTH_WORKER_NAME": "gpu-1"})
    envs: list[dict[str, str]] = [{"RUNPOD_POD_ID": "old"}, {}]
    for env in envs:
        sdk.prepare(env, read)
    ids = [env["RUNPOD_POD_ID"] for env in envs]
    assert all(id.startswith("gpu-1-") for id in ids)
    assert ids[0] != ids[1]
    assert envs[0]["RUNPOD_SKIP_AUTO_SYSTEM_CHECKS"] == "true"


def test_on_runpod_the_id_and_the_checks_stay_runpods() -> None:
    env = {"RUNPOD_POD_ID": "pod"}
    sdk.prepare(env, settings.read(env))
    assert env == {"RUNPOD_POD_ID": "pod", "RUNPOD_LOG_LEVEL": "INFO"}


def test_a_log_level_that_was_chosen_stays() -> None:
    env = {"RUNPOD_DEBUG_LEVEL": "ERROR"}
    sdk.prepare(env, settings.read(env))
    assert "RUNPOD_LOG_LEVEL" not in env


@pytest.mark.parametrize(("worker_name", "warned"), [("gpu-1", True), ("", False)])
def test_a_key_file_of_the_sdk_that_would_win_is_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    worker_name: str,
    warned: bool,
) -> None:
    """The SDK sends the api_key in it in place of the worker key. On RunPod's cloud it is RunPod's."""
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod" / "config.toml").write_text('[default]\napi_key = "rpa_x"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sdk, "die_with_parent", lambda: None)
    started: list[object] = []
    serverless = SimpleNamespace(start=started.append, progress_update=None)
    monkeypatch.setitem(sys.modules, "runpod", SimpleNamespace(serverless=serverless))
    monkeypatch.setitem(sys.modules, "runpod.serverless", serverless)
    sdk.start(settings.read({"HEARTH_WORKER_NAME": worker_name} if worker_name else {}))
    assert ("~/.runpod/config.toml exists" in caplog.text) is warned
    assert started


def test_the_worker_imports_neither_django_nor_what_is_slow() -> None:
    code = "import sys, worker.sdk; print(sorted({'django', 'runpod', 'boto3', 'hearth', 'jobs'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_wrong_setting_stops_the_start_in_one_line() -> None:
    env = {"COMFYUI_HTTP_S": "soon", "PATH": "/usr/bin"}
    out = subprocess.run([sys.executable, "-m", "worker"], env=env, capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert out.stderr == "worker: COMFYUI_HTTP_S='soon' is not a number above 0\n"
