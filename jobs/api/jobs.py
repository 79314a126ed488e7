"""/api/v1/jobs/<id>: a tenant's job, to be deleted."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobs import absent
from jobs.deletion import delete_job
from jobs.ids import JobId, parse_job_id
from jobs.models import Deletion, Job
from storage.assets import WHEN


class OneJob(APIView):  # type: ignore[misc]
    def delete(self, request: Request, job: str) -> Response:
        """202: it cannot be read any more; the receipt says how far its deletion is."""
        found = _own(request, job)
        return Response(_shown(delete_job(found.uuid, "by its tenant")), 202)


def _own(request: Request, text: str) -> JobId:
    """Raises Refused(404)."""
    job = parse_job_id(text)
    own = {"pk": job.uuid, "sync": job.sync, "tenant_id": request.user.tenant_id} if job else {}
    known = {"job_id": job.uuid, "tenant_id": request.user.tenant_id} if job else {}
    if job is None or not (Job.all_tenants.filter(**own).exists() or Deletion.all_tenants.filter(**known).exists()):
        raise absent.no_job(text, where="")
    return job


def _shown(receipt: Deletion) -> dict[str, Any]:
    numbers = ("payloads", "events", "assets", "files", "bytes", "out_of_reach")
    return {
        "receipt": str(receipt.pk),
        "asked_at": receipt.asked_at.strftime(WHEN),
        "done_at": receipt.done_at and receipt.done_at.strftime(WHEN),
        **{name: getattr(receipt, name) for name in numbers},
    }
