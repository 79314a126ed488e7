"""/v2 for workers: what the stock `runpod` SDK worker calls (protocol/runpod.md 1).

It retries job-done only on 5xx and polls again at once on all but 429, so: job-done waits for the database as long as
it can, job-take answers 429 when it is away, and a poll with a wrong key or name is answered slowly.
"""

import asyncio
import logging
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
from django.conf import settings
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts import access
from accounts.errors import Refused, bad_request
from accounts.sealed import Sealed
from jobs import catalogue, loss, news, stream, workers
from jobs.dialects import Given
from jobs.handover import for_worker
from jobs.ids import AttemptId, attempt_id, parse_attempt_id
from jobs.inline import NotStored
from jobs.inputs import sources
from jobs.live import Hub, endpoint_key, news_key, worker_key
from jobs.queue import Claimed
from jobs.wire import stored
from jobs.wire.answers import answer, key_of
from jobs.wire.bodies import Parts, Unreadable, parse_request, read_body, read_output, split_object
from jobs.wire.call import P, T, verb
from jobs.wire.gone import Gone, wait
from storage.outputs import NotLookedAt
from worker.wire import Source

log = logging.getLogger("hearth.fleet")
NOTHING = Response(status_code=204)
MAX_BATCH = 100
WRONG_POLL_S = 2.0
SHORTEST_HOLD = 0.8  # of POLL_HOLD_S
DONE_WAIT_S = 60.0
MAX_OFFER_BYTES = 1024


async def job_take(request: Request) -> Response:
    jobs = await _take(request, 1)
    return answer(b"".join(jobs)) if jobs else NOTHING


async def job_take_batch(request: Request) -> Response:
    text = request.query_params.get("batch_size", "1")
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise bad_request(f"`batch_size` must be a positive number, not {text[:20]!r}.")
    jobs = await _take(request, min(int(text), MAX_BATCH))
    return answer(b"[" + b",".join(jobs) + b"]") if jobs else NOTHING


async def _take(request: Request, n: int) -> list[bytes]:
    """Up to n jobs as JSON, waiting about POLL_HOLD_S for the first; none if the worker hung up meanwhile."""
    gone = Gone(request)
    try:
        poller, claimed = await _claim(request, n, gone)
        if poller is not None and gone.yes:
            for job in claimed:
                await verb(loss.undo, job.job, job.number)
            _hub().wake(endpoint_key(poller.endpoint_id))  # whom the wake that it did not use was for
            await verb(workers.hang_up, poller)
            return []
        return [_handover(job, await verb(sources, job.inputs) if job.inputs else {}) for job in claimed]
    except Refused as error:
        raise await _slowed(error) from error
    finally:
        gone.stop()


async def _slowed(error: Refused) -> Refused:
    """A poll that is wrong in itself is refused slowly, since the SDK asks again at once."""
    if error.status in (400, 401, 404):
        await asyncio.sleep(WRONG_POLL_S)
    return _pause(error)


def _pause(error: Refused) -> Refused:
    """429 is the only answer after which the SDK's poll pauses (5 s)."""
    return error if error.status != 503 else Refused(429, error.code, error.error, retry_after_s=5)


KNOWN: dict[tuple[bytes, str], int] = {}  # endpoints' ids, by worker key and name, as the last good poll had them


async def _claim(request: Request, n: int, gone: Gone) -> tuple[workers.Poller | None, list[Claimed]]:
    """Register, read, wait; for the queue, or, when the worker is full, for room on it. It registers where it expects
    to wait, so that a poll is one verb; if it was wrong, it reads again. No poller: the process goes down."""
    hub, deadline = _hub(), _hold_until()
    names, given = _names(request), key_of(request)
    idle = request.query_params.get("job_in_progress") == "0"
    poller: workers.Poller | None = None
    key = endpoint_key(KNOWN.get((given.digest, names[0]), 0))
    while True:
        async with hub.waiting(key) as ticket:
            if hub.draining or (poller and gone.yes):
                return poller, []
            if poller is None:
                begun = await verb(workers.poll, given, *names, n, idle=idle)
                poller, taken = begun
                KNOWN[given.digest, names[0]] = poller.endpoint_id
            else:
                taken = await verb(workers.take, poller, n)
            if taken.jobs:
                break
            wanted = worker_key(poller.worker_id) if taken.full else endpoint_key(poller.endpoint_id)
            if wanted != key:
                key = wanted
                continue
            if not await wait(ticket, gone, deadline):
                return poller, []
    hub.wake(endpoint_key(poller.endpoint_id))  # there may be more: the next one looks
    hub.send([news_key(job.job) for job in taken.jobs])
    return poller, taken.jobs


