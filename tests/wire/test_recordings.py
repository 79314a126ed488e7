"""What the real SDK clients asked in tests/golden/runpod/client_*.json is asked again, and answered with at least what
the recorded answers have: the status, each field by its name and its type (protocol/runpod.md 2)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from jobs.queue import Claimed
from tests.wire.api import Api, add_chunks, aside, check_refusal, finish, job_of

GOLDEN = Path(__file__).parent.parent / "golden" / "runpod"
RECORDINGS = sorted(path.stem for path in GOLDEN.glob("client_*.json"))
ENDED = ("COMPLETED", "FAILED")
TRANSPORT = {"authorization", "content-length", "connection", "accept-encoding"}


class Replay:
    """A recorded client against Hearth, and a worker that brings each job to where its recorded answer has it."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: dict[str, str] = {}  # recorded → ours
        self.held: dict[UUID, Claimed] = {}

    def answer(self, request: dict[str, Any], recorded: dict[str, Any]) -> httpx.Response:
        operation, _, job = request["path"].split("/", 3)[-1].partition("/")
        if operation == "runsync":
            waiting = aside(self.send, request)
            while not (claimed := self.take()).sync:
                pass  # what was submitted before comes first
            if recorded["status"] in ENDED:
                self.end(claimed, recorded)
            answered = waiting.result(20)
        else:
            if operation in ("status", "status-sync", "stream", "cancel") and job in self.ids:
                self.bring(self.ids[job], recorded)
            answered = self.send(request)
        if operation in ("run", "runsync"):
            self.ids[recorded["id"]] = answered.json()["id"]
        return answered

    def send(self, request: dict[str, Any]) -> httpx.Response:
        path = request["path"].split("/", 3)[-1]
        for theirs, ours in self.ids.items():
            path = path.replace(theirs, ours)
        headers = {name: value for name, value in request["headers"].items() if name not in TRANSPORT}
        headers["Authorization"] = self.api.authorization
        body = request["body"].replace("http://h/", "https://h/")  # plain http is for listed addresses only
        url = f"/v2/{self.api.endpoint}/{path}?{request['query']}"
        return self.api.http.request(request["method"], url, content=body.encode(), headers=headers)

    def bring(self, job: str, recorded: dict[str, Any]) -> None:
        """Let a worker take the job, stream its chunks, and end it, as far as the recorded answer says."""
        uuid = job_of(job).uuid
        while recorded["status"] != "IN_QUEUE" and uuid not in self.held:
            self.take()
        if recorded.get("stream"):
            add_chunks(self.api, self.held[uuid], *(chunk["output"] for chunk in recorded["stream"]))
        if recorded["status"] in ENDED and self.api.status(job)["status"] == "IN_PROGRESS":
            self.end(self.held[uuid], recorded)

    def take(self) -> Claimed:
        claimed = self.api.take()
        self.held[claimed.job] = claimed
        return claimed

    def end(self, claimed: Claimed, recorded: dict[str, Any]) -> None:
        finish(self.api, claimed, recorded.get("output"), recorded.get("error"))


def recorded_requests(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for request in json.loads((GOLDEN / f"{name}.json").read_text())["requests"]:
        yield request, json.loads(request["resp"]["body"])


def missing(recorded: Any, ours: Any, path: str = "") -> list[str]:
    """Where ours lacks a field of the recorded answer or has another type; only status and chunks must be the same."""
    if type(recorded) is not type(ours):
        return [f"{path or '/'}: {ours!r} for {recorded!r}"]
    if path == "/stream" and recorded != ours:
        return [f"{path}: {ours!r} for {recorded!r}"]
    if not isinstance(recorded, dict):
        return [f"{path}: {ours!r} for {recorded!r}"] if path == "/status" and recorded != ours else []
    found = [f"{path}/{name}" for name in recorded.keys() - ours.keys()]
    for name in recorded.keys() & ours.keys():
        found += missing(recorded[name], ours[name], f"{path}/{name}")
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_client_gets_all_that_it_got(acme: Api, name: str) -> None:
    replay = Replay(acme)
    for request, recorded in recorded_requests(name):
        answered = replay.answer(request, recorded)
        what = f"{request['method']} {request['path']} {request['body']}"
        assert answered.headers["Content-Type"] == request["resp"]["content_type"], what
        if request["resp"]["status"] != 200:
            check_refusal(answered, request["resp"]["status"])  # an error's body is ours to choose
            continue
        assert answered.status_code == 200, f"{what}: {answered.text}"
        assert missing(recorded, answered.json()) == [], what


def test_the_recordings_are_there_and_no_stranger_passes(acme: Api, globex: Api) -> None:
    some = ("pyc", "pyc_async", "pystream", "pystream_async", "jsc", "jsstream")
    assert {f"client_{name}" for name in some} <= set(RECORDINGS)
    replay = Replay(acme)
    requests = list(recorded_requests("client_pyc"))
    replay.answer(*requests[0])
    replay.api = globex
    assert replay.send(requests[1][0]).status_code == 404


def test_a_missing_field_would_be_seen() -> None:
    recorded = {"id": "a", "status": "COMPLETED", "output": {"n": 1}}
    assert missing(recorded, {"id": "b", "status": "COMPLETED", "output": {"n": 2}, "more": 1}) == []
    assert missing(recorded, {"id": 1, "status": "FAILED", "output": {}}) != []
    assert sorted(missing(recorded, {"status": "FAILED", "output": {}})) == [
        "/id",
        "/output/n",
        "/status: 'FAILED' for 'COMPLETED'",
    ]
