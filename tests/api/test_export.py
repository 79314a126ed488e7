"""GET /api/v1/jobs/export: all jobs that a list's filters find, as CSV or lines of JSON, for any patience."""

import asyncio
import csv
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.requests import Request

from accounts import sql
from accounts.models import ApiKey, uuid7
from jobs.export import COLUMNS, PAGE, Format, Page
from jobs.models import Attempt, Job
from jobs.wire import export
from jobs.wire.export import Export
from tests.api.test_history import fail
from tests.api.v1 import V1
from tests.cast import Client, new_client, new_place
from tests.wire.api import Api, finish, job_of, until

MANY = 12_000  # more than fits into the buffers of a socket
FILL = """
INSERT INTO jobs_job (id, sync, tenant_id, endpoint_id, grant_id, api_key_id, state, ttl_ms, execution_timeout_ms,
                      attempt, finished_at, delay_ms, execution_ms, worker_name, payload_gone_at, events_gone_at)
SELECT uuidv7(), false, %(tenant)s, %(endpoint)s, %(grant)s, %(key)s, 'COMPLETED', 1, 1,
       1, now(), n, n, repeat('w', 200), now(), now()
  FROM generate_series(1, %(many)s) n"""


def exported(v1: V1, form: str = "jsonl", **params: Any) -> str:
    answered = v1.call("GET", "jobs/export", params={"format": form, **params})
    assert answered.status_code == 200, answered.text
    return answered.text


def lines(v1: V1, **params: Any) -> list[Any]:
    return [json.loads(line) for line in exported(v1, **params).splitlines()]


def rows(v1: V1, **params: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(exported(v1, "csv", **params), newline="")))


@pytest.fixture(scope="module")
def many(database: str) -> Iterator[Client]:
    """A tenant with many jobs, without content."""
    client = new_client(new_place(), "many")
    ids = {"tenant": client.tenant.pk, "endpoint": client.place.endpoint.pk, "grant": client.grant.pk}
    key = ApiKey.all_tenants.get(tenant=client.tenant).pk
    sql.run(FILL, ids | {"key": key, "many": MANY})
    yield client
    sql.run("DELETE FROM jobs_job WHERE tenant_id = %s", [client.tenant.pk])


def test_lines_are_the_lists_jobs_and_what_they_used(acme: Api, v1: V1) -> None:
    failed = fail(acme, b'"x"')
    acme.run(metadata={"customer": 42})
    Attempt.objects.filter(job_id=job_of(failed).uuid).update(gpu_ms=1500, cost="0.25")
    told = lines(v1)
    assert [{**one, "gpu_ms": None, "cost": None, "payload_deleted_at": None} for one in v1.get("jobs")["results"]] == [
        {**one, "gpu_ms": None, "cost": None} for one in told
    ]
    assert {one["id"]: (one["gpu_ms"], one["cost"]) for one in told}[failed] == (1500, "0.250000")
    answered = v1.call("GET", "jobs/export", params={"format": "jsonl"})
    assert answered.headers["Content-Type"] == "application/x-ndjson"
    assert answered.headers["Content-Disposition"] == 'attachment; filename="jobs.jsonl"'
    assert answered.headers["RateLimit-Policy"].startswith('"api"')


