"""Generator handlers of the stock SDK (runpod.md 1.5, 1.6), read by RunPod's Python and JS SDKs as they are."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from accounts.models import ApiKey
from jobs.ids import JobId
from jobs.models import Chunk
from tests.cast import Client, kinds, new_client, new_place, row
from tests.fleet.stock import StockWorker
from tests.fleet.wire import aside, chunks, public, status, until
from tests.js.node import Call

KINDS = ("yields", "async-yields", "yields-all")
CHUNKS = [{"tok": 0}, "t1", None, ["é漢"], 4]
pytestmark = [pytest.mark.xdist_group("stock worker"), pytest.mark.usefixtures("sweeper")]
Clients = dict[str, Client]


@pytest.fixture(scope="module")
def workers(quick: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StockWorker]]:
    """One of each kind, on an endpoint of its own; of our dialect too, since chunks are any worker's."""
    folder = tmp_path_factory.mktemp("yields")
    started = {kind: StockWorker(quick, new_place(), kind, folder / kind, kind) for kind in KINDS}
    yield {kind: worker.wait_until_it_polls() for kind, worker in started.items()}
    for worker in started.values():
        worker.end()


@pytest.fixture
def clients(workers: dict[str, StockWorker]) -> Clients:
    return {kind: new_client(worker.place) for kind, worker in workers.items()}


def end(url: str, client: Client, job: JobId) -> Any:
    """The job's status once it has ended."""
    until(lambda: row(job).state not in ("IN_QUEUE", "IN_PROGRESS"), 30)
    return status(url, client, job)


def ended(url: str, clients: Clients, given: dict[str, Any]) -> dict[str, tuple[JobId, Any]]:
    """The same job for each kind of handler, side by side: its id and how it ended."""
    jobs = {kind: client.submit(given) for kind, client in clients.items()}
    return {kind: (job, end(url, clients[kind], job)) for kind, job in jobs.items()}


def test_every_chunk_is_in_the_stream_and_the_aggregate_only_where_asked_for(quick: str, clients: Clients) -> None:
    for kind, (job, found) in ended(quick, clients, {"chunks": CHUNKS}).items():
        assert (found["status"], found["output"]) == ("COMPLETED", CHUNKS if kind == "yields-all" else [])
        assert chunks(quick, clients[kind], job) == CHUNKS
        assert kinds(job) == ["created", "handed", "completed"]


def test_a_generator_that_raises_fails_the_job_and_leaves_its_chunks(quick: str, clients: Clients) -> None:
    given = {"chunks": CHUNKS, "do": "raise", "value": "mid-stream"}
    for kind, (job, found) in ended(quick, clients, given).items():
        assert (found["status"], "output" in found) == ("FAILED", False)
        assert found["error"].startswith("handler: mid-stream \ntraceback: ")
        assert chunks(quick, clients[kind], job) == CHUNKS


def test_an_error_that_is_yielded_ends_the_job_and_leaves_what_came_before(quick: str, clients: Clients) -> None:
    for kind, (job, found) in ended(quick, clients, {"chunks": ["a", {"error": "yielded"}, "never"]}).items():
        assert (found["status"], found["error"], "output" in found) == ("FAILED", "yielded", False)
        assert chunks(quick, clients[kind], job) == ["a"]


def test_a_cancel_stops_a_generator_and_its_stream_ends(quick: str, clients: Clients, workers: Any) -> None:
    client = clients["async-yields"]
    job = client.submit({"chunks": CHUNKS, "seconds": 60})
    until(lambda: Chunk.objects.filter(job_id=job.uuid).count() == len(CHUNKS))
    client.cancel(job)
    until(lambda: workers["async-yields"].has("stopped", job), 5)
    found = status(quick, client, job, "stream")
    assert (found["status"], len(found["stream"])) == ("CANCELLED", len(CHUNKS))


@pytest.fixture
def runpod(quick: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))  # without a ~/.runpod/config.toml
    import runpod

    monkeypatch.setattr(runpod, "endpoint_url_base", f"{quick}/v2")
    monkeypatch.setattr(runpod, "api_key", "none")
    return runpod


