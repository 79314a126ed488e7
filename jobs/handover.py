"""A job as a worker gets it, wherever it is: the input of its dialect, and its bucket where that goes along."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings

from accounts.sealed import Sealed
from jobs.models import Endpoint
from jobs.uploads import worker_token
from worker.wire import HEARTH_FIELD, Source


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a job was given: `input` as JSON bytes, `request_bucket` the sealed token of the bucket it named, `inputs`
    where the files are that the input names."""

    dialect: str
    input: bytes
    request_bucket: bytes | None
    inputs: Mapping[str, Source]


def worker_input(given: Given, job: UUID, number: int, at: datetime | None = None) -> bytes:
    """The input for this attempt, with the way back to Hearth for our own worker, and to its files. The same for the
    same `at` and files."""
    if given.dialect != Endpoint.Dialect.HEARTH:
        return given.input
    way_back: dict[str, Any] = {"url": settings.HEARTH_URL, "token": worker_token(job, number, at)}
    way_back["answer_bytes"] = settings.OUTPUT_MAX_BYTES
    if given.inputs:
        way_back["inputs"] = {text: asdict(source) for text, source in given.inputs.items()}
    # last, since of equal names the last one counts
    return given.input.rstrip()[:-1] + b"," + orjson.dumps(HEARTH_FIELD) + b":" + orjson.dumps(way_back) + b"}"


def s3_config(given: Given) -> bytes | None:
    """The request's own bucket, JSON with its secret, for a worker that stores by itself."""
    if given.dialect == Endpoint.Dialect.HEARTH or given.request_bucket is None:
        return None
    return Sealed(given.request_bucket).unseal().encode()
