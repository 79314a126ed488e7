"""dispatch(): claims for endpoints whose backend is pushed to, and applies what it answers at once."""

from jobs.backends.base import Backend, Handover
from jobs.backends.dummy import Dummy
from jobs.backends.fleet import Fleet
from jobs.depth import Holder
from jobs.ids import AttemptId, attempt_id
from jobs.models import Endpoint
from jobs.news import Done, done
from jobs.queue import Claimed, claim

BACKENDS: dict[str, type[Backend]] = {Endpoint.Backend.FLEET: Fleet, Endpoint.Backend.DUMMY: Dummy}


def dispatch(endpoint_id: int) -> int:
    """Hand out what the endpoint's queue has; returns how many jobs were handed over."""
    endpoint = Endpoint.objects.get(pk=endpoint_id)
    backend = BACKENDS[endpoint.backend]()
    holder = Holder(name=f"backend {endpoint.backend}")
    handed = 0
    while not backend.is_pulled and (taken := claim(endpoint_id, holder, 10).jobs):
        for claimed in taken:
            _submit(endpoint_id, backend, holder, claimed)
        handed += len(taken)
    return handed


def _submit(endpoint_id: int, backend: Backend, holder: Holder, claimed: Claimed) -> None:
    name = attempt_id(claimed.job, claimed.sync, claimed.number)
    result = backend.submit(Handover(attempt_id=name, input=claimed.input))
    if result is not None:
        attempt = AttemptId(claimed.job, claimed.number)
        done(endpoint_id, holder.name, attempt, Done(output=result.output, error=result.error))
