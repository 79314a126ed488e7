"""POST /api/v1/jobs/<id>/run-again: beside `run`, through the same gate, as it queues a job."""

from django.conf import settings
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts.errors import Refused
from jobs import again
from jobs.granted import RUN
from jobs.wire.answers import endpoint_of, job_of, key_of
from jobs.wire.bodies import drop_body, parse_request, read_body
from jobs.wire.call import verb
from jobs.wire.rates import limited
from jobs.wire.runpod import created, once_of, queued

PATH = "/api/v1/jobs/{job}/run-again"


async def run_again(request: Request) -> Response:
    """At the job's endpoint, or at the one that the query names: `limited` goes by it."""
    try:
        own = await verb(again.endpoint_of, key_of(request), job_of(request, where=""))
    except Refused:
        await drop_body(request)
        raise
    request.path_params["endpoint"] = request.query_params.get("endpoint") or own
    return await _admitted(request)


async def _run_again(request: Request) -> Response:
    body = await read_body(request, settings.RUNSYNC_MAX_BYTES)
    changes = {name: part.value for name, part in parse_request(body).values.items()} if body.strip() else {}
    job = job_of(request, where="")
    once = once_of(request, f"{job}\n".encode() + body)
    at = request.state.caller
    submission = await verb(again.submission_of, job.uuid, changes, at, endpoint_of(request), once)
    return queued(await created(request, submission))


_admitted = limited(_run_again, "run", RUN)
ROUTES = [Route(PATH, run_again, methods=["POST"])]
