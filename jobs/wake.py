"""Who is woken after the commit: an endpoint's workers or its dispatcher, and who holds a job that ended here."""

from uuid import UUID

from django_q.tasks import async_task

from accounts import sql
from jobs.live import announce, endpoint_key, worker_key
from jobs.models import Endpoint


def wake_endpoint(endpoint_id: int, backend: str) -> None:
    """After the commit: wake a worker's poll, or for backends that are pushed to, the dispatcher."""
    if backend == Endpoint.Backend.FLEET:
        announce(endpoint_key(endpoint_id))
    else:
        async_task("jobs.tasks.dispatch", endpoint_id, cluster="fast")


HOLDER = """
SELECT a.worker_id, e.id, e.backend FROM jobs_attempt a JOIN jobs_endpoint e ON e.id = a.endpoint_id
 WHERE a.job_id = %s AND a.ended_at IS NULL"""


def holder(job: UUID) -> sql.Row | None:
    """The worker, if it is one, and the endpoint and its backend that hold the job, whose row is locked."""
    return sql.first(HOLDER, [job])


def wake_to_stop(held: sql.Row | None) -> None:
    """After the commit: a holder learns that what it holds has ended."""
    worker_id, endpoint_id, backend = held or (None, None, Endpoint.Backend.FLEET)
    if worker_id:
        announce(worker_key(worker_id))
    elif backend != Endpoint.Backend.FLEET:
        wake_endpoint(endpoint_id, backend)
