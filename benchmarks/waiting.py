"""5,000 that wait on one web process: clients in runsync, followers of event streams, workers in job-take. What each
costs, and how soon the right one is woken."""

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
from jobs.models import Job, Worker

WAITERS = 5_000
WAKES, AT_ONCE = 300, 500  # of one round
BATCH = 100  # connections opened at once: they fit into any backlog
PATIENCE_S = 60.0
Times = list[list[float]]


def waiting(bench: Bench) -> Row:
    return uvloop.run(_row(bench, _place(bench), "runsync", Runsync))


def following(bench: Bench) -> Row:
    return uvloop.run(_row(bench, _place(bench), "events", Streams))


def polling(bench: Bench) -> Row:
    return uvloop.run(_polls(bench, _place(bench)))


def _place(bench: Bench) -> Place:
    return new_place(tenants=1 + bench.rounds, dialect="raw")


async def _row(bench: Bench, place: Place, name: str, kind: "type[Crowd]") -> Row:
    """One tenant's jobs are ended one by one by a fake worker; of the others each purges its own, all at once."""
    web = bench.instance.pids()["web"] if bench.quick else bench.instance.restart_web()  # none to spare of other rows
    waiters, at_once = bench.count(WAITERS, 60), bench.count(AT_ONCE, 5)
    many, *few = place.api_keys
    async with aiohttp.ClientSession(bench.instance.url) as session:
        crowd = kind(bench.instance.port, place, session)
        await crowd.grow(many, bench.count(BATCH, 10))  # so that threads, connections and what is loaded late are there
        await crowd.purge(many)
        before = pss_bytes(web)
        for api_key in few:
            await crowd.grow(api_key, at_once)
        await crowd.grow(many, waiters - at_once * len(few))
        each_kb = (pss_bytes(web) - before) / waiters / 1000
        wakes = [await crowd.wake_one_by_one(bench.count(WAKES, 3)) for _ in range(bench.rounds)]
        purged = [await crowd.purge(api_key) for api_key in few]
        await crowd.purge(many)
        crowd.leave()
    woken, after = ([[pair[side] for pair in times] for times in wakes] for side in (0, 1))
    after_p99 = [quantile(times, 0.99) for times in after]
    figures = [
        *_common(name, waiters, each_kb, f"{name}: job-done sent → the waiter's answer", woken),
        Figure(name="of it after job-done was answered, p99", unit="ms", rounds=after_p99),
        Figure(name=f"{name}: purge of {at_once} sent → the last one's answer", unit="ms", rounds=purged),
    ]
    return Row(figures=figures, raw={f"{name}_woken_ms": woken, f"{name}_after_ms": after})


def _common(
    name: str, waiters: int, each_kb: float, what: str, woken: Times, p99_aim: float | None = 5
) -> list[Figure]:
    p50, p99 = ([quantile(times, part) for times in woken] for part in (0.5, 0.99))
    return [
        Figure(name=f"{name}: memory of each of {waiters:,}", unit="KB", rounds=[each_kb], at_most=25),
        Figure(name=f"{what}, p50", unit="ms", rounds=p50),
        Figure(name="the same, p99", unit="ms", rounds=p99, at_most=p99_aim),
    ]


async def _polls(bench: Bench, place: Place) -> Row:
    """Workers poll, anew as soon as they are answered 204; a job that is submitted is some worker's."""
    web = bench.instance.restart_web()
    waiters = bench.count(WAITERS, 60)
    async with aiohttp.ClientSession(bench.instance.url) as session:
        crowd = Polls(bench.instance.port, place, session)
        await crowd.grow("", bench.count(BATCH, 10))
        before = pss_bytes(web)
        await crowd.grow("", waiters)
        each_kb = (pss_bytes(web) - before) / waiters / 1000
        woken = [await crowd.submit_one_by_one(bench.count(WAKES, 3)) for _ in range(bench.rounds)]
        crowd.leave()
    figures = _common("job-take", waiters, each_kb, "job-take: run sent → a worker has the job", woken, None)
    return Row(figures=figures, raw={"job_take_woken_ms": woken})


