"""/v2 for clients: RunPod's serverless API, so that its SDKs work unchanged (protocol/runpod.md 2)."""

import asyncio
import re
from hashlib import sha256

from django.conf import settings
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts.errors import Refused, bad_request
from accounts.keys import GivenKey
from jobs import catalogue, creation, history, lifecycle
from jobs import stream as streams
from jobs.granted import READ, RUN
from jobs.ids import JobId, public_id
from jobs.limits import Caller
from jobs.live import Hub, job_key, stream_key
from jobs.models import Endpoint
from jobs.states import State
from jobs.wire.answers import answer, endpoint_of, job_of, key_of
from jobs.wire.bodies import Parts, parse_request, read_body
from jobs.wire.call import verb
from jobs.wire.gate import GATE
from jobs.wire.gone import Gone, wait
from jobs.wire.moving import without_bytes
from jobs.wire.rates import limited
from jobs.wire.submission import Once, Submission, parse_submission
from jobs.workflows.run import Ran, is_stored, named, resolve

WAIT_MS = (1_000, 300_000)
DEFAULT_WAIT_MS = 90_000
STREAM_HOLD_S = 8.0  # RunPod's Python SDK waits 10 s


async def run(request: Request) -> Response:
    return queued(await _created(request, sync=False))


def queued(made: creation.Created) -> Response:
    said = {"id": public_id(made.job.uuid, made.job.sync), "status": (made.replayed or State.IN_QUEUE).value}
    return answer(said, headers=_replayed(made))


async def runsync(request: Request) -> Response:
    made = await _created(request, sync=True)
    deadline = asyncio.get_running_loop().time() + _wait_ms(request) / 1000
    return answer(await verb((await _ended(made.job, deadline)).json), headers=_replayed(made))


def _replayed(made: creation.Created) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if made.replayed else {}


async def _created(request: Request, *, sync: bool) -> creation.Created:
    return await created(request, await _submission(request, sync=sync))


async def created(request: Request, submission: Submission) -> creation.Created:
    """The job, written. What it was made of is let go: thousands may wait for theirs."""
    try:
        async with GATE.passing(request.state.caller):
            lean = await without_bytes(request.state.caller, submission)
            return await verb(creation.create, key_of(request), endpoint_of(request), lean)
    except Refused:
        if made := await _made_before(request, submission):
            return made  # that a limit was reached since is no reason not to tell of it
        raise


async def _made_before(request: Request, submission: Submission) -> creation.Created | None:
    if submission.once is None:
        return None
    caller = request.state.caller
    return await verb(creation.replay, caller.key_id, caller.endpoint_id, submission.once)


async def _ended(job: JobId, deadline: float) -> history.Snapshot:
    """The job once it has ended, or as it is at the deadline. Register, then read, then wait (rules.md 13)."""
    assert Hub.current is not None
    async with Hub.current.waiting(job_key(job.uuid)) as ticket:
        while True:
            snapshot = await verb(history.result, job.uuid)
            left = deadline - asyncio.get_running_loop().time()
            if snapshot.ended or left <= 0 or Hub.current.draining:
                return snapshot
            await ticket.wait(left)


async def status(request: Request) -> Response:
    return answer(await verb(_status, key_of(request), endpoint_of(request), job_of(request)))


def _status(key: GivenKey, endpoint: str, job: JobId) -> bytes:
    return history.status(key, endpoint, job).json()  # which may read the tenant's bucket


async def status_sync(request: Request) -> Response:
    """The job once it has ended, or as it is after `wait` ms: the JS SDK asks again at once."""
    begun = asyncio.get_running_loop().time()
    job = job_of(request)
    snapshot = await verb(history.status, key_of(request), endpoint_of(request), job)
    deadline = begun + _wait_ms(request) / 1000
    return answer(await verb((snapshot if snapshot.ended else await _ended(job, deadline)).json))


async def stream(request: Request) -> Response:
    """The chunks that nobody has read yet, waiting up to STREAM_HOLD_S for one or for the end: the JS SDK asks again at
    once. What a client that has hung up did not get stays in the stream."""
    job = job_of(request)
    gone = Gone(request)
    try:
        piece = await _piece(request, job, gone)
        if gone.yes:
            await verb(streams.unread, job, piece)
        return answer(piece.json)
    finally:
        gone.stop()


async def _piece(request: Request, job: JobId, gone: Gone) -> streams.Piece:
    """Register, read, wait (rules.md 13)."""
    assert Hub.current is not None
    deadline = asyncio.get_running_loop().time() + min(STREAM_HOLD_S, settings.POLL_HOLD_S)
    async with Hub.current.waiting(job_key(job.uuid), stream_key(job.uuid)) as ticket:
        while True:
            piece = await verb(streams.read, key_of(request), endpoint_of(request), job)
            if piece.chunks or piece.ended or not await wait(ticket, gone, deadline):
                return piece


