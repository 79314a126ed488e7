"""Job ids as clients see them (`<uuid>-e1`, `sync-<uuid>-e1`) and attempt ids as workers see them (rules.md 1)."""

import re
from dataclasses import dataclass
from uuid import UUID

_JOB = r"(?P<sync>sync-)?(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-e1"
_JOB_ID = re.compile(_JOB)
_ATTEMPT_ID = re.compile(_JOB + r"(-a(?P<number>[1-9]\d{0,8}))?")


@dataclass(frozen=True)
class JobId:
    uuid: UUID
    sync: bool


@dataclass(frozen=True)
class AttemptId:
    job: UUID
    number: int


def public_id(uuid: UUID, sync: bool) -> str:
    return f"{'sync-' if sync else ''}{uuid}-e1"


def attempt_id(uuid: UUID, sync: bool, number: int) -> str:
    """The job's id for attempt 1, with -a<N> from the second on: the SDK takes equal ids for one job."""
    return public_id(uuid, sync) + (f"-a{number}" if number > 1 else "")


def parse_job_id(text: str) -> JobId | None:
    found = _JOB_ID.fullmatch(text)
    return JobId(UUID(found["uuid"]), bool(found["sync"])) if found else None


def parse_attempt_id(text: str) -> AttemptId | None:
    found = _ATTEMPT_ID.fullmatch(text)
    return AttemptId(UUID(found["uuid"]), int(found["number"] or 1)) if found else None