def _hold_until() -> float:
    """Not POLL_HOLD_S exactly: what polls at the same time, as after a restart, is not to do so for ever."""
    return asyncio.get_running_loop().time() + float(settings.POLL_HOLD_S) * random.uniform(SHORTEST_HOLD, 1)


def _handover(job: Claimed, inputs: Mapping[str, Source]) -> bytes:
    """A job as the worker gets it: its attempt's id and its input."""
    fields: dict[str, object] = {"id": attempt_id(job.job, job.sync, job.number)}
    bucket = None if job.request_bucket is None else Sealed(job.request_bucket)
    parts = Given(dialect=job.dialect, input=job.input, bucket=bucket)
    given, config = for_worker(parts, job.job, job.number, inputs)
    if config is not None:
        fields["s3Config"] = orjson.Fragment(config)
    return orjson.dumps(fields | {"input": orjson.Fragment(given)})


async def job_stop(request: Request) -> Response:
    """The attempts this worker is to stop, waiting about POLL_HOLD_S for one."""
    gone = Gone(request)
    try:
        hub, deadline = _hub(), _hold_until()
        poller = await verb(workers.begin_stop, key_of(request), *_names(request))
        while True:
            async with hub.waiting(worker_key(poller.worker_id)) as ticket:
                stops = [] if gone.yes else await verb(workers.stops, poller)
                if stops:
                    return answer({"jobsToStop": stops})
                if not await wait(ticket, gone, deadline):
                    break
        if gone.yes:
            await verb(workers.hang_up, poller)
        return NOTHING
    except Refused as error:
        raise await _slowed(error) from error
    finally:
        gone.stop()


async def job_done(request: Request) -> Response:
    """A result, or progress (`status` IN_PROGRESS). Always 200 once the key is good: what is refused is lost."""
    endpoint, name = _names(request)
    endpoint_id = await _patiently(access.check_worker_key, key_of(request), endpoint)
    attempt = parse_attempt_id(request.path_params["attempt"])
    body, fault = await read_output(request)
    if attempt is None:
        return answer({})
    try:
        parts = split_object(body)
    except Unreadable as error:
        parts, fault = Parts({}), f"it is not JSON: {error}"
    output, error_part, state = (parts.values.get(field) for field in ("output", "error", "status"))
    if state is not None and state.value == "IN_PROGRESS":
        if output is not None:
            await verb(news.progress, endpoint_id, name, attempt, output.raw, output.value)
        return answer({})
    done = news.Done(
        output=output.raw if output else None,
        output_value=output.value if output else None,
        error=error_part.raw if error_part and error_part.value else None,
        error_value=error_part.value if error_part else None,
        mended=parts.mended,
        fault=fault,
    )
    try:
        await _report(endpoint_id, name, attempt, done)
    except Refused:
        raise
    except Exception as error:  # a paid run must not vanish in a loop of retries: the job says that it was ours to keep
        log.exception("the result of %s could not be kept", attempt)
        fault = f"Hearth could not keep it ({type(error).__name__})"
        await _patiently(news.done, endpoint_id, name, attempt, news.Done(fault=fault))
    return answer({})


async def _report(endpoint_id: int, name: str, attempt: AttemptId, done: news.Done) -> None:
    """Apply it; where the worker did not have its files looked at before, or sent them inside, that comes first."""
    try:
        await _patiently(news.done, endpoint_id, name, attempt, done)
    except (NotLookedAt, NotStored) as error:
        first = await stored.at_s3(attempt, error, DONE_WAIT_S)
        done = replace(done, absent=first.absent, stored=first.stored)
        await _patiently(news.done, endpoint_id, name, attempt, done)


