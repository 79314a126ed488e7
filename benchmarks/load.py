"""Load on a server: kept connections, each of which sends its next request as soon as the last one is answered.

It is a process of its own (`python -m benchmarks.load`: a Plan as JSON on stdin, a Load on stdout), so that neither
Python's thread lock nor the core of the server is shared with it. Any answer but a 200 ends it with an error.
"""

import asyncio
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import uvloop

from benchmarks.measure import quantile
from hearth.local.instance import ROOT

CONNECTIONS = 16
ANSWER_S = 30.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The requests go round, as bytes in latin-1. What happens in the first `warm_s` seconds is not counted."""

    port: int
    requests: Sequence[str]
    seconds: float
    warm_s: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Load:
    """`answers_in_all`: with those of the warm-up."""

    answers_a_second: float
    p50_ms: float
    p99_ms: float
    answers_in_all: int


def request(method: str, path: str, api_key: str, body: bytes = b"") -> str:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {api_key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head + body.decode("latin-1")


def put_load(plan: Plan) -> Load:
    """Run it to its end in its own process."""
    argv = [sys.executable, "-m", "benchmarks.load"]
    given = json.dumps(asdict(plan))
    done = subprocess.run(argv, input=given, cwd=ROOT, capture_output=True, text=True, timeout=plan.seconds + 60)
    if done.returncode:
        raise RuntimeError(f"The load broke off: {done.stderr.strip().splitlines()[-1]}")
    return Load(**json.loads(done.stdout))


def whole(answer: bytes) -> bool:
    """Whether an HTTP answer has all come."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    length = LENGTH.search(answer, 0, head)
    if length is None:
        raise RuntimeError(f"no Content-Length in {answer[:head]!r}")
    return len(answer) >= head + 4 + int(length[1])


class Connection(asyncio.Protocol):
    """One kept connection; `over` is done when it has its last answer, of which at least one counts."""

    def __init__(
        self, requests: Iterator[bytes], window: tuple[float, float], times: list[tuple[float, float]]
    ) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests, self._times = requests, times
        self._counted_from, self._until = window
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._got += data
        try:
            if whole(self._got):
                self._take()
        except RuntimeError as error:
            self._fail(error)

    def _take(self) -> None:
        now = time.perf_counter()
        if not self._got.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"answered {self._got[:500]!r}")
        self._times.append((self._sent, now))
        self._got = b""
        if now < self._until or self._sent < self._counted_from:
            self._send()
        else:
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the server closed a connection"))

    def _fail(self, error: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(error)


async def _run(plan: Plan) -> Load:
    loop = asyncio.get_running_loop()
    requests = itertools.cycle([text.encode("latin-1") for text in plan.requests])
    counted_from = time.perf_counter() + plan.warm_s
    window = counted_from, counted_from + plan.seconds
    times: list[tuple[float, float]] = []
    opened = [
        await loop.create_connection(lambda: Connection(requests, window, times), "127.0.0.1", plan.port)
        for _ in range(CONNECTIONS)
    ]
    async with asyncio.timeout(plan.seconds + ANSWER_S):
        await asyncio.gather(*(protocol.over for _, protocol in opened))
    for transport, _ in opened:
        transport.abort()
    took_ms = [(came - sent) * 1000 for sent, came in times if sent >= counted_from]
    last = max(came for _, came in times)
    return Load(
        answers_a_second=len(took_ms) / (last - counted_from),
        p50_ms=quantile(took_ms, 0.5),
        p99_ms=quantile(took_ms, 0.99),
        answers_in_all=len(times),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_run(Plan(**json.load(sys.stdin)))))))
