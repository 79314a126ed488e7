"""A job's stream: the chunks that its worker's generator yields, each given to its client once and in order.

An attempt keeps at most OUTPUT_MAX_BYTES of it. A lost attempt's chunks go with it: the next one's stream begins anew.
"""

import logging
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.db import transaction

from accounts import access, sql
from accounts.keys import GivenKey
from jobs import history
from jobs.granted import READ, own_job
from jobs.ids import AttemptId, JobId, public_id
from jobs.live import announce, stream_key
from jobs.news import lock_attempt
from jobs.states import FINAL, State, lock, note

log = logging.getLogger("hearth.stream")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`body`: JSON bytes as they came; `fault`: why there are none."""

    body: bytes = b""
    mended: bool = False
    fault: str = ""


def begin(key: GivenKey, endpoint: str) -> tuple[int, int]:
    """(endpoint id, the id that the next chunk is to have): by it, adding a chunk twice is as good as once."""
    endpoint_id = access.check_worker_key(key, endpoint)
    return endpoint_id, sql.one("SELECT nextval(pg_get_serial_sequence('jobs_chunk', 'id'))")[0]


ADD = """
WITH held AS (
    SELECT job_id, number, confirmed_at IS NULL AS unconfirmed FROM jobs_attempt
     WHERE job_id = %(job)s AND number = %(number)s AND ended_at IS NULL AND worker_name = %(worker)s
       AND endpoint_id = %(endpoint)s FOR NO KEY UPDATE
), confirmed AS (
    UPDATE jobs_attempt a SET confirmed_at = clock_timestamp() FROM held
     WHERE unconfirmed AND a.job_id = held.job_id AND a.number = held.number
), size AS (
    SELECT octet_length(%(body)s::bytea) + coalesce(
           (SELECT total_bytes FROM jobs_chunk WHERE job_id = %(job)s ORDER BY id DESC LIMIT 1), 0) AS total
), chunk AS (
    INSERT INTO jobs_chunk (id, job_id, attempt, body, total_bytes, at)
    SELECT %(id)s, job_id, number, %(body)s, total, clock_timestamp() FROM held, size WHERE total <= %(most)s
        ON CONFLICT (id) DO NOTHING
)
SELECT total FROM held, size"""


def add(endpoint_id: int, worker_name: str, attempt: AttemptId, chunk_id: int, chunk: Chunk) -> None:
    """Keep a chunk of the job's current attempt, from the worker that holds it; whatever else comes is noted, once.

    One statement: it locks the attempt, and whoever ends that writes to it first.
    """
    params = {"job": attempt.job, "number": attempt.number, "worker": worker_name, "endpoint": endpoint_id}
    params |= {"id": chunk_id, "body": chunk.body, "most": settings.OUTPUT_MAX_BYTES if not chunk.fault else -1}
    held = sql.first(ADD, params)
    if held is None:
        _ignore(endpoint_id, worker_name, attempt)
    elif chunk.fault:
        _note_once(attempt, "noted", "a chunk of the stream was lost", f": {chunk.fault}")
    elif held[0] > settings.OUTPUT_MAX_BYTES:
        text = f"the stream has reached {settings.OUTPUT_MAX_BYTES} bytes: chunks beyond are not kept"
        _note_once(attempt, "noted", text)
    else:
        if chunk.mended:
            _note_once(attempt, "noted", "NaN or Infinity in the stream was made null")
        announce(stream_key(attempt.job))


def _ignore(endpoint_id: int, worker_name: str, attempt: AttemptId) -> None:
    with transaction.atomic():
        held = lock_attempt(attempt)
        if held is None or held.endpoint_id != endpoint_id:
            log.info("job-stream of worker %s names no attempt of its endpoint: %s", worker_name, attempt)
        elif held.worker_name != worker_name:
            _note_once(attempt, "ignored", "job-stream of a worker which does not hold this attempt")
        else:
            _note_once(attempt, "ignored", "job-stream after the attempt had ended")


def _note_once(attempt: AttemptId, kind: str, what: str, more: str = "") -> None:
    """The first of its kind only: a generator may say the same ten thousand times."""
    with transaction.atomic():
        lock(attempt.job)
        said = "SELECT 1 FROM jobs_event WHERE job_id = %s AND attempt = %s AND kind = %s AND starts_with(text, %s)"
        if sql.first(said, [attempt.job, attempt.number, kind, what]) is None:
            note(attempt.job, attempt.number, kind, what + more)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one read of a stream gave: the chunks' ids, and RunPod's answer. `ended`: so has the job, with these."""

    chunks: list[int]
    ended: bool
    json: bytes


PIECE_BYTES, PIECE_CHUNKS = 5 * 1024**2, 10_000
GIVE = """
WITH unsent AS (
    SELECT id, row_number() OVER w AS n, sum(octet_length(body)) OVER w - octet_length(body) AS before
      FROM (SELECT id, body FROM jobs_chunk WHERE job_id = %(job)s AND sent_at IS NULL ORDER BY id LIMIT %(most)s + 1) c
    WINDOW w AS (ORDER BY id)
), given AS (
    UPDATE jobs_chunk c SET sent_at = clock_timestamp() FROM unsent
     WHERE c.id = unsent.id AND n <= %(most)s AND before < %(bytes)s RETURNING c.id, c.body
)
SELECT id, body, (SELECT count(*) FROM unsent) FROM given ORDER BY id"""


def read(key: GivenKey, endpoint: str, job: JobId) -> Piece:
    """Take the next chunks out of the stream, up to PIECE_BYTES and the one that passes them.

    Raises Refused: 401, 403, 404. The job is locked, so that of two readers each has what the other has not, and no
    chunk follows an end that was read here. The answer is made before the commit: without one nothing is taken.
    """
    own_job(key, endpoint, job, READ)
    with transaction.atomic():
        state = lock(job.uuid)
        given = sql.rows(GIVE, {"job": job.uuid, "most": PIECE_CHUNKS, "bytes": PIECE_BYTES})
        left = bool(given) and given[0][2] > len(given)
        ended = state in FINAL and not left
        answer = history.result(job.uuid).fields() if ended else _unended(job, state)
        answer["stream"] = [{"output": orjson.Fragment(bytes(body))} for _, body, _ in given]
        return Piece(chunks=[row[0] for row in given], ended=ended, json=orjson.dumps(answer))


def _unended(job: JobId, state: State | None) -> dict[str, Any]:
    """While chunks are left the job is IN_PROGRESS: JS stops at the first final status."""
    shown = State.IN_QUEUE if state == State.IN_QUEUE else State.IN_PROGRESS
    return {"id": public_id(job.uuid, job.sync), "status": shown.value}


def unread(job: JobId, piece: Piece) -> None:
    """The client was gone before it had these: the next reader gets them."""
    if piece.chunks:
        sql.run("UPDATE jobs_chunk SET sent_at = NULL WHERE id = ANY (%s)", [piece.chunks])
        announce(stream_key(job.uuid))
