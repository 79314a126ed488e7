"""Base64 in requests goes to the operator's S3, so that the table of payloads stays narrow; if S3 is away it stays."""

import asyncio
import logging
import time
from io import BytesIO

from botocore.exceptions import BotoCoreError, ClientError

from jobs import inputs
from jobs.limits import Caller
from jobs.models import Endpoint
from jobs.wire.call import verb
from jobs.wire.stored import in_s3
from jobs.wire.submission import Submission
from storage.models import Blob
from storage.places import operators_place, put_object

log = logging.getLogger("hearth.web")
LEAN_BYTES = 256 * 1024  # an input of no more stays as it is, at no cost
MOVE_S, AWAY_S = 2, 30  # RunPod's JS SDK gives `run` up after 3 s
_away_until = 0.0


async def without_bytes(caller: Caller, submission: Submission) -> Submission:
    """The submission with its large files in S3. No job is refused, nor kept waiting for long, because that fails."""
    global _away_until
    if len(submission.workflow_input) <= LEAN_BYTES or submission.workflow_fault or time.monotonic() < _away_until:
        return submission
    if caller.dialect != Endpoint.Dialect.HEARTH:
        return submission
    move = await verb(inputs.plan_move, caller.tenant_id, submission)
    if move is None:
        return submission
    url = operators_place(public=False).endpoint_url
    try:
        await asyncio.gather(*(in_s3(url, MOVE_S, _put, upload) for upload in move.uploads))
    except (BotoCoreError, ClientError, TimeoutError) as error:
        log.warning("base64 in requests stays in the database for %s s, since S3 fails: %s", AWAY_S, error)
        _away_until = time.monotonic() + AWAY_S
        return submission
    return move.submission


def _put(upload: tuple[Blob, bytes]) -> None:
    blob, data = upload
    put_object(operators_place(public=False), blob.key, BytesIO(data), content_type=blob.content_type)
