"""Server-Sent Events as the tests read them: a stream open in a thread of its own, and what it has said so far."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.wire.api import Api, until


@dataclass(frozen=True)
class Said:
    kind: str
    id: str
    data: Any


def parsed(lines: Iterator[str]) -> Iterator[Said]:
    """By the standard: fields up to an empty line, `data` joined by newlines, comments left out."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif not line:
            if "data" in fields:
                yield Said(fields["event"][-1], fields["id"][-1], json.loads("\n".join(fields["data"])))
            fields = {}


class Stream:
    """GET /api/v1/jobs/<job>/events. `said` grows; `ended`: the server has closed it."""

    def __init__(self, api: Api, job: str, after: str = "", **params: Any) -> None:
        self.said: list[Said] = []
        self.raw: list[str] = []
        self.ended = False
        self.error: Exception | None = None
        headers = {"Authorization": api.authorization} | ({"Last-Event-ID": after} if after else {})
        self._client = httpx.Client(base_url=api.http.base_url, timeout=40)
        url = f"/api/v1/jobs/{job}/events"
        request = self._client.build_request("GET", url, headers=headers, params=params or None)
        self.response = self._client.send(request, stream=True)
        assert self.response.status_code == 200, self.response.read()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for said in parsed(self._lines()):
                self.said.append(said)
        except httpx.HTTPError as error:
            self.error = error
        self.ended = True

    def _lines(self) -> Iterator[str]:
        for line in self.response.iter_lines():
            self.raw.append(line)
            yield line

    def until(self, look: Callable[["Stream"], Any], seconds: float = 10) -> Any:
        return until(lambda: look(self), seconds)

    def has(self, kind: str, **fields: Any) -> Said:
        """The first event of this kind with these fields, as soon as it is there."""
        found = self.until(lambda s: [x for x in s.said if x.kind == kind and fields.items() <= x.data.items()])
        return found[0]  # type: ignore[no-any-return]

    def end(self, seconds: float = 15) -> list[Said]:
        """All that it said, once the server has closed it."""
        self.until(lambda s: s.ended, seconds)
        assert self.error is None, self.error
        return self.said

    def close(self) -> None:
        self.response.close()
        self._client.close()

    @property
    def moves(self) -> list[str]:
        return [said.data["event"] for said in self.said if said.kind == "state"]
