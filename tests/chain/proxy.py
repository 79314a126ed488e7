"""What stands between two Hearths and is faulty: it drops, delays, doubles and reorders what passes, both ways."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from hearth.local.seaweed import free_ports

HOP = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}
DELAY_S, LATER_S = (0.1, 2.0), (0.5, 5.0)
Answer = tuple[int, bytes, str]


@dataclass
class Proxy:
    """`share` of the requests meet a fault. calls: near's to far's API; news: far's webhooks to near."""

    seed: int
    share: float
    dealt: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.calls, self.news = free_ports(2)
        self.targets: dict[int, str] = {}
        self._random = random.Random(self.seed)
        self._loop = asyncio.new_event_loop()
        self._later: set[asyncio.Task[None]] = set()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), name="proxy", daemon=True).start()
        assert started.wait(10)

    @property
    def calls_url(self) -> str:
        return f"http://127.0.0.1:{self.calls}"

    @property
    def news_url(self) -> str:
        return f"http://127.0.0.1:{self.news}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        started.set()
        self._loop.run_forever()

    async def _serve(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for port in (self.calls, self.news):
            await web.TCPSite(runner, "127.0.0.1", port).start()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        port = request.transport.get_extra_info("sockname")[1]
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}

        async def forward() -> Answer | None:
            url = f"{self.targets[port]}{request.path_qs}"
            try:
                async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                    return answer.status, await answer.read(), answer.headers.get("Content-Type", "")
            except (aiohttp.ClientError, TimeoutError):
                return None

        answer = await self._deal(forward)
        if answer is None:
            if request.transport:  # else its client has hung up by now
                request.transport.abort()
            return web.Response()
        return web.Response(status=answer[0], body=answer[1], headers={"Content-Type": answer[2]})

    async def _deal(self, forward: Callable[[], Awaitable[Answer | None]]) -> Answer | None:
        fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
        self.dealt[fault or "passed"] += 1
        wait_s = self._random.uniform(*DELAY_S)
        later_s = self._random.uniform(*LATER_S)
        if fault == "dropped":
            return None
        if fault == "refused":
            return 502, b"bad gateway", "text/plain"
        if fault == "delayed":
            await asyncio.sleep(wait_s)
        if fault == "doubled":
            first, _ = await asyncio.gather(forward(), forward())
            return first
        answer = await forward()
        if fault == "again later":
            task = asyncio.create_task(self._again(forward, later_s))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        return None if fault == "answer dropped" else answer

    async def _again(self, forward: Callable[[], Awaitable[Answer | None]], after_s: float) -> None:
        await asyncio.sleep(after_s)
        await forward()


FAULTS = ("dropped", "refused", "answer dropped", "delayed", "doubled", "again later")
