"""A server that plays Hearth to the real runpod SDK, and `python -m worker` as a process beside it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.worker.fakes import FakeHearth


class Fleet(FakeHearth):
    """FakeHearth that hands out jobs to the SDK as well, and notes what comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[dict[str, Any]] = []
        self.stops: list[str] = []
        self.done: dict[str, Any] = {}
        self.progress: list[dict[str, Any]] = []
        self.progress_hangs = False
        self.pings: list[tuple[str, str]] = []
        self.takes = self.held = 0
        self.hold_s = 1.0
        routes = {"job-take": self._take, "job-take-batch": self._take, "job-stop": self._stop, "ping": self._ping}
        self.app.add_routes([web.get(f"/v2/ep/{name}/{{worker}}", route) for name, route in routes.items()])
        self.app.add_routes([web.post("/v2/ep/job-done/{worker}/{job}", self._done)])

    def environment(self, comfyui: str) -> dict[str, str]:
        base = f"{self.url}/v2/ep"
        return {
            **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
            **{"HOME": "/nonexistent", "COMFYUI_URL": comfyui, "HEARTH_WORKER_NAME": "gpu-1"},
            **{"RUNPOD_AI_API_KEY": "hwk_secret", "RUNPOD_PING_INTERVAL": "1000", "HEARTH_RETRY_S": "2"},
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=x",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=x",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=x",
        }

    async def _take(self, request: web.Request) -> web.Response:
        self.takes += 1
        self.held += 1
        try:
            for _ in range(int(self.hold_s / 0.02)):
                if request.transport is None:  # the worker hung up
                    break
                if self.queue:
                    jobs, self.queue = self.queue, []
                    return web.json_response(jobs)
                await asyncio.sleep(0.02)
            return web.Response(status=204)
        finally:
            self.held -= 1

    async def _stop(self, request: web.Request) -> web.Response:
        for _ in range(int(self.hold_s / 0.02)):
            if self.stops:
                stops, self.stops = self.stops, []
                return web.json_response({"jobsToStop": stops})
            await asyncio.sleep(0.02)
        return web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        if body.get("status") == "IN_PROGRESS":
            self.progress.append(body["output"])
            await asyncio.sleep(60 if self.progress_hangs else 0)
        else:
            self.done[request.match_info["job"]] = body
        return web.Response()

    async def _ping(self, request: web.Request) -> web.Response:
        self.pings.append((request.match_info["worker"], request.query.get("job_id", "")))
        return web.Response()


@asynccontextmanager
async def worker_process(env: dict[str, str], log: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as out:
        command = (sys.executable, "-m", "worker", *arguments)
        process = await asyncio.create_subprocess_exec(*command, env=env, stdout=out, stderr=out)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
