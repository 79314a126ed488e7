"""What an instance consists of beside PostgreSQL and S3: the control plane's processes and the local workers."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hearth.local.home import Home
from hearth.local.process import MARK, Part

ROOT = Path(__file__).resolve().parents[2]
CONTROL_PLANE = ("web", "tasks-fast", "tasks-slow", "sweeper", "deliverer")
NOT_THE_WORKERS = ("HEARTH_", "DATABASE_", "AWS_", "DJANGO_")


def environment(home: Home, base_url: str, host: str, port: int) -> dict[str, str]:
    """What the control plane's processes see, so that all of them read the same settings. HEARTH_URL: where others
    reach it, as behind a tunnel, if it is set."""
    url = os.environ.get("HEARTH_URL") or base_url
    known = {"HEARTH_HOME": str(home.path), "HEARTH_URL": url, "HOST": host, "PORT": str(port)}
    return {**os.environ, **known, MARK: str(home.path), "PYTHONUNBUFFERED": "1"}


def prepare(env: Mapping[str, str]) -> Part:
    """Runs once before the others: migrates and makes sure of the operator and of the local worker's key."""
    return Part(name="prepare", argv=[sys.executable, "manage.py", "prepare_local", "--json"], cwd=ROOT, env=env)


def control_plane(env: Mapping[str, str], listen_fd: int, port: int, grace_s: float) -> list[Part]:
    """listen_fd: the listening socket, which web inherits and which stays open while web is away."""
    manage = [sys.executable, "manage.py"]
    return [
        Part(
            name="web",
            argv=[sys.executable, "-m", "hearth.asgi"],
            cwd=ROOT,
            env={**env, "HEARTH_LISTEN_FD": str(listen_fd)},
            port=port,
            fds=(listen_fd,),
            grace_s=grace_s + 2,
        ),
        *(
            Part(
                name=f"tasks-{cluster}",
                argv=[*manage, "qcluster", "--skip-checks"],  # as the sweeper's and the deliverer's
                cwd=ROOT,
                env={**env, "Q_CLUSTER_NAME": cluster},
                grace_s=10.0,
            )
            for cluster in ("fast", "slow")
        ),
        Part(name="sweeper", argv=[*manage, "sweeper"], cwd=ROOT, env=env),
        Part(name="deliverer", argv=[*manage, "deliverer"], cwd=ROOT, env=env, grace_s=8.0),
    ]


def comfyui(home: Home, number: int | str, port: int) -> Part:
    """The stand-in for a GPU machine's ComfyUI."""
    name = f"comfyui-{number}"
    folder = home.folder(name)
    argv = [sys.executable, "-m", "worker.standin", "--port", str(port), "--dir", str(folder)]
    return Part(name=name, argv=argv, cwd=ROOT, env=_worker_environment(home), port=port, grace_s=2.0)


def worker(home: Home, number: int, worker_env: Mapping[str, str], comfyui_url: str, comfyui_dir: str) -> Part:
    """comfyui_dir: ComfyUI's folder if it is the stand-in's, which the worker then keeps clean; else ""."""
    name = f"worker-{number}"
    env = {
        **_worker_environment(home),
        "RUNPOD_PING_INTERVAL": "5000",
        "HEARTH_GRACE_S": os.environ.get("HEARTH_GRACE_S", "8"),  # less than this part's own
        **worker_env,
        "COMFYUI_URL": comfyui_url,
        **({"COMFYUI_DIR": comfyui_dir} if comfyui_dir else {}),
        "HEARTH_WORKER_NAME": f"local-{number}",
        "HOME": str(home.folder(name)),  # without a ~/.runpod/config.toml, whose key would win
    }
    # An idle one ends at once. What a killed one ran is lost for Hearth and runs again.
    return Part(name=name, argv=[sys.executable, "-m", "worker"], cwd=ROOT, env=env, grace_s=15.0)


def _worker_environment(home: Home) -> dict[str, str]:
    """Ours without the control plane's secrets: workflows run there."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THE_WORKERS)}
    allowed = {name: os.environ[name] for name in ("HEARTH_URL_ALLOW",) if name in os.environ}
    return {**env, **allowed, MARK: str(home.path), "PYTHONUNBUFFERED": "1"}
