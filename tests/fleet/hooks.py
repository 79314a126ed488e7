"""A job that a worker of ours holds, with its way back to Hearth: what worker/hearth.py asks, by hand."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from jobs.ids import JobId
from storage.models import Blob
from tests.cast import Client
from tests.fleet.wire import Answer, WireWorker, call, status


def file(name: str = "a.png", content: bytes = b"abc", **fields: Any) -> dict[str, Any]:
    """What a worker says of a file that it wants to put."""
    sha256 = hashlib.sha256(content).hexdigest()
    known = {"name": name, "content_type": "image/png", "bytes": len(content), "sha256": sha256}
    return known | {"node": "9", "kind": "image"} | fields


def put(slot: dict[str, Any], content: bytes, **headers: str) -> Answer:
    sent = slot["headers"] | headers
    return call("PUT", slot["url"], content, {k: v for k, v in sent.items() if k != "Content-Length"})


@dataclass
class Running:
    client: Client
    job: JobId
    worker: WireWorker
    attempt: str = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        given = self.worker.take().json
        self.attempt, self.token = given["id"], given["input"]["_hearth"]["token"]

    def ask(self, what: str, body: Any = None, token: str | None = None) -> Answer:
        url = f"{self.worker.url}/hooks/worker/{self.token if token is None else token}/{what}"
        return call("POST", url, body if isinstance(body, bytes) else orjson.dumps(body or {}))

    def slots(self, *files: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.ask("uploads", {"files": files})
        assert answer.status == 200, answer
        slots: list[dict[str, Any]] = answer.json["uploads"]
        return slots

    def stored(self, *files: dict[str, Any], content: bytes = b"abc") -> list[dict[str, Any]]:
        """The assets of files that have been put, as the worker reports them."""
        slots = self.slots(*files)
        for slot in slots:
            assert put(slot, content).status == 200
        return [asset(file, slot) for file, slot in zip(files, slots, strict=True)]

    def done(self, **output: Any) -> Any:
        """Report; the job's status then."""
        assert self.worker.done(self.attempt, output=output).status == 200
        return status(self.worker.url, self.client, self.job)

    def blobs(self) -> list[Blob]:
        return list(Blob.all_tenants.filter(job_id=self.job.uuid).order_by("id"))


def asset(file: dict[str, Any], slot: dict[str, Any]) -> dict[str, Any]:
    return file | {"id": slot["id"], "key": slot["key"]}
