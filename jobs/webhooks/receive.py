"""receive(): a webhook from RunPod, whose token was verified: parse (its status JSON), apply, and keep what came."""

import orjson
from django.db import transaction

from accounts import sql
from jobs import reported
from jobs.backends.runpod import read_report
from jobs.ids import AttemptId
from jobs.reported import NOTHING_YET, AtS3
from jobs.wire.bodies import Part, Unreadable, split_object

KEPT = ("id", "status", "delayTime", "executionTime", "workerId", "error", "output")  # not its copy of the request
FIELD_CHARS = 4_000
MOST_RECEIPTS = 20  # of an attempt; none of a job whose content was deleted


def receive(attempt: AttemptId, body: bytes, fault: str = "", at_s3: AtS3 = NOTHING_YET) -> None:
    """All that came is durable when this returns. fault: why the body could not be taken.

    Raises NotLookedAt and NotStored, having changed nothing, as news.done does."""
    with transaction.atomic():
        fields, outcome = _applied(attempt, body, fault, at_s3)
        _keep(attempt, len(body), fields, outcome)


def _applied(attempt: AttemptId, body: bytes, fault: str, at_s3: AtS3) -> tuple[dict[str, Part], str]:
    """A body that cannot be read may still stand for a paid result: RunPod is asked for it."""
    if fault:
        return {}, reported.unreadable(attempt, fault)
    try:
        report = read_report(body)
    except Unreadable as error:
        return {}, reported.unreadable(attempt, f"it is not RunPod's status JSON: {error}")
    return split_object(body).values, reported.apply(attempt, report, at_s3)


KEEP = """
INSERT INTO jobs_receipt (job_id, attempt, at, bytes, said, outcome)
SELECT j.id, %(number)s, clock_timestamp(), %(bytes)s, %(said)s, %(outcome)s FROM jobs_job j
 WHERE j.id = %(job)s AND j.payload_gone_at IS NULL
   AND (SELECT count(*) FROM jobs_receipt WHERE job_id = %(job)s AND attempt = %(number)s) < %(most)s"""


def _keep(attempt: AttemptId, size: int, fields: dict[str, Part], outcome: str) -> None:
    said: dict[str, object] = {name: _cut(fields[name]) for name in KEPT if name in fields}
    if others := sorted(fields.keys() - {*KEPT}):
        said["also"] = [name[:50] for name in others[:20]]
    params = {"job": attempt.job, "number": attempt.number, "bytes": size, "most": MOST_RECEIPTS}
    sql.run(KEEP, params | {"said": orjson.dumps(said).decode() if said else "", "outcome": outcome[:200]})


def _cut(part: Part) -> object:
    text = part.raw.decode()
    return orjson.Fragment(part.raw) if len(text) <= FIELD_CHARS else f"{text[:FIELD_CHARS]}… ({len(text)} characters)"
