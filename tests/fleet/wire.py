"""A worker as the wire sees it: raw HTTP, each request on a connection of its own; and deadlines for what must come."""

import http.client
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import orjson

from accounts import sql
from jobs.ids import JobId, public_id
from tests.cast import Client, Place

T = TypeVar("T")
FORM = "application/x-www-form-urlencoded"


def until(look: Callable[[], T], seconds: float = 10.0) -> T:
    """What `look` returns as soon as it is true; looked at until the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(0.01)
    return found


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`at`: monotonic time when it had arrived; `seconds`: since the request."""

    status: int
    headers: Message
    body: bytes
    at: float
    seconds: float

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


def call(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    parts = urlsplit(url)
    begun = time.monotonic()
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=90)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        content, at = response.read(), time.monotonic()
        return Answer(status=response.status, headers=response.msg, body=content, at=at, seconds=at - begun)
    finally:
        connection.close()


def aside(fn: Callable[..., T], *args: Any, **kwargs: Any) -> "Future[T]":
    """Call it in a thread of its own. What it calls must not use the database."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@dataclass
class WireWorker:
    """What a worker of the stock SDK sends, by hand. `authorization`: sent verbatim, as the SDK does."""

    url: str
    place: Place
    name: str = "w1"
    authorization: str = field(default="")

    def __post_init__(self) -> None:
        self.authorization = self.authorization or self.place.worker_key

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": self.authorization, "Content-Type": "application/json"}

    def path(self, what: str, **query: Any) -> str:
        """The URL of `what`, as worker_environment gives it."""
        return f"{self.url}/v2/{self.place.name}/{what}?{urlencode({'hearth': 1} | query)}"

    def take(self, *, idle: bool = False) -> Answer:
        return call("GET", self.path(f"job-take/{self.name}", job_in_progress=int(not idle)), headers=self.headers)

    def take_batch(self, n: object, *, idle: bool = False) -> Answer:
        query = {"batch_size": n, "job_in_progress": int(not idle)}
        return call("GET", self.path(f"job-take-batch/{self.name}", **query), headers=self.headers)

    def take_one(self) -> str:
        """The attempt's id of the next job, which must be there."""
        answer = self.take()
        assert answer.status == 200, answer
        return str(answer.json["id"])

    def stop(self) -> Answer:
        return call("GET", self.path(f"job-stop/{self.name}"), headers=self.headers)

    def ping(self, *attempts: str, **query: Any) -> Answer:
        named = {"job_id": ",".join(attempts)} if attempts else {}
        return call("GET", self.path(f"ping/{self.name}", **named, **query), headers=self.headers)

    def post(self, attempt: str, body: bytes, **headers: str) -> Answer:
        """job-done with these very bytes, and with the headers that the SDK sends."""
        url = self.path(f"job-done/{self.name}/{attempt}", isStream="false")
        sent = self.headers | {"Content-Type": FORM, "charset": "utf-8", "X-Request-ID": attempt} | headers
        return call("POST", url, body, sent)

    def done(self, attempt: str, **fields: Any) -> Answer:
        return self.post(attempt, orjson.dumps(fields))

    def post_chunk(self, attempt: str, body: bytes) -> Answer:
        """job-stream with these very bytes, and with the headers that the SDK sends."""
        url = self.path(f"job-stream/{self.name}/{attempt}", isStream="false")
        return call("POST", url, body, self.headers | {"Content-Type": FORM, "charset": "utf-8"})

    def chunk(self, attempt: str, output: Any) -> Answer:
        return self.post_chunk(attempt, orjson.dumps({"output": output}))

    def waiting_socket(self, what: str = "job-take") -> socket.socket:
        """A poll sent by hand, whose socket the test may close."""
        parts = urlsplit(self.path(f"{what}/{self.name}", job_in_progress=1))
        sock = socket.create_connection((parts.hostname or "", parts.port or 80))
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: h\r\nAuthorization: {self.authorization}\r\n\r\n"
        sock.sendall(head.encode())
        return sock

    def seen(self, what: str = "take") -> bool:
        """Whether a poll of it (take, stop, ping) has begun, some moments ago."""
        row = sql.first(
            f"SELECT {what}_at < clock_timestamp() - interval '50 ms' FROM jobs_worker"
            " WHERE endpoint_id = %s AND name = %s",
            [self.place.endpoint.pk, self.name],
        )
        return bool(row and row[0])

    def polls(self, what: str = "take") -> "Future[Answer]":
        """A poll (take, stop) that waits now."""
        sql.run(f"UPDATE jobs_worker SET {what}_at = NULL WHERE name = %s", [self.name])
        answer = aside(getattr(self, what))
        until(lambda: self.seen(what))
        return answer


def public(job: JobId) -> str:
    return public_id(job.uuid, job.sync)


def status(url: str, client: Client, job: JobId, what: str = "status") -> Any:
    """The job as its client sees it."""
    answer = call("GET", f"{url}/v2/{client.place.name}/{what}/{public(job)}", headers=client.headers)
    assert answer.status == 200, answer
    return answer.json


def chunks(url: str, client: Client, job: JobId) -> list[Any]:
    """What one read of the job's stream gives."""
    return [chunk["output"] for chunk in status(url, client, job, "stream")["stream"]]


def run(url: str, client: Client, given: Any, **fields: Any) -> str:
    """Submit by HTTP; the job's id."""
    body = orjson.dumps({"input": given, **fields})
    answer = call("POST", f"{url}/v2/{client.place.name}/run", body, client.headers)
    assert answer.status == 200, answer
    return str(answer.json["id"])
