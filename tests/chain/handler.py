"""What the worker behind both Hearths runs, by the stock `runpod` SDK: `python handler.py <file>`. Each run is a line
of the file, whatever Hearth thinks of it: the input's number, and the id under which the worker had it."""

import asyncio
import os
import sys
from typing import Any

import runpod.serverless

RUNS = sys.argv[1]


async def handler(job: dict[str, Any]) -> Any:
    given = job["input"]
    line = f"{given['n']} {job['id']}\n".encode()
    file = os.open(RUNS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)
    runpod.serverless.progress_update(job, {"fraction": 0.5})
    await asyncio.sleep(given["seconds"])
    if given["ends"] == "FAILED":
        raise ValueError(f"as asked, {given['n']}")
    return {"n": given["n"]}


if __name__ == "__main__":
    sys.argv = sys.argv[:1]  # the SDK reads the rest
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: 4})
