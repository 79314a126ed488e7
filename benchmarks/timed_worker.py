"""Our worker as it is, which also says on its log what Hearth cannot see: when the SDK had a job from its poll, and
when it called the handler with it: `TIMED <attempt id> <taken> <called>`, in seconds since the epoch.
"""

import logging
import os
import sys
import time
from typing import Any

from worker import sdk, settings
from worker.handler import Worker

taken: dict[str, float] = {}


def main() -> None:
    read = settings.read(os.environ)
    logging.basicConfig(stream=sys.stdout, level=read.log_level, format="%(asctime)s %(levelname)s %(message)s")
    sdk.prepare(os.environ, read)
    time_takes()
    time_calls()
    sdk.start(read)


def time_takes() -> None:
    from runpod.serverless.modules import rp_scale

    get_job = rp_scale.get_job

    async def timed(*args: Any) -> Any:
        jobs = await get_job(*args)
        taken.update({job["id"]: time.time() for job in jobs or ()})
        return jobs

    rp_scale.get_job = timed


def time_calls() -> None:
    handle = Worker.handle

    async def timed(self: Worker, job: dict[str, Any]) -> dict[str, Any]:
        print(f"TIMED {job['id']} {taken.pop(job['id'])} {time.time()}", flush=True)
        return await handle(self, job)

    Worker.handle = timed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