class Waiter(asyncio.Protocol):
    """A client that has sent its request. It calls `came` with its job's id when the answer is there."""

    def __init__(self, sent: bytes, came: Callable[[str], None]) -> None:
        self._sent, self._came, self._got = sent, came, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if whole(self._got):
            self._came(json.loads(self._got.partition(b"\r\n\r\n")[2])["id"])


class Follower(Waiter):
    """It follows a job by its event stream, up to the job's end."""

    def data_received(self, data: bytes) -> None:
        self._got += data
        if b"event: end\n" in self._got and self._got.endswith(b"0\r\n\r\n"):
            said = self._got.partition(b"event: end\n")[2].partition(b"data: ")[2].partition(b"\n")[0]
            self._came(json.loads(said)["id"])


class Poller(Waiter):
    """A worker that polls until it has a job."""

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._got.startswith(b"HTTP/1.1 204 ") and self._got.endswith(b"\r\n\r\n"):
            self._got = b""
            self._transport.write(self._sent)
        elif self._got.startswith(b"HTTP/1.1 200 ") and whole(self._got):
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
        """So many more that wait, and are seen to."""
        raise NotImplementedError

    async def _connect(self, waiters: list[Waiter]) -> None:
        loop = asyncio.get_running_loop()
        made = [loop.create_connection(lambda one=one: one, "127.0.0.1", self._port) for one in waiters]
        self._open += [transport for transport, _ in await asyncio.gather(*made)]

    async def _all_there(self, count: Callable[[], int]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(count) < len(self._open):
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


class Runsync(Crowd):
    async def grow(self, api_key: str, count: int) -> None:
        path = f"{self._place.path}/runsync?wait=300000"
        sent = request("POST", path, api_key, workflow_body()).encode("latin-1")
        for done in range(0, count, BATCH):
            await self._connect([Waiter(sent, self._note) for _ in range(min(BATCH, count - done))])
            await self._all_there(Job.all_tenants.filter(endpoint=self._place.endpoint).count)


class Streams(Crowd):
    async def grow(self, api_key: str, count: int) -> None:
        for done in range(0, count, BATCH):
            jobs = [await self._submit(api_key) for _ in range(min(BATCH, count - done))]
            sent = [request("GET", f"/api/v1/jobs/{job}/events", api_key).encode("latin-1") for job in jobs]
            made = [Follower(each, self._note) for each in sent]
            await self._connect([*made])
            async with asyncio.timeout(PATIENCE_S):
                while not all(b"event: queue" in one._got for one in made):
                    await asyncio.sleep(0.005)

    async def _submit(self, api_key: str) -> str:
        headers = {"Authorization": f"Bearer {api_key}"}
        async with self._session.post(f"{self._place.path}/run", data=workflow_body(), headers=headers) as answer:
            job: str = (await answer.json())["id"]
            return job


class Polls(Streams):
    async def grow(self, api_key: str, count: int) -> None:
        for done in range(0, count, BATCH):
            first = len(self._open)
            names = range(first, first + min(BATCH, count - done))
            paths = [f"{self._place.path}/job-take/w{name}?job_in_progress=0" for name in names]
            sent = [request("GET", path, self._place.worker_key).encode("latin-1") for path in paths]
            await self._connect([Poller(each, self._note) for each in sent])
            await self._all_there(Worker.objects.filter(endpoint=self._place.endpoint).count)

    async def submit_one_by_one(self, count: int) -> list[float]:
        """ms from the submission of each job until a worker has it."""
        api_key = self._place.api_keys[0]
        return [await self._taken(api_key) for _ in range(count)]

    async def _taken(self, api_key: str) -> float:
        sent = time.perf_counter()
        job = await self._submit(api_key)
        await self._until(lambda: job in self.came)
        return (self.came[job] - sent) * 1000
