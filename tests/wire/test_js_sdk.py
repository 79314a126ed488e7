"""RunPod's JS SDK as a client, with only its base URL changed: every call, its loops and its errors."""

from typing import Any

import httpx
import pytest

from accounts.models import Tenant
from jobs.models import Chunk
from jobs.stream import PIECE_BYTES
from tests.cast import new_client, new_place
from tests.js.node import Call, Said
from tests.wire.api import Api, add_chunks, finish, job_row, until

INPUT = {"input": {"n": 1}}


def begin(api: Api, call: str, *args: Any, key: str = "") -> Call:
    return Call(str(api.http.base_url), key or api.client.api_key, api.endpoint, call, *args)


def js(api: Api, call: str, *args: Any, **how: Any) -> Any:
    """What the call returns."""
    said = begin(api, call, *args, **how).said()
    assert not said.error
    return said.result


@pytest.fixture(scope="module", autouse=True)
def patient(http: httpx.Client) -> Call:
    """A stream in which nothing happens, begun before all tests; its loop ends with the first answer."""
    api = Api.of(http, new_client(new_place()))
    return begin(api, "stream", api.run(), 1)


def test_run_status_and_its_fields(acme: Api) -> None:
    policy = {"executionTimeout": 5000, "ttl": 20_000, "lowPriority": True}
    ran = js(acme, "run", {**INPUT, "webhook": "https://example.com/", "policy": policy})
    assert ran == {"id": ran["id"], "status": "IN_QUEUE"}
    found = job_row(ran["id"])
    assert (found.execution_timeout_ms, found.ttl_ms, found.priority) == (5000, 20_000, -1)
    assert (found.payload.webhook, bytes(found.payload.input)) == ("https://example.com/", b'{"n":1}')
    finish(acme, acme.take(), {"seen": 1})
    ended = {"started": True, "completed": True, "succeeded": True, "output": {"seen": 1}}
    for call in ("status", "statusSync"):
        assert js(acme, call, ran["id"]) == acme.status(ran["id"]) | ended


def test_run_sync(acme: Api) -> None:
    call = begin(acme, "runSync", INPUT)
    finish(acme, acme.take(), {"seen": 1})
    said = call.said()
    assert (said.result["output"], said.result["succeeded"], said.requests) == ({"seen": 1}, True, 1)


def test_run_sync_of_a_job_that_fails(acme: Api) -> None:
    call = begin(acme, "runSync", INPUT)
    finish(acme, acme.take(), error="boom")
    found = call.said().result
    assert (found["status"], found["error"], found["completed"], found["succeeded"]) == ("FAILED", "boom", True, False)


def test_run_sync_goes_on_by_status_sync_until_the_end(acme: Api) -> None:
    """Its first answer comes after 2 s, each of its loop after 1 s; it does not sleep between them."""
    call = begin(acme, "runSync", INPUT, 2000)
    claimed = acme.take()
    assert call.line() == f"sync-{claimed.job}-e1: IN_PROGRESS\n"
    finish(acme, claimed, {"seen": 1})
    said = call.said()
    assert (said.result["status"], said.result["output"]) == ("COMPLETED", {"seen": 1})
    assert said.requests == 3


def test_run_sync_gives_up_after_its_time_out_and_has_not_spun(acme: Api) -> None:
    said = begin(acme, "runSync", INPUT, 1000).said()
    assert (said.result["status"], said.result["completed"]) == ("IN_QUEUE", False)
    assert 2 <= said.requests <= 3


