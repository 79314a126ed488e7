"""Why a job cannot be read: the caller has none such (404), or it or what it was given and gave was deleted (410)."""

from datetime import datetime
from uuid import UUID

from accounts import access, sql
from accounts.errors import Refused, not_found
from jobs.ids import JobId, public_id
from storage.assets import WHEN


def no_job(text: str, where: str = " on this endpoint") -> Refused:
    return not_found(f"There is no job {text!r} of yours{where}.")


def deleted(text: str, at: datetime, what: str = "") -> Refused:
    return Refused(410, "gone", f"{what or 'The job'} {text!r} was deleted at {at:{WHEN}}.")


WHY = f"""
SELECT j.payload_gone_at, true
  FROM accounts_apikey k JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id
 WHERE k.id = %(api_key)s AND j.id = %(job)s AND j.sync = %(sync)s
   AND e.name = coalesce(%(endpoint)s::text, e.name)
   AND j.payload_gone_at IS NOT NULL AND {access.allows("k")}
UNION ALL
SELECT g.at, false FROM accounts_apikey k JOIN storage_gone g USING (tenant_id)
 WHERE k.id = %(api_key)s AND g.id = %(job)s"""


def why(api_key: int, job: JobId, endpoint: str | None = None) -> Refused:
    """Of a job that the key's tenant does not have, on this endpoint or on any, or not any more."""
    text = public_id(job.uuid, job.sync)
    params = {"api_key": api_key, "job": job.uuid, "sync": job.sync, "endpoint": endpoint}
    row = sql.first(WHY, params)
    if row is None:
        return no_job(text) if endpoint else no_job(text, where="")
    return payload(text, row[0]) if row[1] else deleted(text, row[0])


def payload(text: str, at: datetime) -> Refused:
    return deleted(text, at, "What was kept of the job")


def of(job: UUID) -> Refused:
    """Of a job that was there a moment ago, or without its payload."""
    row = sql.first("SELECT sync, payload_gone_at FROM jobs_job WHERE id = %s AND payload_gone_at IS NOT NULL", [job])
    if row:
        return payload(public_id(job, row[0]), row[1])
    row = sql.first("SELECT at FROM storage_gone WHERE id = %s", [job])
    return deleted(str(job), row[0]) if row else not_found(f"The job {job} was deleted.")