def python_sdk(runpod: Any, client: Client, given: Any) -> tuple[list[Any], Any, str]:
    """What stream(), output() and status() give."""
    job = runpod.Endpoint(client.place.name, api_key=client.api_key).run({"input": given})
    return list(job.stream()), job.output(timeout=10), job.status()


def async_python_sdk(runpod: Any, client: Client, given: Any) -> tuple[list[Any], Any, str]:
    async def main() -> tuple[list[Any], Any, str]:
        async with runpod.http_client.ClientSession() as session:
            endpoint = runpod.AsyncioEndpoint(client.place.name, session, api_key=client.api_key)
            job = await endpoint.run(given)
            seen = [chunk async for chunk in job.stream()]
            return seen, await job.output(timeout=10), await job.status()

    return asyncio.run(main())


def test_the_python_sdk_streams_every_kind_of_generator(runpod: Any, clients: Clients) -> None:
    given = {"chunks": CHUNKS, "seconds": 1}
    with ThreadPoolExecutor() as pool:
        asked = {
            (kind, sdk.__name__): pool.submit(sdk, runpod, client, given)
            for kind, client in clients.items()
            for sdk in (python_sdk, async_python_sdk)
        }
    for (kind, _), found in asked.items():
        assert found.result() == (CHUNKS, CHUNKS if kind == "yields-all" else [], "COMPLETED")


def test_the_python_sdks_stream_ends_when_the_generator_raises(runpod: Any, clients: Clients) -> None:
    seen, output, state = python_sdk(runpod, clients["yields"], {"chunks": CHUNKS, "do": "raise", "value": "x"})
    assert (seen, output, state) == (CHUNKS, None, "FAILED")


def test_the_js_sdk_streams_every_kind_of_generator(quick: str, clients: Clients) -> None:
    calls = []
    for client in clients.values():
        job = client.submit({"chunks": CHUNKS, "seconds": 1})
        calls.append(Call(quick, client.api_key, client.place.name, "stream", public(job)))
    for call in calls:
        said = call.said()
        assert [chunk["output"] for chunk in said.result] == CHUNKS
        assert said.requests <= len(CHUNKS) + 4, "held, as the loop does not sleep"


def test_a_cancelled_stream_ends_for_js_and_never_for_python(quick: str, runpod: Any, clients: Clients) -> None:
    """Python's stream() does not know CANCELLED: it asks once a second until it is refused."""
    client = clients["async-yields"]
    job = client.submit({"chunks": [1], "seconds": 60})
    until(lambda: Chunk.objects.filter(job_id=job.uuid).exists())
    client.cancel(job)
    endpoint = runpod.Endpoint(client.place.name, client.api_key)
    handle = runpod.endpoint.Job(client.place.name, public(job), endpoint.rp_client)
    stream = handle.stream()
    assert next(stream) == 1
    rest = aside(list, stream)
    with pytest.raises(TimeoutError):
        rest.result(3)
    call = Call(quick, client.api_key, client.place.name, "stream", public(job))
    assert (call.said().result, handle.status(), rest.done()) == ([], "CANCELLED", False)
    ApiKey.all_tenants.get(prefix=client.api_key[4:16]).revoke()
    with pytest.raises(RuntimeError, match="401"):
        rest.result(10)


def test_a_thousand_chunks_come_whole_to_who_reads_meanwhile(quick: str, clients: Clients) -> None:
    client = clients["yields"]
    job = client.submit({"chunks": list(range(1000))})
    assert aside(all_chunks, quick, client, job).result(60) == list(range(1000))
    assert kinds(job) == ["created", "handed", "completed"]


def all_chunks(url: str, client: Client, job: JobId) -> list[Any]:
    seen: list[Any] = []
    while True:
        found = status(url, client, job, "stream")
        seen += [chunk["output"] for chunk in found["stream"]]
        if found["status"] == "COMPLETED":
            return seen
