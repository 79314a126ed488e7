"""/hooks/worker/<token>/…: what our own worker asks while it runs one attempt (worker/wire.py). /hooks/runpod/<token>:
RunPod's webhook for one attempt."""

import base64
import re
from dataclasses import asdict
from typing import Any, TypeVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts.errors import Refused, bad_request, not_found
from jobs import loss, news, ready, remote, uploads, workers
from jobs.ids import AttemptId
from jobs.inline import NotStored
from jobs.webhooks.receive import receive
from jobs.wire import stored
from jobs.wire.answers import answer
from jobs.wire.bodies import Parts, parse_request, read_body, read_output
from jobs.wire.call import verb
from jobs.workers import printable
from storage.outputs import MOST_PARTS, NotLookedAt
from worker.wire import PREVIEW_BYTES, PREVIEW_TYPES, SMALL_BYTES, Found, Upload

T = TypeVar("T")
MAX_BODY_BYTES = 4 * 1024**2
MAX_FILES = 5_000
NEWS_WAIT_S = 5.0  # for an S3 that is away, before RunPod is told to come again
MAX_BYTES, MAX_BYTES_IN_PARTS = 5 * 1024**3, 4 * 1024**4  # of one PUT to S3; of MOST_PARTS of them, roughly
ASSET_TEXTS = ("node", "kind", "name", "subfolder", "content_type", "sha256")
ASSET_NUMBERS = ("bytes", "width", "height", "duration_ms")
CONTENT_TYPE, SHA256, CODE = re.compile("[ -~]{1,200}"), re.compile("[0-9a-f]{64}"), re.compile("[A-Za-z_]{0,50}")


async def started(request: Request) -> Response:
    if not await verb(news.started, _attempt(request)):
        raise _not_current()
    return answer({})


async def open_uploads(request: Request) -> Response:
    attempt = _attempt(request)
    given = await _given(request)
    parts = given.value("parts") is True
    files = _uploads(given, MAX_BYTES_IN_PARTS if parts else MAX_BYTES)
    slots = _current(await verb(uploads.slots, attempt, files, parts=parts))
    return answer({"uploads": [asdict(slot) for slot in slots]})


async def look(request: Request) -> Response:
    attempt = _attempt(request)
    found = _current(await stored.look(attempt, _ids(await _given(request))))
    return answer({"stored": [asdict(one) for one in found]})


async def small_pictures(request: Request) -> Response:
    attempt = _attempt(request)
    slots = _current(await verb(uploads.preview_slots, attempt, _sizes(await _given(request))))
    return answer({"small": [asdict(slot) for slot in slots]})


async def part_urls(request: Request) -> Response:
    attempt = _attempt(request)
    given = await _given(request)
    numbers = given.value("numbers")
    if not isinstance(numbers, list) or len(numbers) > MOST_PARTS or not all(type(n) is int and n > 0 for n in numbers):
        raise bad_request(f"`numbers` must be a list of at most {MOST_PARTS} numbers of parts, from 1 on.")
    parts = await stored.part_urls(attempt, _id(given), numbers)
    if parts is None:
        raise _not_current()
    return answer({"fault": asdict(parts)} if isinstance(parts, Found) else {"parts": [asdict(part) for part in parts]})


async def complete(request: Request) -> Response:
    attempt = _attempt(request)
    given = await _given(request)
    found = _current(await stored.complete(attempt, _id(given), _etags(given)))
    return answer({"found": asdict(found)})


async def outputs(request: Request) -> Response:
    attempt = _attempt(request)
    assets = (await _given(request)).value("assets")
    if not isinstance(assets, list) or len(assets) > MAX_FILES:
        raise bad_request(f"`assets` must be a list of at most {MAX_FILES}.")
    if not await verb(ready.outputs, attempt, [_asset(asset) for asset in assets]):
        raise _not_current()
    return answer({})


async def preview(request: Request) -> Response:
    """The newest picture; one that is none, or too large, is refused."""
    attempt = _attempt(request)
    given = parse_request(await read_body(request, 2 * PREVIEW_BYTES))
    content_type = given.value("content_type")
    try:
        body = base64.b64decode(given.value("data"), validate=True)
        begins = PREVIEW_TYPES[content_type]
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request(f"`data` must be base64 and `content_type` one of {', '.join(PREVIEW_TYPES)}.") from error
    if len(body) > PREVIEW_BYTES or not body.startswith(begins):
        raise bad_request(f"A preview must be such a picture, of at most {PREVIEW_BYTES} bytes.")
    node = printable(str(given.value("node") or ""), 100)
    if not await verb(ready.preview, attempt, node, content_type, body):
        raise _not_current()
    return answer({})


async def hand_back(request: Request) -> Response:
    attempt = _attempt(request)
    given = await _given(request)
    why = printable(str(given.value("reason", "no reason given")), 500)
    code = given.value("code", "")
    if not isinstance(code, str) or not CODE.fullmatch(code):
        raise bad_request("`code` must be a word of at most 50 letters and `_`.")
    await verb(loss.hand_back, attempt.job, attempt.number, why, code)
    return answer({})


async def alive(request: Request) -> Response:
    if not await verb(workers.alive, _attempt(request)):
        raise _not_current()
    return answer({})


