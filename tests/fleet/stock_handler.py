"""What a test's stock worker runs: `python stock_handler.py async|sync <concurrency> <folder for marks>`.

A job's input says what to do: {"do": …, "only": <attempt number, others just return>, …}. On its own machine this
would be a customer's handler: it knows nothing of Hearth.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import runpod.serverless

KIND, CONCURRENCY, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])


def mark(what: str, job: dict[str, Any]) -> None:
    (FOLDER / f"{what}-{job['id']}").touch()


def attempt_number(job: dict[str, Any]) -> int:
    return int(job["id"].rpartition("-e1")[2].removeprefix("-a") or 1)


def result(job: dict[str, Any]) -> Any:
    """What the job returns, once it has slept."""
    given = job["input"]
    if given.get("only", attempt_number(job)) != attempt_number(job):
        return {"attempt": attempt_number(job)}
    match given.get("do", "return"):
        case "raise":
            raise ValueError(given["value"])
        case "exit":
            os._exit(3)
        case "bytes":
            return b"no JSON"
        case "nan":
            return float("nan")
        case "progress":
            for n, step in enumerate(given["value"], 1):
                runpod.serverless.progress_update(job, {"fraction": n / 10, "step": step})
    return given.get("value")


def seconds(job: dict[str, Any]) -> float:
    return float(job["input"].get("seconds", 0)) if job["input"].get("only", 1) == attempt_number(job) else 0


async def async_handler(job: dict[str, Any]) -> Any:
    mark("began", job)
    if job["input"].get("do") == "progress":
        result(job)
    try:
        await asyncio.sleep(seconds(job))
    except asyncio.CancelledError:
        mark("stopped", job)
        raise
    return result(job)


def sync_handler(job: dict[str, Any]) -> Any:
    mark("began", job)
    time.sleep(seconds(job))
    return result(job)


if __name__ == "__main__":
    handler = async_handler if KIND == "async" else sync_handler
    sys.argv = sys.argv[:1]  # the SDK reads the rest
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: CONCURRENCY})
