"""The floor of `run` and `status`: bare granian and async psycopg that do the verb's one statement and nothing else.

It is Hearth's own statement on Hearth's own database, so key check, job, payload and event are the same; parsing,
limits, checks, thread pool, Starlette and all else are what the ratio of the two shows.
"""

from dataclasses import asdict
from typing import Any

import django
import orjson
import psycopg

django.setup()

from django.conf import settings

from accounts import access
from accounts.keys import given_key
from accounts.models import uuid7
from jobs import creation, history
from jobs.ids import parse_job_id, public_id
from jobs.wire import metadata
from jobs.wire.bodies import parse_request
from jobs.wire.submission import parse_submission

EMPTY = parse_submission(
    parse_request(b'{"input": {"workflow": {"1": {"class_type": "A", "inputs": {}}}}}'), sync=False
)
FIELDS = asdict(EMPTY) | {
    "workflow_input": None,
    "workflow": None,
    "version": None,
    "params": None,
    "inputs": None,
    "moved_bytes": 0,
    "request_bucket": None,
    "raw_request_bucket": None,
    "once_key": None,
    "body_sha256": None,
    **metadata.columns({}),
}
STATE, OUTPUT = access.API_KEY_WIDTH + 2, access.API_KEY_WIDTH + 8  # of STATUS's columns
JSON = [("content-type", "application/json")]


class Floor:
    def __init__(self) -> None:
        self._idle: list[psycopg.AsyncConnection[Any]] = []

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        _, _, endpoint, verb, *rest = scope.path.split("/")
        key = given_key(scope.headers.get("authorization"))
        params = {"key_prefix": key.prefix, "key_digest": key.digest, "scope": "run", "endpoint": endpoint}
        body = await (self._run(params, await protocol()) if verb == "run" else self._status(params, rest[0]))
        protocol.response_bytes(200 if body else 404, JSON, body)

    async def _run(self, params: dict[str, Any], body: bytes) -> bytes:
        job = uuid7()
        row = await self._one(creation.CREATE, FIELDS | params | {"id": job, "input": body})
        return orjson.dumps({"id": public_id(job, False), "status": "IN_QUEUE"}) if row[-1] else b""

    async def _status(self, params: dict[str, Any], text: str) -> bytes:
        job = parse_job_id(text)
        assert job
        row = await self._one(history.STATUS, params | {"scope": "read", "job": job.uuid, "sync": job.sync})
        answer = {"id": text, "status": row[STATE]}
        if row[OUTPUT] is not None:
            answer["output"] = orjson.Fragment(row[OUTPUT])
        return orjson.dumps(answer)

    async def _one(self, statement: str, params: dict[str, Any]) -> Any:
        conn = self._idle.pop() if self._idle else await self._connect()
        cursor = await conn.execute(statement, params, prepare=True)
        row = await cursor.fetchone()
        self._idle.append(conn)
        return row

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(settings.DATABASE_URL, autocommit=True)


app = Floor()