async def job_stream(request: Request) -> Response:
    """A chunk that a generator yielded. Always 200 once the key is good: the SDK drops what is refused and goes on."""
    endpoint, name = _names(request)
    endpoint_id, chunk_id = await _patiently(stream.begin, key_of(request), endpoint)
    attempt = parse_attempt_id(request.path_params["attempt"])
    chunk = _chunk(*await read_output(request))
    if attempt is not None:
        await _patiently(stream.add, endpoint_id, name, attempt, chunk_id, chunk)
    return answer({})


def _chunk(body: bytes, fault: str) -> stream.Chunk:
    if fault:
        return stream.Chunk(fault=fault)
    try:
        parts = split_object(body)
    except Unreadable as error:
        return stream.Chunk(fault=f"it is not JSON: {error}")
    if "output" not in parts.values:
        return stream.Chunk(fault="it has no `output`")
    return stream.Chunk(body=parts.values["output"].raw, mended=parts.mended)


async def _patiently(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run an idempotent verb; while the database is away, again for DONE_WAIT_S: the SDK drops a result soon."""
    deadline = asyncio.get_running_loop().time() + DONE_WAIT_S
    while True:
        try:
            return await verb(fn, *args, **kwargs)
        except Refused as error:
            if error.status != 503 or asyncio.get_running_loop().time() > deadline or _hub().draining:
                raise
            await asyncio.sleep(0.5)


async def ping(request: Request) -> Response:
    endpoint, name = _names(request)
    query = request.query_params
    if query.get("status") == "unhealthy":
        reason = f"{query.get('check', '')} {query.get('reason', '')}".strip()
        await verb(workers.unhealthy, key_of(request), endpoint, name, reason)
        return answer({})
    named = [a for text in query.get("job_id", "").split(",") if isinstance(a := parse_attempt_id(text), AttemptId)]
    await verb(workers.ping, key_of(request), endpoint, name, query.get("runpod_version", ""), named)
    return answer({})


async def node_catalogue(request: Request) -> Response:
    """POST {"sha256"}: this worker's ComfyUI has that catalogue; 409: it is not known here, PUT it (JSON, gzip)."""
    endpoint, name = _names(request)
    poller = await verb(workers.seen, key_of(request), endpoint, name, "ping_at")
    if request.method == "PUT":
        await verb(catalogue.keep, poller, await read_body(request, catalogue.MAX_PACKED_BYTES))
        return answer({})
    offered = parse_request(await read_body(request, MAX_OFFER_BYTES)).values.get("sha256")
    if offered is None or not re.fullmatch("[0-9a-f]{64}", str(offered.value)):
        raise bad_request('The body must be {"sha256": "<64 hex digits>"}.', "invalid_catalogue")
    if not await verb(catalogue.offer, poller, offered.value):
        raise Refused(409, "unknown_catalogue", "This catalogue is not known here yet: PUT it.")
    return answer({})


def _names(request: Request) -> tuple[str, str]:
    """The endpoint's and the worker's name."""
    name = request.path_params["worker"]
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise bad_request("The worker's id must be 1 to 200 printable characters.")
    return request.path_params["endpoint"], name


def _hub() -> Hub:
    assert Hub.current is not None
    return Hub.current


ROUTES = [
    Route("/{endpoint}/job-take/{worker}", job_take, methods=["GET"]),
    Route("/{endpoint}/job-take-batch/{worker}", job_take_batch, methods=["GET"]),
    Route("/{endpoint}/job-stop/{worker}", job_stop, methods=["GET"]),
    Route("/{endpoint}/job-done/{worker}/{attempt}", job_done, methods=["POST"]),
    Route("/{endpoint}/job-stream/{worker}/{attempt}", job_stream, methods=["POST"]),
    Route("/{endpoint}/ping/{worker}", ping, methods=["GET"]),
    Route("/{endpoint}/catalogue/{worker}", node_catalogue, methods=["POST", "PUT"]),
]
