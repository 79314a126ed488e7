"""Following a job: what its reader is told next, from what he has had (wire/news.py)."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson

from accounts import access, sql
from accounts.errors import not_found
from accounts.keys import GivenKey
from jobs import history
from jobs.ids import JobId, public_id
from jobs.lifecycle import READ
from jobs.models.job import Event
from jobs.sight import Queued
from jobs.states import State
from jobs.waits import why

LINES = 500  # of the timeline in one read
MOST_BYTES = 64 * 1024  # of a progress; a stock worker may send any JSON

Kind = Event.Kind
STATE_AFTER = {
    **dict.fromkeys((Kind.CREATED, Kind.RETRIED, Kind.LOST, Kind.HANDED_BACK, Kind.UNDONE), State.IN_QUEUE),
    **dict.fromkeys((Kind.HANDED, Kind.STARTED), State.IN_PROGRESS),
    **{Kind(state.value.lower()): state for state in (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT)},
}
"""What moves a job; the timeline's other lines are for the operator."""
TOLD_WHY = (Kind.LOST, Kind.HANDED_BACK, Kind.UNDONE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader has had: so many lines of the timeline; and of what is only told when it has changed, the last.

    version: of the job's news, as history.have_news says it.
    """

    lines: int = 0
    progress: bytes = b""
    waits: Any = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell. json: its bytes. lines: how many of the timeline the reader has had with it."""

    kind: str
    json: bytes
    lines: int


@dataclass(frozen=True, slots=True)
class Reading:
    """more: the timeline goes on, read again at once. ended: the job has, and there is nothing to come."""

    news: list[News]
    seen: Seen
    queued: Queued | None = None
    more: bool = False
    ended: bool = False


OWN = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, e.name
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id)
    ON j.id = %(job)s AND j.sync = %(sync)s"""


def endpoint_of(key: GivenKey, job: JobId) -> str:
    """The endpoint of the caller's job. Raises Refused: 401, 403, 404."""
    row = sql.one(OWN, access.api_key_params(key, READ) | {"job": job.uuid, "sync": job.sync})
    access.check_api_key(key, READ, row)
    if row[access.API_KEY_WIDTH] is None:
        raise no_job(public_id(job.uuid, job.sync))
    return str(row[access.API_KEY_WIDTH])


def no_job(text: str) -> Exception:
    return not_found(f"There is no job {text!r} of yours.")


READING = f"""
SELECT {history.COLUMNS}, {history.VERSION}, (
       SELECT json_agg(json_build_array(l.kind, l.attempt, l.at, l.text) ORDER BY l.id) FROM (
              SELECT * FROM jobs_event l WHERE l.job_id = j.id ORDER BY l.id OFFSET %(lines)s LIMIT {LINES}) l)
  FROM jobs_job j JOIN jobs_endpoint e ON e.id = j.endpoint_id JOIN jobs_payload p ON p.job_id = j.id
 WHERE j.id = %(job)s"""


def read(job: UUID, seen: Seen) -> Reading:
    """What is new for this reader: lines of the timeline in order, then how far the job is, or its end.

    One statement, so that an end comes after all that led to it. A job that is gone has ended, with nothing to tell.
    """
    row = sql.first(READING, {"job": job, "lines": seen.lines})
    if row is None:
        return Reading([], seen, ended=True)
    snapshot, (version, lines) = history.snapshot(row), row[history.COLUMNS_WIDTH :]
    news = _moves(lines or [], seen.lines)
    seen = replace(seen, lines=seen.lines + len(lines or []), version=version)
    if len(lines or []) == LINES:
        return Reading(news, seen, more=True)
    if snapshot.ended:
        return Reading([*news, News("end", snapshot.json(), seen.lines)], seen, ended=True)
    if snapshot.queued:
        place, seen = waits(snapshot.queued, replace(seen, progress=b""))
        return Reading(news + place, seen, queued=snapshot.queued)
    progress = snapshot.progress or b""
    if progress and progress != seen.progress and len(progress) <= MOST_BYTES:
        news.append(News("progress", progress, seen.lines))
    return Reading(news, replace(seen, progress=progress[:MOST_BYTES], waits=None))


def waits(queued: Queued, seen: Seen) -> tuple[list[News], Seen]:
    """Where it is in the queue and why, if that has changed. It costs the database nothing."""
    told = why(queued)
    if told is None or told == seen.waits:
        return [], seen
    return [News("queue", orjson.dumps(told), seen.lines)], replace(seen, waits=told)


def _moves(lines: list[list[Any]], had: int) -> list[News]:
    return [
        News("state", orjson.dumps(_move(Kind(kind), *line)), number)
        for number, (kind, *line) in enumerate(lines, had + 1)
        if kind in STATE_AFTER
    ]


def _move(kind: Event.Kind, attempt: int, at: str, text: str) -> dict[str, Any]:
    told: dict[str, Any] = {"event": kind.value, "status": STATE_AFTER[kind].value, "at": at}
    told |= {"attempt": attempt} if attempt else {}
    return told | ({"why": text} if kind in TOLD_WHY and text else {})
