"""5,000 clients that wait by runsync on one web process: what each costs, and how soon the right one is woken."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import cast

import aiohttp
import uvloop

from benchmarks.bench import Bench
from benchmarks.load import request, whole
from benchmarks.measure import Figure, Row, quantile
from benchmarks.processes import pss_bytes
from benchmarks.tenants import Place, new_place
from benchmarks.wire import workflow_body
from jobs.models import Job

WAITERS = 5_000
WAKES, AT_ONCE = 300, 500  # of one round
BATCH = 100  # connections opened at once: they fit into any backlog
PATIENCE_S = 60.0


def waiting(bench: Bench) -> Row:
    """One tenant's jobs are ended one by one by a fake worker; of the others each purges its own, all at once."""
    place = new_place(tenants=1 + bench.rounds, dialect="raw")
    return uvloop.run(_row(bench, place))


async def _row(bench: Bench, place: Place) -> Row:
    web = bench.instance.restart_web()  # one that has no memory to spare from earlier rows
    waiters, at_once = bench.count(WAITERS, 200), bench.count(AT_ONCE, 20)
    many, *few = place.api_keys
    async with aiohttp.ClientSession(bench.instance.url) as session:
        crowd = Crowd(bench.instance.port, place, session)
        await crowd.grow(many, BATCH)  # so that threads, connections and what is loaded late are there
        await crowd.purge(many)
        before = pss_bytes(web)
        for api_key in few:
            await crowd.grow(api_key, at_once)
        await crowd.grow(many, waiters - at_once * len(few))
        each_kb = (pss_bytes(web) - before) / waiters / 1000
        wakes = [await crowd.wake_one_by_one(bench.count(WAKES, 10)) for _ in range(bench.rounds)]
        purged = [await crowd.purge(api_key) for api_key in few]
        await crowd.purge(many)
        crowd.leave()
    woken, after = ([[pair[side] for pair in times] for times in wakes] for side in (0, 1))
    p50, p99 = ([quantile(times, part) for times in woken] for part in (0.5, 0.99))
    after_p99 = [quantile(times, 0.99) for times in after]
    figures = [
        Figure(name=f"memory of each of {waiters:,}", unit="KB", rounds=[each_kb], at_most=25),
        Figure(name="job-done sent → the waiter's answer, p50", unit="ms", rounds=p50),
        Figure(name="the same, p99", unit="ms", rounds=p99, at_most=5),
        Figure(name="of it after job-done was answered, p99", unit="ms", rounds=after_p99),
        Figure(name=f"purge of {at_once} sent → the last one's answer", unit="ms", rounds=purged),
    ]
    return Row(figures=figures, raw={"woken_ms": woken, "after_ms": after})


class Waiter(asyncio.Protocol):
    """A client that has sent its runsync. It calls `came` with its job's id when the answer is there."""

    def __init__(self, sent: bytes, came: Callable[[str], None]) -> None:
        self._sent, self._came, self._got = sent, came, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if whole(self._got):
            self._came(json.loads(self._got.partition(b"\r\n\r\n")[2])["id"])


class Crowd:
    """All who wait, and the fake worker that ends their jobs."""

    def __init__(self, port: int, place: Place, session: aiohttp.ClientSession) -> None:
        self.came: dict[str, float] = {}  # when, by job
        self._port, self._place, self._session = port, place, session
        self._news = asyncio.Event()
        self._open: list[asyncio.BaseTransport] = []

    def _note(self, job: str) -> None:
        self.came[job] = time.perf_counter()
        self._news.set()

    async def grow(self, api_key: str, count: int) -> None:
        """So many more that wait, no faster than their jobs are written."""
        path = f"{self._place.path}/runsync?wait=300000"
        sent = request("POST", path, api_key, workflow_body()).encode("latin-1")
        loop = asyncio.get_running_loop()
        for done in range(0, count, BATCH):
            made = [
                loop.create_connection(lambda: Waiter(sent, self._note), "127.0.0.1", self._port)
                for _ in range(min(BATCH, count - done))
            ]
            self._open += [transport for transport, _ in await asyncio.gather(*made)]
            await self._all_written()

    async def _all_written(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(Job.all_tenants.filter(endpoint=self._place.endpoint).count) < len(
                self._open
            ):
                await asyncio.sleep(0.005)

    async def wake_one_by_one(self, count: int) -> list[tuple[float, float]]:
        """ms from the job-done of each job to its waiter's answer, and from the answer to that job-done."""
        return [await self._wake(job) for job in await self._take(count)]

    async def _take(self, count: int) -> list[str]:
        jobs: list[str] = []
        while len(jobs) < count:
            size = min(BATCH, count - len(jobs))
            path = f"{self._place.path}/job-take-batch/fake?batch_size={size}&job_in_progress=1"
            async with self._session.get(path, headers=self._worker) as answer:
                jobs += [job["id"] for job in await answer.json()]
        return jobs

    async def _wake(self, job: str) -> tuple[float, float]:
        sent = time.perf_counter()
        path = f"{self._place.path}/job-done/fake/{job}?isStream=false"
        async with self._session.post(path, data=b'{"output": {"is": "done"}}', headers=self._worker) as answer:
            answer.raise_for_status()
        answered = time.perf_counter()
        await self._until(lambda: job in self.came)
        return (self.came[job] - sent) * 1000, (self.came[job] - answered) * 1000

    async def purge(self, api_key: str) -> float:
        """ms until the last one whose job is purged has its answer."""
        before, sent = len(self.came), time.perf_counter()
        headers = {"Authorization": f"Bearer {api_key}"}
        async with self._session.post(f"{self._place.path}/purge-queue", headers=headers) as answer:
            removed = (await answer.json())["removed"]
        await self._until(lambda: len(self.came) == before + removed)
        return (max(self.came.values()) - sent) * 1000

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._news.clear()
                await self._news.wait()

    @property
    def _worker(self) -> dict[str, str]:
        return {"Authorization": self._place.worker_key}

    def leave(self) -> None:
        for transport in self._open:
            transport.abort()
