"""What was deleted is counted in its receipt, in the transaction that deletes it."""

from collections.abc import Collection
from uuid import UUID

from accounts import sql
from accounts.models import uuid7
from jobs.models import Deletion
from storage.assets import WHEN

TODAY = """
INSERT INTO jobs_deletion AS d (id, tenant_id, what, day, asked_by, asked_at, done_at)
SELECT %(id)s, %(tenant)s, 'retention', (now.at AT TIME ZONE 'UTC')::date, 'retention', now.at, now.at
  FROM (SELECT clock_timestamp() AS at) now
    ON CONFLICT (tenant_id, day) DO UPDATE SET done_at = excluded.done_at
RETURNING d.id"""


def of_today(tenant_id: UUID) -> UUID:
    """The receipt of what a tenant's retention deletes today; locked."""
    found: UUID = sql.one(TODAY, {"id": uuid7(), "tenant": tenant_id})[0]
    return found


def count(receipt: UUID, **numbers: int) -> None:
    """Add to its columns of these names."""
    sets = ", ".join(f"{name} = {name} + %({name})s" for name in numbers)
    sql.run(f"UPDATE jobs_deletion SET {sets} WHERE id = %(id)s", numbers | {"id": receipt})


NUMBERS = ("jobs", "payloads", "events", "assets", "files", "bytes", "out_of_reach")


def text(receipt: Deletion) -> str:
    """For a console."""
    facts: dict[str, object] = {"receipt": receipt.pk, "what": receipt.what, "tenant": receipt.tenant}
    facts |= {"job": receipt.job_id} if receipt.job_id else {}
    facts |= {"asked": f"{receipt.asked_at:{WHEN}} {receipt.asked_by}"}
    facts |= {"done": f"{receipt.done_at:{WHEN}}" if receipt.done_at else "not yet"}
    facts |= {name: getattr(receipt, name) for name in NUMBERS} | ({"waits": receipt.fault} if receipt.fault else {})
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def blame(receipts: Collection[UUID], fault: str) -> None:
    """What keeps these from being done; retention's are never done, and its log says it."""
    sql.run("UPDATE jobs_deletion SET fault = %s WHERE id = ANY (%s) AND done_at IS NULL", [fault, sorted(receipts)])