async def runpod_news(request: Request) -> Response:
    """200 as soon as it is durable; RunPod sends it again, twice, after any other answer, and is asked later."""
    attempt = remote.read_token(request.path_params["token"])
    if attempt is None:
        raise _nothing_here()
    body, fault = await read_output(request)
    try:
        await verb(receive, attempt, body, fault)
    except (NotLookedAt, NotStored) as error:
        first = await stored.at_s3(attempt, error, NEWS_WAIT_S)
        if first.stored and first.stored.away:
            raise Refused(503, "s3_away", first.stored.faults[0], retry_after_s=10) from error
        await verb(receive, attempt, body, fault, first)
    return answer({})


def _attempt(request: Request) -> AttemptId:
    attempt = uploads.read_token(request.path_params["token"])
    if attempt is None:
        raise _nothing_here()
    return attempt


async def _given(request: Request) -> Parts:
    return parse_request(await read_body(request, MAX_BODY_BYTES))


def _current(found: T | None) -> T:
    if found is None:
        raise _not_current()
    return found


def _nothing_here() -> Refused:
    return not_found("There is nothing here.")


def _not_current() -> Refused:
    return Refused(409, "not_current", "This attempt has ended: do not run it.")


def _uploads(parts: Parts, max_bytes: int) -> list[Upload]:
    files = parts.value("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise bad_request(f"`files` must be a list of at most {MAX_FILES}.")
    return [_upload(file, max_bytes) for file in files]


def _id(parts: Parts) -> UUID:
    try:
        return UUID(parts.values["id"].value)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise bad_request("`id` must be the id of a slot.") from error


def _etags(parts: Parts) -> dict[int, str]:
    listed = parts.value("parts")
    wanted = f"`parts` must be a list of 1 to {MOST_PARTS} objects with `number` and `etag`."
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_PARTS:
        raise bad_request(wanted)
    try:
        etags = {part["number"]: part["etag"] for part in listed}
    except (TypeError, KeyError) as error:
        raise bad_request(wanted) from error
    if not all(type(number) is int and isinstance(etag, str) and len(etag) <= 300 for number, etag in etags.items()):
        raise bad_request(wanted)
    return etags


def _sizes(parts: Parts) -> dict[UUID, int]:
    files = parts.value("files")
    try:
        if isinstance(files, list) and len(files) <= MAX_FILES:
            sizes = {UUID(file["id"]): file["bytes"] for file in files}
            if all(type(size) is int and 0 < size <= SMALL_BYTES for size in sizes.values()):
                return sizes
    except (KeyError, ValueError, AttributeError, TypeError):
        pass
    raise bad_request(
        f"`files` must be a list of at most {MAX_FILES} objects with the `id` of a slot and 1 to {SMALL_BYTES} `bytes`."
    )


def _ids(parts: Parts) -> list[UUID]:
    ids = parts.value("ids")
    try:
        if isinstance(ids, list) and len(ids) <= MAX_FILES:
            return [UUID(id) for id in ids]
    except (ValueError, AttributeError, TypeError):
        pass
    raise bad_request(f"`ids` must be a list of at most {MAX_FILES} ids of slots.")


def _upload(file: Any, max_bytes: int) -> Upload:
    try:
        texts = {name: file[name] for name in ("name", "content_type", "sha256", "node", "kind")}
        size = file["bytes"]
    except (TypeError, KeyError) as error:
        raise bad_request(f"A file lacks {error}.") from error
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > 300 or "\0" in text or "\n" in text or "\r" in text:
            raise bad_request(f"`{name}` of a file must be a line of at most 300 characters.")
    if not CONTENT_TYPE.fullmatch(texts["content_type"]):
        raise bad_request("`content_type` of a file must be 1 to 200 printable ASCII characters.")
    if not SHA256.fullmatch(texts["sha256"]):
        raise bad_request("`sha256` of a file must be 64 hex digits, in lower case.")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= max_bytes:
        raise bad_request(f"`bytes` of a file must be 0 to {max_bytes}.")
    return Upload(bytes=size, **texts)


def _asset(given: Any) -> dict[str, Any]:
    """As an Asset (worker/wire.py), with nothing in it that a line of JSON could not tell."""
    if not isinstance(given, dict) or not isinstance(given.get("key"), str):
        raise bad_request("Each of `assets` must be an object with `id` and `key`.")
    try:
        asset: dict[str, Any] = {"id": str(UUID(given["id"])), "key": given["key"]}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise bad_request("`id` of an asset must be that of its slot.") from error
    asset |= {name: printable(str(given.get(name) or ""), 300) for name in ASSET_TEXTS}
    numbers = {name: given.get(name) for name in ASSET_NUMBERS}
    asset["preview"] = given.get("preview") is True or None
    return asset | {
        name: number if type(number) is int and 0 <= number < 2**53 else None for name, number in numbers.items()
    }


ROUTES = [
    Route("/worker/{token}/started", started, methods=["POST"]),
    Route("/worker/{token}/uploads", open_uploads, methods=["POST"]),
    Route("/worker/{token}/stored", look, methods=["POST"]),
    Route("/worker/{token}/parts", part_urls, methods=["POST"]),
    Route("/worker/{token}/complete", complete, methods=["POST"]),
    Route("/worker/{token}/small", small_pictures, methods=["POST"]),
    Route("/worker/{token}/outputs", outputs, methods=["POST"]),
    Route("/worker/{token}/preview", preview, methods=["POST"]),
    Route("/worker/{token}/hand-back", hand_back, methods=["POST"]),
    Route("/worker/{token}/alive", alive, methods=["POST"]),
    Route("/runpod/{token}", runpod_news, methods=["POST"]),
]