def test_status_sync_of_a_job_that_runs_is_held(acme: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    unfinished = js(acme, "statusSync", job, 1000)
    assert (unfinished["status"], unfinished["completed"]) == ("IN_PROGRESS", False)
    call = begin(acme, "statusSync", job)
    finish(acme, claimed)
    assert call.said().result["completed"] is True


def streamed(said: Said) -> list[Any]:
    assert not said.error
    return [chunk["output"] for chunk in said.result]


def test_a_stream_gives_every_chunk_once_and_does_not_spin(acme: Api) -> None:
    job = acme.run()
    call, claimed = begin(acme, "stream", job), acme.take()
    for n in range(20):
        add_chunks(acme, claimed, {"tok": n})
        until(lambda: not Chunk.objects.filter(job_id=claimed.job, sent_at=None).exists())
    finish(acme, claimed, [])
    said = call.said()
    assert streamed(said) == [{"tok": n} for n in range(20)]
    assert said.requests <= 21


@pytest.mark.parametrize("size", [1, PIECE_BYTES // 2])
def test_a_stream_that_is_read_after_the_end_is_whole(acme: Api, size: int) -> None:
    """Its loop stops at the first final status, so that comes with the last piece."""
    job = acme.run()
    claimed = acme.take()
    add_chunks(acme, claimed, *(f"{n}" * size for n in range(6)))
    finish(acme, claimed, [])
    assert [chunk[0] for chunk in streamed(begin(acme, "stream", job).said())] == list("012345")


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_stream_ends_with_the_job_however_it_ends(acme: Api, end: str) -> None:
    job = acme.run()
    call, claimed = begin(acme, "stream", job), acme.take()
    add_chunks(acme, claimed, 1)
    if end == "fail":
        finish(acme, claimed, error="boom")
    else:
        acme.post(f"cancel/{job}")
    assert streamed(call.said()) == [1]


def test_cancel(acme: Api) -> None:
    job = acme.run()
    assert js(acme, "cancel", job) == {"id": job, "status": "CANCELLED"}
    found = js(acme, "status", job)
    assert (found["status"], found["completed"], found["succeeded"]) == ("CANCELLED", True, False)


def test_health_and_purge(acme: Api, globex: Api) -> None:
    acme.run()
    other = globex.run()
    health = js(acme, "health")
    assert set(health["jobs"]) == {"completed", "failed", "inProgress", "inQueue", "retried"}
    assert {"idle", "initializing", "ready", "running", "throttled"} <= set(health["workers"])
    assert health["jobs"]["inQueue"] == 1
    assert js(acme, "purgeQueue") == {"removed": 1, "status": "completed"}
    assert globex.status(other)["status"] == "IN_QUEUE"


@pytest.mark.parametrize("call", ["run", "runSync"])
def test_a_bad_request_throws_with_its_status(acme: Api, call: str) -> None:
    assert "400" in begin(acme, call, {"input": 1, "policy": {"ttl": 1}}).said().error


def test_a_wrong_key_throws_with_its_status(acme: Api, globex: Api) -> None:
    job = acme.run()
    calls = [begin(acme, call, *args, key="rpa_nonsense") for call, *args in (("run", INPUT), ("health",))]
    calls += [
        begin(acme, call, job, key=globex.client.api_key) for call in ("status", "statusSync", "stream", "cancel")
    ]
    errors = [call.said().error for call in calls]
    assert [error[-3:] for error in errors] == ["401", "401", "404", "404", "404", "404"]
    assert acme.status(job)["status"] == "IN_QUEUE"


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"requests_per_10s": 0}, "rate_limited"),
        ({"max_queued": 0}, "queue_full"),
        ({"gpu_s_a_month": 0}, "monthly_limit"),
    ],
)
def test_what_is_over_a_limit_throws_and_is_not_sent_again(
    http: httpx.Client, limit: dict[str, int], code: str
) -> None:
    """The SDK leaves waiting to its caller, who finds in the error which limit it is and when to come again."""
    api = Api.of(http, new_client(new_place()))
    Tenant.objects.filter(pk=api.client.tenant.pk).update(**limit)
    for said in [call.said() for call in [begin(api, name, INPUT) for name in ("run", "runSync")]]:
        assert (said.error[-3:], said.requests) == ("429", 1)
        assert said.answer["code"] == code
        assert api.client.tenant.name in said.answer["error"]
        assert int(said.retry_after or 0) >= 1
    assert not api.client.tenant.jobs.exists()


def test_a_stream_in_which_nothing_happens_is_held(patient: Call) -> None:
    said = patient.said()
    assert (streamed(said), said.requests) == ([], 1)
    assert 7.5 < said.seconds < 9.5
