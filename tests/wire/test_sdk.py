"""The real `runpod` SDK as a client, Endpoint and AsyncioEndpoint, with only its base URL changed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import orjson
import pytest
import requests

from accounts.models import Tenant
from tests.cast import WORKFLOW, new_client, new_place
from tests.wire.api import Api, aside, finish, job_row, until, whole_window


@pytest.fixture(scope="module", autouse=True)
def runpod(web: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.getbasetemp()))  # without a ~/.runpod/config.toml
        import runpod

        patch.setattr(runpod, "endpoint_url_base", f"{web.url}/v2")
        patch.setattr(runpod, "api_key", "none")
        yield runpod


def endpoint_of(runpod: Any, api: Api) -> Any:
    return runpod.Endpoint(api.endpoint, api_key=api.client.api_key)


@pytest.fixture
def endpoint(runpod: Any, acme: Api) -> Any:
    return endpoint_of(runpod, acme)


def limited(http: httpx.Client, **limits: int) -> Api:
    """A new tenant with these limits."""
    api = Api.of(http, new_client(new_place()))
    Tenant.objects.filter(pk=api.client.tenant.pk).update(**limits)
    return api


@pytest.fixture(scope="module", autouse=True)
def patient(runpod: Any, http: httpx.Client) -> "Future[tuple[list[int], float]]":
    """A status over the rate, asked for before all tests: the statuses that the SDK was answered with, and seconds."""
    api = limited(http, requests_per_10s=1)
    endpoint = endpoint_of(runpod, api)
    whole_window()
    job = endpoint.run({"n": 1})
    job.status()
    answered: list[int] = []

    def heard(response: requests.Response, **_: Any) -> None:
        answered.extend(tried.status for tried in response.raw.retries.history)
        answered.append(response.status_code)

    def ask() -> tuple[list[int], float]:
        begun = time.monotonic()
        assert job.status() == "IN_QUEUE"
        return answered, time.monotonic() - begun

    endpoint.rp_client.rp_session.hooks["response"] = heard
    return aside(ask)


def with_async_endpoint(runpod: Any, api: Api, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `use(endpoint)` comes to, in a session of its own."""

    async def main() -> Any:
        async with runpod.http_client.ClientSession() as session:
            return await use(runpod.AsyncioEndpoint(api.endpoint, session, api_key=api.client.api_key))

    return asyncio.run(main())


def test_run_status_output(endpoint: Any, acme: Api) -> None:
    job = endpoint.run({"input": {"n": 1}, "policy": {"executionTimeout": 5000}, "webhook": "https://h/"})
    assert job.status() == "IN_QUEUE"
    claimed = acme.take()
    assert job.status() == "IN_PROGRESS"
    finish(acme, claimed, {"seen": 1})
    assert (job.status(), job.output(timeout=5)) == ("COMPLETED", {"seen": 1})
    found = job_row(job.job_id)
    assert (bytes(found.payload.input), found.execution_timeout_ms) == (b'{"n": 1}', 5000)
    assert found.payload.webhook == "https://h/"


def test_an_idempotency_key_goes_by_the_clients_headers(endpoint: Any) -> None:
    endpoint.rp_client.headers["Idempotency-Key"] = "a"
    assert len({endpoint.run({"n": 1}).job_id for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("given", "kept"),
    [({"n": 1}, {"n": 1}), ({}, {}), ({"input": {}}, {"input": {}}), ({"input": [1], "x": 2}, [1])],
)
def test_an_input_comes_as_the_sdk_wraps_it(endpoint: Any, given: dict[str, Any], kept: object) -> None:
    job = endpoint.run(given)
    assert orjson.loads(job_row(job.job_id).payload.input) == kept


def test_run_sync_returns_the_output(endpoint: Any, acme: Api) -> None:
    waiting = aside(endpoint.run_sync, {"input": {"n": 1}}, timeout=30)
    finish(acme, acme.take(), {"seen": 1})
    assert waiting.result(20) == {"seen": 1}


@pytest.mark.parametrize("error", ["boom", {"error_type": "ValueError"}])
def test_a_failure_is_no_output(endpoint: Any, acme: Api, error: object) -> None:
    waiting = aside(endpoint.run_sync, {"input": {"n": 1}}, timeout=30)
    job = acme.take()
    finish(acme, job, error=error)
    assert waiting.result(20) is None
    assert acme.status(f"sync-{job.job}-e1")["status"] == "FAILED"


def test_run_sync_outlives_a_restart_of_hearth(endpoint: Any, acme: Api, web: Any) -> None:
    """It is answered at the restart with the state so far, and then the SDK asks for the status itself."""
    waiting = aside(endpoint.run_sync, {"input": {"n": 1}}, timeout=30)
    claimed = acme.take()
    web.restart()
    finish(acme, claimed, {"seen": 1})
    assert waiting.result(20) == {"seen": 1}


def test_cancel(endpoint: Any, acme: Api) -> None:
    job = endpoint.run({"n": 1})
    acme.take()
    assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
    assert job.status() == "CANCELLED"
    assert job.output() is None


def test_run_sync_of_a_job_that_is_cancelled_is_no_output(endpoint: Any, acme: Api) -> None:
    """The SDK does not know CANCELLED as an end there, and asks for the status once more."""
    waiting = aside(endpoint.run_sync, {"input": {"n": 1}}, timeout=30)
    job = acme.take()
    acme.post(f"cancel/sync-{job.job}-e1")
    assert waiting.result(20) is None


def test_a_refusal_has_no_field_that_the_async_sdk_would_take_for_success(runpod: Any, acme: Api) -> None:
    """It ignores the HTTP status and reads `id`."""

    async def use(endpoint: Any) -> Any:
        endpoint.headers["Authorization"] = "Bearer nonsense"
        return await endpoint.run({"n": 1})

    with pytest.raises(KeyError, match="id"):
        with_async_endpoint(runpod, acme, use)


def test_health_and_purge(endpoint: Any, acme: Api, globex: Api) -> None:
    endpoint.run({"n": 1})
    other = globex.run()
    assert endpoint.health()["jobs"]["inQueue"] == 1
    assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}
    assert endpoint.health()["jobs"]["inQueue"] == 0
    assert globex.status(other)["status"] == "IN_QUEUE"


