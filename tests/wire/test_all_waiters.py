"""Rules 13, 14, 18 for waiters of every kind: a lost LISTEN, SIGTERM and their number leave none without answer."""

import http.client
import json
import os
import signal
import socket
import time
from typing import Any

import httpx
import pytest

from jobs import lifecycle
from jobs.models import Job, Worker
from tests.cast import new_client, new_place
from tests.wire.api import Api, add_chunks, aside, finish, job_of, until
from tests.wire.sse import Said, Stream, parsed
from tests.wire.test_waiting import LISTEN, listening, operator, terminate

__all__ = ["operator"]
EACH = 200


class Waiting:
    """A request that is held, on a bare socket; `answer` reads what came meanwhile."""

    def __init__(self, api: Api, method: str, path: str, body: Any = None, key: str = "") -> None:
        self.path = path
        url = api.http.base_url
        self._socket = socket.create_connection((url.host, url.port or 80), timeout=30)
        sent = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {key or api.authorization}\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        self._response = http.client.HTTPResponse(self._socket, method=method)

    @property
    def answered(self) -> bool:
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self._socket.settimeout(30)

    def answer(self) -> tuple[int, bytes]:
        self._response.begin()
        body = self._response.read()
        self._socket.close()
        return self._response.status, body

    def json(self) -> Any:
        status, body = self.answer()
        assert status == 200, (self.path, body)
        return json.loads(body)

    def events(self) -> list[Said]:
        _, body = self.answer()
        return list(parsed(iter(body.decode().split("\n"))))


def of_every_kind(api: Api, job: str) -> dict[str, Waiting]:
    """All that can wait for this job, which is handed out."""
    v2, worker = f"/v2/{api.endpoint}", api.place.worker_key
    return {
        "status-sync": Waiting(api, "GET", f"{v2}/status-sync/{job}?wait=60000"),
        "stream": Waiting(api, "GET", f"{v2}/stream/{job}"),
        "events": Waiting(api, "GET", f"/api/v1/jobs/{job}/events"),
        "runsync": Waiting(api, "POST", f"{v2}/runsync?wait=60000", {"input": 1}),
        "job-stop": Waiting(api, "GET", f"{v2}/job-stop/w1", key=worker),
    }


def taking(api: Api, name: str) -> Waiting:
    return Waiting(api, "GET", f"/v2/{api.endpoint}/job-take/{name}?job_in_progress=0", key=api.place.worker_key)


@pytest.fixture
def elsewhere(http: httpx.Client) -> Api:
    """acme at an endpoint with nothing in its queue."""
    return Api.of(http, new_client(new_place()))


def test_all_survive_the_loss_of_the_listening_connection(acme: Api, elsewhere: Api, operator: Any) -> None:
    until(lambda: listening(operator))
    job = acme.run()
    claimed = acme.take()
    waiting = of_every_kind(acme, job)
    taker = taking(elsewhere, "w1")
    until(lambda: Worker.objects.filter(endpoint=elsewhere.place.endpoint).exists())
    other = acme.take("w2")  # runsync's
    assert terminate(operator, LISTEN)
    told = time.monotonic()
    submitted = elsewhere.client.submit(1)
    acme.client.cancel(job_of(f"sync-{other.job}-e1"))
    add_chunks(acme, claimed, "a chunk")
    assert waiting.pop("stream").json()["stream"] == [{"output": "a chunk"}]
    acme.client.cancel(job_of(job))
    assert taker.json()["id"] == f"{submitted.uuid}-e1"
    assert waiting.pop("job-stop").json()["jobsToStop"] == [job]
    assert waiting.pop("events").events()[-1].data["status"] == "CANCELLED"
    assert [held.json()["status"] for held in waiting.values()] == ["CANCELLED"] * 2
    assert time.monotonic() - told < 9, "none waited until its hold was over"


def test_sigterm_answers_all_and_followers_lose_nothing(web: Any, acme: Api, elsewhere: Api) -> None:
    job = acme.run()
    claimed = acme.take()
    waiting = of_every_kind(acme, job)
    taker, stream = taking(elsewhere, "w1"), Stream(acme, job)
    stream.has("state", event="handed")
    until(lambda: Job.all_tenants.filter(endpoint=acme.place.endpoint).count() == 2)
    until(lambda: Worker.objects.filter(endpoint=elsewhere.place.endpoint).exists())
    told = time.monotonic()
    try:
        os.kill(web.pid, signal.SIGTERM)
        said = {name: held.answer() for name, held in (waiting | {"job-take": taker}).items()}
        stream.end()
        took = time.monotonic() - told
        web.stop()
        finish(acme, claimed, "done while it was away")
        again = aside(Stream, acme, job, stream.said[-1].id)  # its connection waits for the next process
    finally:
        web.start()
    assert took < 5
    assert {name: status for name, (status, _) in said.items()} == {
        **dict.fromkeys(("status-sync", "stream", "events", "runsync"), 200),
        **dict.fromkeys(("job-stop", "job-take"), 204),
    }
    assert said["events"][1].endswith(b": to be continued: connect again\n\n")
    rest = again.result(20)
    assert rest.end()[-1].data["output"] == "done while it was away"
    assert stream.moves + rest.moves == ["created", "handed", "completed"]


def test_many_of_each_kind_wait_and_each_has_its_own_answer(acme: Api, elsewhere: Api) -> None:
    runsync = [Waiting(acme, "POST", f"/v2/{acme.endpoint}/runsync?wait=60000", {"input": n}) for n in range(EACH)]
    mine = Job.all_tenants.filter(endpoint=acme.place.endpoint)
    until(lambda: mine.count() == EACH, 30)
    jobs = [job.public_id for job in mine.order_by("id")]
    events = {job: Waiting(acme, "GET", f"/api/v1/jobs/{job}/events") for job in jobs}
    takers = [taking(elsewhere, f"w{n}") for n in range(EACH)]
    until(lambda: Worker.objects.filter(endpoint=elsewhere.place.endpoint).count() == EACH, 30)
    until(lambda: all(stream.answered for stream in events.values()), 30)
    assert not any(held.answered for held in runsync)
    taken = [elsewhere.client.submit(n) for n in range(EACH)]
    assert lifecycle.purge(acme.client.key, acme.endpoint) == EACH
    ended = [held.json() for held in runsync]
    assert sorted(answered["id"] for answered in ended) == sorted(jobs)
    assert {answered["status"] for answered in ended} == {"CANCELLED"}
    for job, stream in events.items():
        said = stream.events()
        assert (said[-1].kind, said[-1].data["id"], said[-1].data["status"]) == ("end", job, "CANCELLED")
    handed = [held.json()["id"] for held in takers]
    assert sorted(handed) == sorted(f"{job.uuid}-e1" for job in taken)
