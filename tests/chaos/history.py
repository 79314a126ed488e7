"""What a run has left in the database: every job with its attempts, events, files and deliveries."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import class_row

T = TypeVar("T")
TOKEN = re.compile(r"c\d+-\d+-x")


@dataclass(frozen=True, kw_only=True)
class Job:
    id: UUID
    tenant: str
    tenant_id: UUID
    grant_id: int
    max_running: int | None
    state: str
    attempt: int
    losses: int
    retries: int
    created_at: datetime
    finished_at: datetime | None
    input: bytes
    output: bytes | None
    error: bytes | None

    @property
    def token(self) -> str:
        """What the client named it by."""
        found = TOKEN.search(self.input.decode())
        return found[0] if found else ""

    @property
    def code(self) -> str:
        """The worker's word for what was wrong."""
        value = json.loads(self.output) if self.output else None
        return str(value.get("code", "")) if isinstance(value, dict) else ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    job_id: UUID
    number: int
    worker_name: str
    handed_at: datetime
    ended_at: datetime | None
    released_at: datetime | None
    outcome: str


@dataclass(frozen=True, kw_only=True)
class Event:
    job_id: UUID
    attempt: int
    kind: str
    at: datetime
    text: str


@dataclass(frozen=True, kw_only=True)
class Blob:
    """asset_job, asset_tenant: of the asset that names it, if one does."""

    job_id: UUID
    attempt: int
    tenant_id: UUID
    key: str
    bytes: int
    state: str
    asset_job: UUID | None
    asset_tenant: UUID | None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    job_id: UUID
    message: UUID
    kind: str
    retries: int
    state: str
    tries: int


@dataclass(kw_only=True)
class Story:
    """A job with all that belongs to it."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def timeline(self) -> str:
        lines = [f"{event.at:%H:%M:%S.%f} {event.attempt} {event.kind} {event.text}"[:160] for event in self.events]
        return "\n      ".join([f"{self.job.id} {self.job.tenant} {self.job.token} {self.job.state}", *lines])


JOBS = """
SELECT j.id, t.name AS tenant, j.tenant_id, j.grant_id, g.max_running, j.state, j.attempt, j.losses, j.retries,
       j.created_at, j.finished_at, p.input, p.output, p.error
  FROM jobs_job j JOIN accounts_tenant t ON t.id = j.tenant_id JOIN jobs_grant g ON g.id = j.grant_id
  JOIN jobs_payload p ON p.job_id = j.id ORDER BY j.id"""
ATTEMPTS = """
SELECT job_id, number, worker_name, handed_at, ended_at, released_at, outcome FROM jobs_attempt ORDER BY number"""
EVENTS = "SELECT job_id, attempt, kind, at, text FROM jobs_event ORDER BY id"
BLOBS = """
SELECT b.job_id, b.attempt, b.tenant_id, b.key, b.bytes, b.state, a.job_id AS asset_job, a.tenant_id AS asset_tenant
  FROM storage_blob b LEFT JOIN storage_asset a ON a.blob_id = b.id ORDER BY b.key"""

DELIVERIES = "SELECT job_id, message, kind, retries, state, tries FROM jobs_delivery ORDER BY id"


def load(database_url: str) -> list[Story]:
    """Every job, in the order of their submission."""
    with psycopg.connect(database_url) as session:
        stories = {job.id: Story(job=job) for job in _rows(session, Job, JOBS)}
        for attempt in _rows(session, Attempt, ATTEMPTS):
            stories[attempt.job_id].attempts.append(attempt)
        for event in _rows(session, Event, EVENTS):
            stories[event.job_id].events.append(event)
        for blob in _rows(session, Blob, BLOBS):
            stories[blob.job_id].blobs.append(blob)
        for delivery in _rows(session, Delivery, DELIVERIES):
            stories[delivery.job_id].deliveries.append(delivery)
    return list(stories.values())


def _rows(session: "psycopg.Connection[Any]", shape: type[T], statement: str) -> list[T]:
    with session.cursor(row_factory=class_row(shape)) as cursor:
        return cursor.execute(statement).fetchall()


OPEN = """
SELECT (SELECT count(*) FROM jobs_job WHERE state IN ('IN_QUEUE', 'IN_PROGRESS'))
     + (SELECT count(*) FROM jobs_attempt WHERE released_at IS NULL)"""


def still_open(database_url: str) -> int:
    """Jobs that have not ended and attempts that hold a slot."""
    return _count(database_url, OPEN)


def dying(database_url: str) -> int:
    """Files that nothing names any more and that are still to be deleted."""
    return _count(database_url, "SELECT count(*) FROM storage_blob WHERE state = 'dying'")


def make_pending_due(database_url: str) -> int:
    """Moves the time of the files that no attempt won to where their upload URLs have expired; how many there are."""
    with psycopg.connect(database_url) as session:
        done = session.execute(
            "UPDATE storage_blob SET created_at = created_at - interval '1 hour' WHERE state = 'pending'"
        )
        return done.rowcount


def end_leases(database_url: str) -> int:
    """Of deliveries, as if whoever sends one were gone for long; how many are not delivered."""
    with psycopg.connect(database_url) as session:
        return session.execute("UPDATE jobs_delivery SET leased_until = NULL WHERE state = 'pending'").rowcount


def make_deliveries_due(database_url: str) -> int:
    """Moves the next try of all that was not delivered to now; how many there are."""
    with psycopg.connect(database_url) as session:
        return session.execute("UPDATE jobs_delivery SET next_at = now() WHERE state = 'pending'").rowcount


def _count(database_url: str, statement: LiteralString) -> int:
    with psycopg.connect(database_url) as session:
        row = session.execute(statement).fetchone()
    assert row
    return int(row[0])


def by_grant(stories: list[Story]) -> list[list[Story]]:
    found = defaultdict(list)
    for story in stories:
        found[story.job.grant_id].append(story)
    return list(found.values())