def test_a_wrong_key_is_told_as_one(runpod: Any, acme: Api) -> None:
    for key in ("rpa_nonsense", acme.place.worker_key):
        with pytest.raises(RuntimeError, match="401"):
            runpod.Endpoint(acme.endpoint, api_key=key).run({"n": 1})


def test_globex_cannot_reach_acmes_job(runpod: Any, endpoint: Any, globex: Api) -> None:
    job = endpoint.run({"n": 1})
    job.rp_client = runpod.Endpoint(globex.endpoint, api_key=globex.client.api_key).rp_client
    for call in (job.status, job.cancel, job.output):
        with pytest.raises(requests.HTTPError, match="404"):
            call()
    assert job_row(job.job_id).state == "IN_QUEUE"


def test_a_refused_request_raises(endpoint: Any) -> None:
    with pytest.raises(requests.HTTPError, match="400"):
        endpoint.run({"input": 1, "policy": {"ttl": 1}})


LIMITS = [
    ({"requests_per_10s": 0}, "rate_limited"),
    ({"max_queued": 0}, "queue_full"),
    ({"gpu_s_a_month": 0}, "monthly_limit"),
]


@pytest.mark.parametrize(("limit", "code"), LIMITS)
def test_what_is_over_a_limit_raises_and_is_not_sent_again(
    runpod: Any, http: httpx.Client, limit: dict[str, int], code: str
) -> None:
    """The SDK repeats no POST. Its error has the response: which limit it is, and when to come again."""
    api = limited(http, **limit)
    endpoint = endpoint_of(runpod, api)
    for call in (endpoint.run, endpoint.run_sync):
        with pytest.raises(requests.HTTPError, match="429") as raised:
            call({"n": 1})
        response = raised.value.response
        assert response.raw.retries.history == ()
        assert response.json()["code"] == code
        assert api.client.tenant.name in response.json()["error"]
        assert int(response.headers["Retry-After"]) >= 1
    assert not api.client.tenant.jobs.exists()


def test_the_async_sdk_takes_a_429_for_an_answer_without_id(runpod: Any, http: httpx.Client) -> None:
    async def use(endpoint: Any) -> Any:
        return await endpoint.run({"n": 1})

    with pytest.raises(KeyError, match="id"):
        with_async_endpoint(runpod, limited(http, max_queued=0), use)


def test_the_references_request_by_the_sdk(runpod: Any, own_acme: Api) -> None:
    endpoint = endpoint_of(runpod, own_acme)
    waiting = aside(endpoint.run_sync, {"input": {"tobase64": False, "workflow": WORKFLOW}}, timeout=30)
    output = {"files": ["https://b.example.com/1.png"], "datas": {"9": {"text": ["a"]}}}
    finish(own_acme, own_acme.take(), output)
    assert waiting.result(20) == output


def test_async_run_status_output(runpod: Any, acme: Api) -> None:
    async def use(endpoint: Any) -> list[Any]:
        job = await endpoint.run({"n": 1})
        seen = [await job.status()]
        claimed = await asyncio.to_thread(lambda: aside(acme.take).result())
        seen.append(await job.status())
        await asyncio.to_thread(lambda: aside(finish, acme, claimed, {"seen": 1}).result())
        return [*seen, await job.output(timeout=5), await job.status()]

    found = with_async_endpoint(runpod, acme, use)
    assert found == ["IN_QUEUE", "IN_PROGRESS", {"seen": 1}, "COMPLETED"]


def test_async_cancel_health_and_purge(runpod: Any, acme: Api, globex: Api) -> None:
    globex.run()

    async def use(endpoint: Any) -> list[Any]:
        job = await endpoint.run({"n": 1})
        cancelled = await job.cancel()
        await endpoint.run({"n": 2})
        health = await endpoint.health()
        return [cancelled["status"], await job.status(), health["jobs"]["inQueue"], await endpoint.purge_queue()]

    found = with_async_endpoint(runpod, acme, use)
    assert found == ["CANCELLED", "CANCELLED", 1, {"removed": 1, "status": "completed"}]


def test_many_async_jobs_at_once(runpod: Any, acme: Api) -> None:
    async def use(endpoint: Any) -> list[str]:
        jobs = await asyncio.gather(*(endpoint.run({"n": n}) for n in range(20)))
        return [job.job_id for job in jobs]

    ids = with_async_endpoint(runpod, acme, use)
    assert len(set(ids)) == 20
    assert until(lambda: acme.get("health").json()["jobs"]["inQueue"]) == 20


def test_a_status_over_the_rate_is_asked_for_again_when_the_answer_says(
    patient: "Future[tuple[list[int], float]]",
) -> None:
    """The SDK does so for GETs over http:// only."""
    answered, seconds = patient.result(30)
    assert answered == [429, 200]
    assert seconds < 12
