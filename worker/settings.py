"""Every environment variable that the worker itself reads; docs/worker.md lists them. All times are seconds."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from worker.bucket import Bucket
from worker.wire import networks, type_of_network

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """start_s: ComfyUI may take so long to come up. http_s: one HTTP answer, tried http_tries times in a row.
    silence_s: so long without a word on the socket, then HTTP is asked. busy_s: so long behind somebody else's
    prompt. stop_s: so long ComfyUI is waited for after a cancel. hearth_retry_s: so long Hearth may be away.
    grace_s: so long a running job may go on after SIGTERM. catalogue_s: so often ComfyUI is asked for its nodes while
    it is idle. comfyui_dir: ComfyUI's base directory where this process can delete files in it, else empty.
    comfyui_restart: a shell command that restarts ComfyUI, or empty. input_max_bytes, input_s: of all
    files together that are fetched for a job."""

    comfyui_url: str = "http://127.0.0.1:8188"
    start_s: float = 120
    http_s: float = 10
    http_tries: int = 6
    silence_s: float = 30
    busy_s: float = 300
    stop_s: float = 10
    hearth_retry_s: float = 60
    grace_s: float = 25
    catalogue_s: float = 60
    input_max_bytes: int = 1024**3
    input_s: float = 300
    url_allow: tuple[type_of_network, ...] = ()
    bucket: Bucket | None = None
    comfyui_dir: str = ""
    comfyui_restart: str = ""
    worker_name: str = ""
    log_level: str = "INFO"
    pulls_jobs: bool = False


def read(env: Mapping[str, str]) -> Settings:
    """ValueError names the variable that cannot be used."""
    default = Settings()
    return Settings(
        comfyui_url=_url(env, "COMFYUI_URL", default.comfyui_url),
        start_s=_seconds(env, "COMFYUI_START_S", default.start_s),
        http_s=_seconds(env, "COMFYUI_HTTP_S", default.http_s),
        http_tries=max(1, int(_seconds(env, "COMFYUI_HTTP_TRIES", default.http_tries))),
        silence_s=_seconds(env, "COMFYUI_SILENCE_S", default.silence_s),
        busy_s=_seconds(env, "COMFYUI_BUSY_S", default.busy_s),
        stop_s=_seconds(env, "COMFYUI_STOP_S", default.stop_s),
        hearth_retry_s=_seconds(env, "HEARTH_RETRY_S", default.hearth_retry_s),
        grace_s=_seconds(env, "HEARTH_GRACE_S", default.grace_s),
        catalogue_s=_seconds(env, "HEARTH_CATALOGUE_S", default.catalogue_s),
        input_max_bytes=int(_number(env, "HEARTH_INPUT_MAX_BYTES", default.input_max_bytes, 1e12)),
        input_s=_seconds(env, "HEARTH_INPUT_S", default.input_s),
        url_allow=_networks(env, "HEARTH_URL_ALLOW"),
        bucket=_bucket(env),
        comfyui_dir=_folder(env, "COMFYUI_DIR"),
        comfyui_restart=env.get("COMFYUI_RESTART", ""),
        worker_name=env.get("HEARTH_WORKER_NAME", ""),
        log_level=_level(env, "HEARTH_LOG_LEVEL", default.log_level),
        pulls_jobs="RUNPOD_WEBHOOK_GET_JOB" in env,
    )


def _url(env: Mapping[str, str], name: str, default: str) -> str:
    url = env.get(name) or default
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{name}={url!r} is not an http(s) URL")
    return url.rstrip("/")


def _folder(env: Mapping[str, str], name: str) -> str:
    folder = env.get(name, "")
    if folder and not os.path.isdir(folder):
        raise ValueError(f"{name}={folder!r} is no folder here; give ComfyUI's base directory, or leave it out")
    return folder


def _level(env: Mapping[str, str], name: str, default: str) -> str:
    level = (env.get(name) or default).upper()
    if level not in LEVELS:
        raise ValueError(f"{name}={level!r} is none of {', '.join(LEVELS)}")
    return level


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    return _number(env, name, default, 1e7)


def _number(env: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < most:
        raise ValueError(f"{name}={text!r} is not a number above 0")
    return value


def _networks(env: Mapping[str, str], name: str) -> tuple[type_of_network, ...]:
    try:
        return networks(item.strip() for item in env.get(name, "").split(",") if item.strip())
    except ValueError as error:
        raise ValueError(f"{name}: {error}; list networks as in 10.0.0.0/8,127.0.0.0/8") from error


def _bucket(env: Mapping[str, str]) -> Bucket | None:
    """BUCKET_* as on RunPod's own workers; BUCKET_ENDPOINT_URL is what turns them on."""
    if not env.get("BUCKET_ENDPOINT_URL"):
        return None
    try:
        return Bucket.of(
            endpoint_url=env["BUCKET_ENDPOINT_URL"],
            name=env.get("BUCKET_NAME"),
            access_id=env.get("BUCKET_ACCESS_KEY_ID"),
            access_secret=env.get("BUCKET_SECRET_ACCESS_KEY"),
            region=env.get("BUCKET_REGION"),
        )
    except ValueError as error:
        raise ValueError(f"BUCKET_* settings: {error}") from error