def test_csv_has_the_same_in_columns(acme: Api, v1: V1) -> None:
    job, plain = acme.run(metadata={"customer": 42, "of": 'Größe, "quoted"\nand more'}), acme.run()
    ApiKey.all_tenants.filter(tenant=acme.client.tenant).update(name='key, "one"')
    first, second = rows(v1)
    assert tuple(first) == COLUMNS
    assert (first["id"], first["metadata"], first["key_name"]) == (plain, "{}", 'key, "one"')
    assert (second["id"], second["attempt_count"], second["started_at"]) == (job, "0", "")
    assert json.loads(second["metadata"]) == {"customer": 42, "of": 'Größe, "quoted"\nand more'}
    assert v1.call("GET", "jobs/export").headers["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("text", ['=cmd|"/c calc"!A1', "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\uff1d1"])
def test_what_a_spreadsheet_would_run_is_text(acme: Api, v1: V1, text: str) -> None:
    job = acme.run(metadata={"a": text})
    Job.all_tenants.filter(pk=job_of(job).uuid).update(worker_name=text)
    ApiKey.all_tenants.filter(tenant=acme.client.tenant).update(name=text)
    (row,) = rows(v1)
    assert (row["worker"], row["key_name"]) == (f"'{text}", f"'{text}")
    assert row["metadata"].startswith("{")


def test_without_jobs_it_is_empty_but_for_the_header(v1: V1) -> None:
    assert exported(v1) == ""
    assert exported(v1, "csv") == ",".join(COLUMNS) + "\r\n"


def test_it_has_the_lists_filters(acme: Api, v1: V1) -> None:
    ended = acme.run(metadata={"customer": 42})
    finish(acme, acme.take())
    failed, queued = fail(acme, b'"out of memory"'), acme.run(metadata={"customer": 42})
    asked: list[tuple[dict[str, str], list[str]]] = [
        ({"status": "COMPLETED"}, [ended]),
        ({"error": "OUT OF"}, [failed]),
        ({"metadata.customer": "42"}, [queued, ended]),
        ({"metadata.customer": "42", "status": "in_queue"}, [queued]),
        ({"until": "2020-01-01"}, []),
        ({"endpoint": acme.endpoint, "key": acme.client.key.prefix}, [queued, failed, ended]),
    ]
    for params, jobs in asked:
        assert [one["id"] for one in lines(v1, **params)] == jobs
        assert [one["id"] for one in rows(v1, **params)] == jobs


@pytest.mark.parametrize("query", ["format=xls", "status=LOST", "since=yesterday", "metadata.=1", "a=1&" * 1100])
def test_what_is_not_understood_is_refused(v1: V1, query: str) -> None:
    code = "invalid_metadata" if "metadata" in query else "bad_request"
    assert v1.refused(400, code, "GET", f"jobs/export?{query}")


def test_globex_gets_nothing_of_acmes_and_who_may_not_read_nothing(acme: Api, v1: V1, stranger: V1) -> None:
    acme.run(metadata={"customer": 42})
    for params in ({}, {"metadata.customer": "42"}, {"key": acme.client.key.prefix}):
        assert lines(stranger, **params) == []
    runner = v1.by(f"Bearer {acme.client.new_key(scopes=['run'])}")
    runner.refused(403, "forbidden", "GET", "jobs/export")
    v1.by("").refused(401, "unauthorized", "GET", "jobs/export")
    v1.refused(405, "method_not_allowed", "POST", "jobs/export")


def test_many_pages_make_one_file_without_a_gap(http: httpx.Client, many: Client) -> None:
    v1 = V1.of(http, many)
    assert v1.call("HEAD", "jobs/export").content == b""
    ids = [one["id"] for one in lines(v1)]
    assert len(set(ids)) == MANY > 2 * PAGE
    assert ids == sorted(ids, reverse=True)
    last = job_of(ids[-PAGE - 100]).uuid
    sql.run(
        "INSERT INTO jobs_metadata (job_id, tenant_id, name, value, is_text)"
        " SELECT id, tenant_id, 'old', 'true', false FROM jobs_job WHERE tenant_id = %s AND id <= %s",
        [many.tenant.pk, last],
    )
    assert [row["id"] for row in rows(v1, **{"metadata.old": "true"})] == ids[-PAGE - 100 :]


def reading(stack: ExitStack, url: Any, key: str) -> Iterator[bytes]:
    """An export of which the beginning was read."""
    headers = {"Authorization": f"Bearer {key}"}
    small = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    reader = stack.enter_context(httpx.Client(base_url=url, transport=small, timeout=60))
    answered = stack.enter_context(reader.stream("GET", "/api/v1/jobs/export?format=jsonl", headers=headers))
    assert answered.status_code == 200, answered.read()
    chunks = answered.iter_raw()
    assert next(chunks).startswith(b'{"id":')
    return chunks


BUSY = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND (state LIKE 'idle in%%' OR (state = 'active' AND query LIKE '%%jobs_job%%'))"""


def test_readers_that_pause_hold_nothing_and_are_a_few_at_a_time(
    http: httpx.Client, many: Client, stranger: V1
) -> None:
    v1 = V1.of(http, many)
    with ExitStack() as stack:
        paused = [stack.enter_context(ExitStack()) for _ in range(export.MOST_OF_ONE)]
        kept = [reading(one, http.base_url, many.api_key) for one in paused]
        assert "4 exports" in v1.refused(429, "too_many_exports", "GET", "jobs/export")
        assert lines(stranger) == []
        until(lambda: sql.one(BUSY)[0] == 0, 60)
        assert len(kept) == export.MOST_OF_ONE
        paused[0].close()  # hangs up
        until(lambda: v1.call("GET", "jobs/export", params={"until": "2020-01-01"}).status_code == 200, 60)


def test_a_key_that_is_revoked_meanwhile_ends_it_visibly(http: httpx.Client, many: Client) -> None:
    text = many.new_key()
    with ExitStack() as stack:
        chunks = reading(stack, http.base_url, text)
        ApiKey.all_tenants.get(tenant=many.tenant, prefix=text.split("_")[1]).revoke()
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)


class Reads:
    """Pages of 200 KB without an end, counted; and what is sent of them to a reader who hangs after some of it."""

    def __init__(self, hangs_after: int = 10**9) -> None:
        self.pages, self.gone, self._hangs_after = 0, False, hangs_after
        self.sent: list[Any] = []

    def __call__(self, after: UUID | None) -> Page:
        self.pages += 1
        return Page(body=b"x" * 200_000, last=uuid7())

    async def receive(self) -> Any:
        if not self.gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) > self._hangs_after:
            await asyncio.Event().wait()

    async def export(self) -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        made = Export(Request(scope, self.receive, self.send), "a tenant", Format.JSONL, self)
        await made(scope, self.receive, self.send)

    @property
    def has_end(self) -> bool:
        return any("body" in message and not message.get("more_body") for message in self.sent)


def test_no_page_is_read_before_the_last_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PATIENCE_S", 0.2)
    reads = Reads(hangs_after=6)  # the start, four parts of the first page, one of the second
    asyncio.run(reads.export())
    assert (reads.pages, reads.has_end, export._open.total()) == (2, False, 0)
    assert all(len(message.get("body", b"")) <= export.SLICE_BYTES for message in reads.sent)


def test_a_reader_who_has_gone_has_no_more_read_for_him() -> None:
    reads = Reads()
    reads.gone = True
    asyncio.run(reads.export())
    assert (reads.pages, reads.has_end, export._open.total()) == (1, False, 0)


def test_of_all_tenants_no_more_than_so_many_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST", 0)
    reads = Reads()
    asyncio.run(reads.export())
    assert (reads.pages, reads.sent[0]["status"], reads.has_end) == (0, 503, True)


def test_while_the_database_is_away_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "AWAY_S", 0.0)
    pages = iter([Page(body=b"a", last=uuid7()), None, None, Page(body=b"b", last=None)])

    def read(after: UUID | None) -> Page:
        page = next(pages)
        if page is None:
            raise export.Refused(503, "unavailable", "The database is away.", retry_after_s=2)
        return page

    reads = Reads()
    monkeypatch.setattr(Reads, "__call__", lambda self, after: read(after))
    asyncio.run(reads.export())
    assert b"".join(message.get("body", b"") for message in reads.sent) == b"ab"
    assert reads.has_end
