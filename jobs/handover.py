"""A job as a worker gets it, wherever it is: the input of its dialect, and its bucket where that goes along."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings

from accounts import sql
from accounts.sealed import SealBroken, Sealed
from jobs.dialects import Given, to_worker
from jobs.models import Endpoint
from jobs.uploads import worker_token
from storage.models import Bucket
from storage.places import full_key, tenants_place
from worker.wire import HEARTH_FIELD, Source


def for_worker(
    given: Given, job: UUID, number: int, inputs: Mapping[str, Source], at: datetime | None = None
) -> tuple[bytes, bytes | None]:
    """The input for this attempt, with the way back to Hearth for our own worker, and to its files, and the `s3Config`
    that goes beside it. The same for the same `at` and files. Raises SealBroken."""
    if given.dialect != Endpoint.Dialect.HEARTH:
        return to_worker(replace(given, urls=_urls(inputs)))
    way_back: dict[str, Any] = {"url": settings.HEARTH_URL, "token": worker_token(job, number, at)}
    way_back["answer_bytes"] = settings.OUTPUT_MAX_BYTES
    if inputs:
        way_back["inputs"] = {text: asdict(source) for text, source in inputs.items()}
    # last, since of equal names the last one counts
    return given.input.rstrip()[:-1] + b"," + orjson.dumps(HEARTH_FIELD) + b":" + orjson.dumps(way_back) + b"}", None


def _urls(inputs: Mapping[str, Source]) -> dict[str, str]:
    """Raises SealBroken."""
    for source in inputs.values():
        if source.fault:
            raise SealBroken(source.fault)
    return {text: source.url for text, source in inputs.items()}


def bucket_along(dialect: str, job: UUID, of_request: bytes | None) -> bytes | None:
    """The sealed settings of the S3 bucket that a worker of this dialect is told: the request's own, or for dekita the
    tenant's, if that bucket allows it (rules.md 22): sealed for its way to `for_worker`, on which jobs are printed and
    logged. Raises SealBroken."""
    if of_request is not None or dialect != Endpoint.Dialect.DEKITA:
        return of_request
    row = sql.first("SELECT bucket_id, tenant_id FROM jobs_job WHERE id = %s", [job])
    bucket = Bucket.all_tenants.filter(pk=row[0], allow_secret_in_job=True).first() if row and row[0] else None
    return Sealed.seal(orjson.dumps(as_config(bucket, f"{row[1]}/{job}")).decode()).token if bucket and row else None


def as_config(bucket: Bucket, folder: str) -> dict[str, str]:
    """A bucket as requests name one: the S3 bucket in the endpoint, and the folder in it as `bucketName`."""
    place = tenants_place(bucket)
    scheme, _, host = place.endpoint_url.partition("://")
    virtual = place.addressing == Bucket.Addressing.VIRTUAL
    url = f"{scheme}://{place.s3_bucket}.{host}" if virtual else f"{place.endpoint_url}/{place.s3_bucket}"
    return {
        "endpointUrl": url,
        "accessId": place.access_key_id,
        "accessSecret": place.secret_access_key,
        "bucketName": full_key(place, folder),
    }
