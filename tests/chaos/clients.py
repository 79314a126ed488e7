"""The tenants' clients. A good client: it asks again when it got no answer, and remembers all that it was told.

Three of four send an Idempotency-Key, and the same request again; the others submit anew, and both jobs must end.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.plan import JobPlan

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
ANSWER_S = 20.0  # after so long without an answer it asks again
WAIT_MS = 30_000  # of runsync
POLLS_S = (0.4, 5.0)  # from, to
READERS = 16
EMPTY: Mapping[str, str] = {}
Answer = dict[str, Any]


@dataclass
class Submission:
    """One request to run. id: what was answered; unknown: no answer, or one that leaves it open whether there is such
    a job; refused: an answer that says there is none."""

    token: str
    id: str = ""
    unknown: str = ""
    refused: str = ""


@dataclass
class Seen:
    """What the client of a planned job was told. states: of its accepted submission, in the order of the answers;
    "retry" among them: it asked for a retry here."""

    plan: JobPlan
    submissions: list[Submission] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    cancels: int = 0
    retries: int = 0
    last: Answer = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    downloads: int = 0

    @property
    def id(self) -> str:
        return next((made.id for made in self.submissions if made.id), "")

    @property
    def token(self) -> str:
        return next((made.token for made in self.submissions if made.id), "")


class Clients:
    """All of them, in one thread of their own, so that faults can fall meanwhile."""

    def __init__(self, url: str, keys: Sequence[str], jobs: Sequence[JobPlan], webhook: Callable[[int], str]) -> None:
        self.seen = [Seen(job) for job in jobs]
        self._url = url
        self._webhook = webhook
        self._keys = keys
        self._left = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="clients", daemon=True)

    def start(self, begun: float) -> None:
        self._begun = begun
        self._thread.start()

    def wait(self, seconds: float) -> int:
        """How many have not seen the end of their jobs within that time."""
        self._thread.join(seconds)
        self._left.set()
        self._thread.join(ANSWER_S)
        return sum(not seen.states or seen.states[-1] not in FINAL for seen in self.seen)

    async def _all(self) -> None:
        async with self._session() as self._http:
            await asyncio.gather(*(self._live(seen) for seen in self.seen))

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def _live(self, seen: Seen) -> None:
        """A client's whole dealing with one job."""
        await asyncio.sleep(self._begun + seen.plan.at_s - time.monotonic())
        await self._submit(seen)
        if seen.plan.cancel_after_s is not None and seen.id:
            await asyncio.sleep(seen.plan.cancel_after_s)
            await self._cancel(seen)
        await self._follow(seen)
        if seen.plan.kind == "retried" and seen.states[-1:] == ["FAILED"]:
            await self._retry(seen)
            await self._follow(seen)

    async def _submit(self, seen: Seen) -> None:
        while not seen.id and not self._left.is_set():
            if not seen.submissions or not seen.plan.once:
                seen.submissions.append(Submission(token=f"c{seen.plan.number}-{len(seen.submissions)}-x"))
            made = seen.submissions[-1]
            path = f"runsync?wait={WAIT_MS}" if seen.plan.sync else "run"
            once = {"Idempotency-Key": made.token} if seen.plan.once else {}
            status, answer = await self._call(
                seen, "POST", path, seen.plan.body(made.token, self._webhook(seen.plan.tenant)), once
            )
            if status == 200:
                made.id = answer["id"]
                self._told(seen, answer)
            elif status is None or status >= 500:
                made.unknown = f"answered {status}" if status else "without an answer"
                await asyncio.sleep(1)
            else:
                made.refused = f"{status} {answer}"
                return

    async def _cancel(self, seen: Seen) -> None:
        while not self._left.is_set():
            seen.cancels += 1
            status, answer = await self._call(seen, "POST", f"cancel/{seen.id}")
            if status == 200:
                return self._told(seen, answer)
            await self._no_answer(seen, "cancel", status, answer)
        return None

    async def _retry(self, seen: Seen) -> None:
        seen.states.append("retry")
        while not self._left.is_set():
            seen.retries += 1
            status, answer = await self._call(seen, "POST", f"retry/{seen.id}")
            if status in (200, 409):  # 409: the request before this one had come through
                return
            await self._no_answer(seen, "retry", status, answer)

    async def _follow(self, seen: Seen) -> None:
        """Poll the status until it is a final one."""
        pause_s, most_s = POLLS_S
        while seen.id and seen.states[-1] not in FINAL and not self._left.is_set():
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, most_s)
            status, answer = await self._call(seen, "GET", f"status/{seen.id}")
            if status == 200:
                self._told(seen, answer)
            else:
                await self._no_answer(seen, "status", status, answer)

    def _told(self, seen: Seen, answer: Answer) -> None:
        seen.last = answer
        seen.states.append(answer["status"])

    async def _no_answer(self, seen: Seen, verb: str, status: int | None, answer: Answer) -> None:
        """It waits and asks again; any answer but "later" is wrong."""
        if status not in (None, 503):
            seen.wrong.append(f"{verb} was answered {status}: {answer}")
        await asyncio.sleep(1)

    async def _call(
        self, seen: Seen, method: str, path: str, body: Answer | None = None, more: Mapping[str, str] = EMPTY
    ) -> tuple[int | None, Answer]:
        """Status and JSON of the answer; (None, {"error": …}) if there was none."""
        headers = {"Authorization": f"Bearer {self._keys[seen.plan.tenant]}", **more}
        timeout = aiohttp.ClientTimeout(total=ANSWER_S + (WAIT_MS / 1000 if path.startswith("runsync") else 0))
        try:
            async with self._http.request(
                method, f"{self._url}/{path}", json=body, headers=headers, timeout=timeout
            ) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, {"error": repr(error)}

    def read_again(self) -> None:
        """Every job's state once more, and every file of the completed ones."""
        asyncio.run(self._read_all())

    async def _read_all(self) -> None:
        left = [seen for seen in self.seen if seen.id]
        async with self._session() as self._http:
            await asyncio.gather(*(self._read_some(left) for _ in range(READERS)))

    async def _read_some(self, left: list[Seen]) -> None:
        while left:
            seen = left.pop()
            status, answer = await self._call(seen, "GET", f"status/{seen.id}")
            if status != 200:
                seen.wrong.append(f"at the end, status was answered {status}: {answer}")
                continue
            self._told(seen, answer)
            if answer["status"] == "COMPLETED":
                await self._download(seen, answer["output"])

    async def _download(self, seen: Seen, output: Answer) -> None:
        """Each file as it was reported, and with this very workflow inside."""
        for url, asset in zip(output["files"], output["assets"], strict=True):
            async with self._http.get(url) as response:
                body = await response.read()
            seen.downloads += 1
            if (response.status, len(body), hashlib.sha256(body).hexdigest()) != (200, asset["bytes"], asset["sha256"]):
                seen.wrong.append(f"{asset['name']} is not as reported: status {response.status}, {len(body)} bytes")
            elif f"{seen.token}-".encode() not in body:
                seen.wrong.append(f"{asset['name']} is of another workflow")
