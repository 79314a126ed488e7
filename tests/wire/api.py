"""The client API as the tests call it, the worker that answers, and what is stored."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx
import orjson
from django.db import connection
from django_q.models import OrmQ

from accounts import sql
from jobs import news, stream
from jobs.ids import JobId, parse_job_id
from jobs.models import Attempt, Event, Job, Payload
from jobs.news import Done
from jobs.queue import Claimed
from tests.cast import Client, Place, attempt_of, row

T = TypeVar("T")
ASIDE = ThreadPoolExecutor(32, thread_name_prefix="aside")
CALLS = (  # every operation of the client API
    ("POST", "run"),
    ("POST", "runsync"),
    ("GET", "status/{job}"),
    ("GET", "status-sync/{job}"),
    ("GET", "stream/{job}"),
    ("POST", "cancel/{job}"),
    ("POST", "retry/{job}"),
    ("POST", "purge-queue"),
    ("GET", "health"),
    ("GET", "requests"),
)


@dataclass(frozen=True)
class Api:
    """One endpoint as the holder of one key calls it."""

    http: httpx.Client
    client: Client
    endpoint: str
    authorization: str
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, http: httpx.Client, client: Client) -> "Api":
        return cls(http, client, client.place.name, f"Bearer {client.api_key}")

    @property
    def place(self) -> Place:
        return self.client.place

    def at(self, endpoint: str) -> "Api":
        return replace(self, endpoint=endpoint)

    def by(self, authorization: str) -> "Api":
        return replace(self, authorization=authorization)

    def once(self, key: str) -> "Api":
        return replace(self, headers=(("Idempotency-Key", key),))

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
        """`body`: bytes as they are; other values as JSON; None: empty."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": self.authorization, "Content-Type": "application/json"}
        headers |= dict(self.headers)
        url = f"/v2/{self.endpoint}/{path}"
        return self.http.request(method, url, content=content, headers=headers, params=params or None)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.call("GET", path, **params)

    def post(self, path: str, body: Any = None, **params: Any) -> httpx.Response:
        return self.call("POST", path, body, **params)

    def run(self, given: Any = 1, **fields: Any) -> str:
        """Submit; the job's id."""
        answered = self.post("run", {"input": given, **fields})
        assert answered.status_code == 200, answered.text
        return str(answered.json()["id"])

    def status(self, job: str) -> dict[str, Any]:
        """Without `queue`, why it waits, which has tests of its own."""
        answered = self.get(f"status/{job}")
        assert answered.status_code == 200, answered.text
        found: dict[str, Any] = answered.json()
        assert ("queue" in found) == (found["status"] == "IN_QUEUE")
        found.pop("queue", None)
        return found

    def take(self, worker: str = "w1") -> Claimed:
        """What a worker of the endpoint takes, as soon as there is something."""
        return until(lambda: self.place.worker(worker).take())[0]

    def stream(self, job: str) -> tuple[str, list[Any]]:
        """What one read of the stream gives: the status and the chunks."""
        answered = self.get(f"stream/{job}")
        assert answered.status_code == 200, answered.text
        return answered.json()["status"], [chunk["output"] for chunk in answered.json()["stream"]]

    def job_done(self, job: str, body: bytes, worker: str = "w1") -> None:
        """What a worker sends of a job's first attempt, as the SDK sends it."""
        url = f"/v2/{self.endpoint}/job-done/{worker}/{job}"
        answered = self.http.post(url, content=body, headers={"Authorization": self.place.worker_key})
        assert answered.status_code == 200, answered.text


def until(look: Callable[[], T], seconds: float = 10) -> T:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s; last seen: {found!r}"
        time.sleep(0.01)
    return found


def whole_window() -> None:
    """Wait for the next window of rates if this one is nearly over, so that what follows falls into one."""
    until(lambda: sql.one("SELECT extract(epoch FROM clock_timestamp())::numeric % 10 < 5")[0])


def aside(call: Callable[..., T], *args: Any, **more: Any) -> "Future[T]":
    """The call in a thread of its own, as its result comes."""

    def run() -> T:
        try:
            return call(*args, **more)
        finally:
            connection.close()

    return ASIDE.submit(run)


def finish(api: Api, claimed: Claimed, output: Any = "done", error: Any = None, worker: str = "w1") -> None:
    done = Done(output=orjson.dumps(output), output_value=output)
    if error is not None:
        done = Done(error=orjson.dumps(error), error_value=error)
    assert news.done(api.place.endpoint.pk, worker, attempt_of(claimed), done)


def add_chunks(api: Api, claimed: Claimed, *outputs: Any, worker: str = "w1") -> None:
    for output in outputs:
        endpoint, number = stream.begin(api.place.key, api.endpoint)
        body = orjson.dumps(output)
        stream.add(endpoint, worker, attempt_of(claimed), number, stream.Chunk(body=body))


def job_of(text: str) -> JobId:
    found = parse_job_id(text)
    assert found is not None, text
    return found


def job_row(text: str) -> Job:
    return row(job_of(text))


def stored() -> list[int]:
    return [rows.count() for rows in (Job.all_tenants, Payload.objects, Event.objects, Attempt.objects, OrmQ.objects)]


@contextmanager
def nothing_stored() -> Iterator[None]:
    before = stored()
    yield
    assert stored() == before


def check_refusal(answered: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The one shape of errors (design.md, Errors)."""
    assert answered.status_code == status, answered.text
    assert answered.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = answered.json()
    assert body.keys() == {"error", "code"}, body
    assert body["error"]
    assert body["code"].replace("_", "").isalpha(), body
    assert code in (None, body["code"]), body
    return body