async def cancel(request: Request) -> Response:
    job = job_of(request)
    state = await verb(lifecycle.cancel, key_of(request), endpoint_of(request), job)
    return answer({"id": public_id(job.uuid, job.sync), "status": state.value})


async def retry(request: Request) -> Response:
    job = job_of(request)
    async with GATE.passing(request.state.caller):
        state = await verb(lifecycle.retry, key_of(request), endpoint_of(request), job)
    return answer({"id": public_id(job.uuid, job.sync), "status": state.value})


async def purge_queue(request: Request) -> Response:
    removed = await verb(lifecycle.purge, key_of(request), endpoint_of(request))
    return answer({"removed": removed, "status": "completed"})


async def health(request: Request) -> Response:
    return answer(await verb(history.health, key_of(request), endpoint_of(request)))


async def requests(request: Request) -> Response:
    return answer(await verb(history.requests, key_of(request), endpoint_of(request)))


LARGE_BYTES = 256 * 1024  # parsed in a thread


async def _submission(request: Request, *, sync: bool) -> Submission:
    body = await read_body(request, settings.RUNSYNC_MAX_BYTES if sync else settings.RUN_MAX_BYTES)
    if sync:
        _wait_ms(request)
    once = once_of(request, body)
    is_large = len(body) >= LARGE_BYTES
    parts = await verb(parse_request, body) if is_large else parse_request(body)
    if is_large or named(parts.value("input")):
        return await verb(parse, parts, sync, endpoint_of(request), request.state.caller, once)
    return parse(parts, sync, endpoint_of(request), request.state.caller, once)


def parse(parts: Parts, sync: bool, endpoint: str, caller: Caller, once: Once | None) -> Submission:
    return parse_submission(
        parts,
        sync=sync,
        judge=catalogue.judge(endpoint),
        takes_files=catalogue.takes_files(endpoint),
        once=once,
        ran=_ran(parts, caller, endpoint),
    )


def _ran(parts: Parts, caller: Caller, endpoint: str) -> Ran | Refused | None:
    """Raises Refused(400) where a stored workflow is meant that nobody would look for."""
    given = parts.values.get("input")
    match = named(given.value) if given else None
    if given is None or match is None:
        return None
    if caller.dialect != Endpoint.Dialect.RAW:
        try:
            return resolve(caller.tenant_id, given)
        except Refused as refused:
            return refused
    if "params" in given.value and is_stored(caller.tenant_id, match["name"]):
        error = (
            f"Endpoint {endpoint!r} takes any JSON (dialect raw) and runs no stored workflow, as {match['name']!r} is."
        )
        raise bad_request(error, "no_stored_workflows")
    return None


def once_of(request: Request, body: bytes) -> Once | None:
    """The request's Idempotency-Key, quoted as the IETF's draft has it or bare, and what it stands for."""
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    quoted = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not re.fullmatch(r"[ -~]{1,255}", key):
        raise bad_request("`Idempotency-Key` must be 1 to 255 printable ASCII characters.", "invalid_idempotency_key")
    return Once(key=key, body_sha256=sha256(body).digest())


def _wait_ms(request: Request) -> int:
    text = request.query_params.get("wait")
    if text is None:
        return DEFAULT_WAIT_MS
    low, high = WAIT_MS
    if not re.fullmatch("[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise bad_request(f"`wait` must be {low} to {high} (ms), not {text[:20]!r}.", "invalid_wait")
    return int(text)


ROUTES = [
    Route("/{endpoint}/run", limited(run, "run", RUN), methods=["POST"]),
    Route("/{endpoint}/runsync", limited(runsync, "runsync", RUN), methods=["POST"]),
    Route("/{endpoint}/status/{job}", limited(status, "status", READ), methods=["GET"]),
    Route("/{endpoint}/status-sync/{job}", limited(status_sync, "status", READ), methods=["GET"]),
    Route("/{endpoint}/stream/{job}", limited(stream, "status", READ), methods=["GET"]),
    Route("/{endpoint}/cancel/{job}", limited(cancel, "cancel", RUN), methods=["POST"]),
    Route("/{endpoint}/retry/{job}", limited(retry, "retry", RUN), methods=["POST"]),
    Route("/{endpoint}/purge-queue", limited(purge_queue, "purge-queue", RUN), methods=["POST"]),
    Route("/{endpoint}/health", limited(health, "health", READ), methods=["GET"]),
    Route("/{endpoint}/requests", limited(requests, "requests", READ), methods=["GET"]),
]
