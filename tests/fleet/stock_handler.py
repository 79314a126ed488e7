"""What a test's stock worker runs: `python stock_handler.py <kind> <concurrency> <folder for marks>`.

Kinds: async, sync; and generators: yields, async-yields, yields-all (which returns the aggregate too).

A job's input says what to do: {"do": …, "only": <attempt number, others just return>, …}. On its own machine this
would be a customer's handler: it knows nothing of Hearth.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
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


def chunks(job: dict[str, Any]) -> list[Any]:
    """What the job yields before it does what it is to do."""
    return list(job["input"].get("chunks", []))


def yields(job: dict[str, Any]) -> Iterator[Any]:
    mark("began", job)
    yield from chunks(job)
    time.sleep(seconds(job))
    result(job)


async def async_yields(job: dict[str, Any]) -> AsyncIterator[Any]:
    mark("began", job)
    for chunk in chunks(job):
        yield chunk
    try:
        await asyncio.sleep(seconds(job))
    except asyncio.CancelledError:
        mark("stopped", job)
        raise
    result(job)


HANDLERS = {
    "async": async_handler,
    "sync": sync_handler,
    "yields": yields,
    "yields-all": yields,
    "async-yields": async_yields,
}

if __name__ == "__main__":
    sys.argv = sys.argv[:1]  # the SDK reads the rest
    config = {"handler": HANDLERS[KIND], "concurrency_modifier": lambda _: CONCURRENCY}
    runpod.serverless.start(config | {"return_aggregate_stream": KIND == "yields-all"})
