"""A small RunPod: its client API (protocol/runpod.md 2) in this process, with faults that are dealt by hand.

It runs nothing: tests say what its jobs come to. What it cannot fake, the chain of two Hearths shows (test_chain.py).
"""

import itertools
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

KEY = "rpa_EXAMPLEKEY"


@dataclass
class Sent:
    """A request as it came."""

    method: str
    op: str
    body: bytes
    headers: dict[str, str]
    connection: int

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Fault:
    """What the next request of an op meets: a status instead of an answer; or no answer, after it was done or not.
    held: that comes only when it is set; `answered`: and then as if nothing had been."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "no"}'
    done: bool = False
    held: threading.Event | None = None
    answered: bool = False


DROPPED = Fault(done=True)
NOT_HEARD = Fault()


@dataclass
class There:
    """An endpoint there."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # Idempotency-Key -> job, where it keeps them
    keeps_keys: bool = False
    workers: dict[str, int] = field(default_factory=lambda: {"idle": 1, "ready": 1, "throttled": 2})

    def asked(self, op: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.op == op]

    def meets(self, op: str, *faults: Fault) -> None:
        self.faults.setdefault(op, []).extend(faults)

    def becomes(self, job: str, state: str, **fields: Any) -> bytes:
        """The job's status from now on, as a webhook would bring it."""
        self.jobs[job] |= {"status": state, **fields}
        return orjson.dumps(self.jobs[job])


class Cloud:
    def __init__(self) -> None:
        self.endpoints: dict[str, There] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                cloud.answer(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v2"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        _, _, endpoint, op, *rest = request.path.split("/")
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        with self._lock:
            there = self.endpoints.get(endpoint)
            if there is None or request.headers.get("authorization") != f"Bearer {KEY}":
                self._say(request, 404 if there is None else 401, b'{"error": "not yours"}')
                return
            fault = there.faults[op].pop(0) if there.faults.get(op) else None
            there.sent.append(Sent(request.command, op, body, dict(request.headers.items()), request.client_address[1]))
            status, said = (0, b"") if fault and not fault.done else self._do(there, op, rest, there.sent[-1])
        if fault and fault.held:
            fault.held.wait(30)
        if fault is None or fault.answered:
            self._say(request, status, said)
        elif fault.status:
            self._say(request, fault.status, fault.body, **fault.headers)
        else:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)

    def _do(self, there: There, op: str, rest: list[str], sent: Sent) -> tuple[int, bytes]:
        if op == "run":
            return 200, orjson.dumps({"id": self._run(there, sent), "status": "IN_QUEUE"})
        if op == "health":
            workers = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0)
            jobs = {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": len(there.jobs), "retried": 0}
            return 200, orjson.dumps({"jobs": jobs, "workers": workers | there.workers})
        job = there.jobs.get(rest[0])
        if job is None:
            return 404, b'{"error": "job not found"}'
        if op == "cancel" and job["status"] in ("IN_QUEUE", "IN_PROGRESS"):
            job["status"] = "CANCELLED"
        return 200, orjson.dumps(job)

    def _run(self, there: There, sent: Sent) -> str:
        key = sent.headers.get("Idempotency-Key", "")
        if there.keeps_keys and key in there.keys:
            return there.keys[key]
        job = f"rp{next(self._numbers)}-u1"
        there.jobs[job] = {"id": job, "status": "IN_QUEUE"}
        there.keys[key] = job
        return job

    def _say(self, request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)
