"""Following a job: what its reader is told next, from what he has had (wire/news.py)."""

from base64 import b64encode
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import orjson

from accounts import access, sql
from accounts.keys import GivenKey
from jobs import absent, history, ready
from jobs.granted import READ
from jobs.ids import JobId, public_id
from jobs.models.job import Event
from jobs.sight import Queued
from jobs.states import State
from jobs.waits import why

LINES = 500  # of the timeline in one read
MOST_BYTES = 64 * 1024  # of a progress; a stock worker may send any JSON

Kind = Event.Kind
STATE_AFTER = {
    **dict.fromkeys((Kind.CREATED, Kind.RETRIED, Kind.MOVED, Kind.LOST, Kind.HANDED_BACK, Kind.UNDONE), State.IN_QUEUE),
    **dict.fromkeys((Kind.HANDED, Kind.STARTED), State.IN_PROGRESS),
    **{Kind(state.value.lower()): state for state in (State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT)},
}
"""What moves a job; the timeline's other lines are for the operator."""
TOLD_WHY = (Kind.LOST, Kind.HANDED_BACK, Kind.UNDONE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader has had: so many lines of the timeline; and of what is only told when it has changed, the last.

    preview: the row's version; None: he wants none. version: of the job's news, as history.have_news says it.
    """

    lines: int = 0
    progress: bytes = b""
    preview: str | None = ""
    waits: Any = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Of the timeline."""

    kind: Event.Kind
    attempt: int
    at: str
    text: str
    assets: list[dict[str, Any]] | None


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
SELECT {access.API_KEY_COLUMNS}, e.name, least(j.payload_gone_at, j.events_gone_at)
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id)
    ON j.id = %(job)s AND j.sync = %(sync)s AND {access.allows("caller")}"""


def endpoint_of(key: GivenKey, job: JobId) -> str:
    """The endpoint of the caller's job. Raises Refused: 401, 403, 404, 410."""
    row = sql.one(OWN, access.api_key_params(key, READ) | {"job": job.uuid, "sync": job.sync})
    access.check_api_key(key, READ, row)
    endpoint, gone_at = row[access.API_KEY_WIDTH :]
    if endpoint is None:
        raise absent.why(row[0], job)
    if gone_at:
        raise absent.deleted(public_id(job.uuid, job.sync), gone_at, "The timeline of the job")
    return str(endpoint)


READING = f"""
SELECT {history.COLUMNS}, {history.VERSION}, (
       SELECT json_agg(json_build_array(l.kind, l.attempt, l.at, l.text, l.assets::json) ORDER BY l.id) FROM (
              SELECT * FROM jobs_event l WHERE l.job_id = j.id ORDER BY l.id OFFSET %(lines)s LIMIT {LINES}) l),
       w.xmin::text, w.node, w.content_type, w.body
  FROM jobs_job j JOIN jobs_endpoint e ON e.id = j.endpoint_id JOIN jobs_payload p ON p.job_id = j.id
  LEFT JOIN jobs_preview w ON w.job_id = j.id AND w.attempt = j.attempt AND w.xmin::text <> %(preview)s::text
 WHERE j.id = %(job)s AND j.payload_gone_at IS NULL"""


def read(job: UUID, seen: Seen) -> Reading:
    """What is new for this reader: lines of the timeline in order, then how far the job is, or its end.

    One statement, so that an end comes after all that led to it. A job that is gone has ended, with nothing to tell.
    """
    row = sql.first(READING, {"job": job, "lines": seen.lines, "preview": seen.preview})
    if row is None:
        return Reading([], seen, ended=True)
    snapshot, (version, found, preview, *picture) = history.snapshot(row), row[history.COLUMNS_WIDTH :]
    lines = [Line(Kind(kind), *more) for kind, *more in found or ()]
    urls = _urls(job, snapshot, lines)
    news = [each for number, line in enumerate(lines, seen.lines + 1) for each in _of_line(line, number, urls)]
    seen = replace(seen, lines=seen.lines + len(lines), version=version)
    if len(lines) == LINES:
        return Reading(news, seen, more=True)
    if snapshot.ended:
        return Reading([*news, News("end", snapshot.json(), seen.lines)], seen, ended=True)
    if snapshot.queued:
        place, seen = waits(snapshot.queued, replace(seen, progress=b""))
        return Reading(news + place, seen, queued=snapshot.queued)
    progress = snapshot.progress or b""
    if progress and progress != seen.progress and len(progress) <= MOST_BYTES:
        news.append(News("progress", progress, seen.lines))
    if preview is not None:
        news.append(News("preview", _picture(*picture), seen.lines))
        seen = replace(seen, preview=preview)
    return Reading(news, replace(seen, progress=progress[:MOST_BYTES], waits=None))


def waits(queued: Queued, seen: Seen) -> tuple[list[News], Seen]:
    """Where it is in the queue and why, if that has changed. It costs the database nothing."""
    told = why(queued)
    if told is None or told == seen.waits:
        return [], seen
    return [News("queue", orjson.dumps(told), seen.lines)], replace(seen, waits=told)


def _urls(job: UUID, snapshot: history.Snapshot, lines: list[Line]) -> ready.Urls:
    """Of the files that the attempt which runs, or has ended the job, had stored by these lines."""
    mine = [line for line in lines if line.assets and line.attempt == snapshot.attempt and not snapshot.queued]
    ids = [asset["id"] for line in mine for asset in line.assets or ()]
    return ready.urls(job, ids, running=not snapshot.ended) if ids else {}


def _of_line(line: Line, number: int, urls: ready.Urls) -> list[News]:
    if line.kind in STATE_AFTER:
        return [News("state", orjson.dumps(_move(line)), number)]
    assets = ready.shown(line.assets or (), urls)
    return [News("output", orjson.dumps({"assets": assets}), number)] if assets else []


def _move(line: Line) -> dict[str, Any]:
    told: dict[str, Any] = {"event": line.kind.value, "status": STATE_AFTER[line.kind].value, "at": line.at}
    told |= {"attempt": line.attempt} if line.attempt else {}
    return told | ({"why": line.text} if line.kind in TOLD_WHY and line.text else {})


def _picture(node: str, content_type: str, body: bytes) -> bytes:
    return orjson.dumps({"node": node, "content_type": content_type, "data": b64encode(body).decode()})
