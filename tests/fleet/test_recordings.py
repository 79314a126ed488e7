"""What the real SDK worker asked in tests/golden/runpod/worker_*.json is asked again: it could take the answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.ids import JobId
from tests.cast import Client
from tests.fleet.wire import Answer, call, chunks, public, status

GOLDEN = Path(__file__).parent.parent / "golden" / "runpod"
RECORDINGS = sorted(path.stem for path in GOLDEN.glob("worker_*.json"))
OURS_TO_SET = {"authorization", "content-length", "connection", "accept-encoding"}


class Replay:
    """A recorded worker against Hearth. `ids`: the recorded job ids and ours."""

    def __init__(self, url: str, client: Client) -> None:
        self.url, self.client = url, client
        self.jobs: dict[str, JobId] = {}
        self.stopped: set[str] = set()
        self.told: dict[str, list[dict[str, Any]]] = {}

    def send(self, request: dict[str, Any]) -> Answer:
        what = request["path"].split("/", 3)[-1] + "?" + request["query"]
        for theirs, job in self.jobs.items():
            what = what.replace(theirs, public(job))
        headers = {name: value for name, value in request["headers"].items() if name not in OURS_TO_SET}
        headers["Authorization"] = self.client.place.worker_key
        body = request["body"].encode() if request["method"] == "POST" else None
        return call(request["method"], f"{self.url}/v2/{self.client.place.name}/{what}", body, headers)

    def take(self, request: dict[str, Any], recorded: Any) -> None:
        """The recorded jobs are queued; the answer must have their shape, and ids that are safe in a URL's path."""
        theirs = recorded if isinstance(recorded, list) else [recorded]
        jobs = [self.client.submit(job["input"]) for job in theirs]
        answer = self.send(request)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert type(answer.json) is type(recorded)
        ours = answer.json if isinstance(recorded, list) else [answer.json]
        assert [(job["id"], job["input"]) for job in ours] == [
            (public(job), given["input"]) for job, given in zip(jobs, theirs, strict=True)
        ]
        assert all(re.fullmatch(r"[A-Za-z0-9-]+", job["id"]) for job in ours)
        self.jobs |= {given["id"]: job for given, job in zip(theirs, jobs, strict=True)}

    def stop(self, request: dict[str, Any], recorded: Any) -> None:
        jobs = [self.jobs[theirs] for theirs in recorded["jobsToStop"]]
        for job in jobs:
            self.client.cancel(job)
        self.stopped |= {*recorded["jobsToStop"]}
        answer = self.send(request)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json == {"jobsToStop": [public(job) for job in jobs]}

    def tell(self, request: dict[str, Any]) -> None:
        """News or a ping: any 200 will do, also where the recording server refused it."""
        assert self.send(request).status == 200
        if request["method"] == "POST":
            self.told.setdefault(request["path"].split("/")[5], []).append(request)

    def result(self, theirs: str) -> dict[str, Any] | None:
        """What the first job-done said that was no progress; None: its worker never said how it ended."""
        told = self.told.get(theirs, [])
        bodies = [loads(request["body"]) for request in told if "/job-done/" in request["path"]]
        return next((body for body in bodies if body.get("status") != "IN_PROGRESS"), None)

    def chunks(self, theirs: str) -> list[Any]:
        told = self.told.get(theirs, [])
        return [loads(request["body"])["output"] for request in told if "/job-stream/" in request["path"]]


def loads(text: str) -> Any:
    return json.loads(text, parse_constant=lambda _: None)  # NaN is null to us


def answered(requests: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The requests and their answers in the order of the answers, without polls that came to nothing."""
    had = [(request, request["resp"]) for request in requests if request.get("resp", {}).get("status")]
    for request, answer in sorted(had, key=lambda pair: pair[0]["t"] + pair[1]["after_s"]):
        if answer["status"] != 204:
            yield request, answer


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_worker_is_answered_as_it_was(name: str, quick: str, acme: Client) -> None:
    recording = loads((GOLDEN / f"{name}.json").read_text())
    replay = Replay(quick, acme)
    for request, answer in answered(recording["requests"]):
        what = request["path"].split("/")[3]
        if what in ("job-take", "job-take-batch"):
            replay.take(request, json.loads(answer["body"]))
        elif what == "job-stop":
            replay.stop(request, json.loads(answer["body"]))
        else:
            replay.tell(request)
    for theirs, job in replay.jobs.items():
        check(replay, theirs, recording["final_jobs"][theirs])
        assert chunks(quick, acme, job) == replay.chunks(theirs)


def check(replay: Replay, theirs: str, recorded: dict[str, Any]) -> None:
    """The end that was recorded, or where the recording server refused the result, that was told. Without a result a
    job is out, with nothing to show. That server kept the result of a cancelled job; Hearth does not."""
    ours = status(replay.url, replay.client, replay.jobs[theirs])
    seen = ours["status"], ours.get("output"), ours.get("error")
    result = replay.result(theirs)
    if theirs in replay.stopped:
        assert seen == ("CANCELLED", None, None)
    elif result is None:
        assert recorded["status"] in ("IN_PROGRESS", "IN_QUEUE")
        assert seen == ("IN_PROGRESS", None, None)
    else:
        end = recorded if recorded["status"] in ("COMPLETED", "FAILED") else {"status": "COMPLETED"} | result
        assert seen == (end["status"], end.get("output"), end.get("error"))


def test_the_recordings_are_there() -> None:
    some = ("ok_returns", "raises", "conc2", "cancel_async", "progress", "stream_agg", "gen_stop", "done_4xx")
    assert {f"worker_{name}" for name in some} <= set(RECORDINGS)
