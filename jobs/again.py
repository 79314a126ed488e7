"""Run again: a job's request, changed as its tenant asks, becomes the request of a new job that says of which it is.

The changes are a JSON merge patch (RFC 7396) of the whole request, as `run` takes it: one way for a prompt in a node, a
priority, a webhook, and for any JSON of a raw endpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db.models import Case, Q, When
from django.utils import timezone

from accounts import access, sql
from accounts.errors import Refused, bad_request
from accounts.keys import CLIENT, GivenKey
from accounts.models import ApiKey, is_unused
from accounts.sealed import SealBroken
from jobs import absent, creation, limits
from jobs.granted import RUN
from jobs.ids import JobId
from jobs.limits import Caller
from jobs.models import Job, Payload
from jobs.models.metadata import metadata_of
from jobs.wire.bodies import json_object, parse_request, shown, split_object
from jobs.wire.runpod import parse
from jobs.wire.submission import BUCKET_FIELDS, Once, Submission
from storage import assets

FIELDS = ("input", "webhook", "policy", "metadata", "storage", "s3Config")

OWN = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, e.name
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id)
    ON j.id = %(job)s AND j.sync = %(sync)s AND j.payload_gone_at IS NULL AND {access.allows("caller")}"""


def endpoint_of(key: GivenKey, job: JobId) -> str:
    """Where the caller's job was addressed. Raises Refused: 401, 403, 404, and 410 without its input."""
    row = sql.one(OWN, access.api_key_params(key, RUN) | {"job": job.uuid, "sync": job.sync})
    access.check_api_key(key, RUN, row)
    if row[access.API_KEY_WIDTH] is None:
        raise absent.why(row[0], job)
    return str(row[access.API_KEY_WIDTH])


def submission_of(job: UUID, changes: Mapping[str, Any], at: Caller, endpoint: str, once: Once | None) -> Submission:
    """What `run` would be given there. Raises Refused: 400, 409, 410, 413."""
    payload = Payload.objects.filter(pk=job, job__payload_gone_at=None)
    found = payload.select_related("job__bucket", "job__workflow").first()
    if found is None:
        raise absent.of(job)
    body = _body(_given(found, changes), changes)
    made = parse(parse_request(body), False, endpoint, at, once)
    return replace(made, run_again_of=found.job.public_id)


def _given(payload: Payload, changes: Mapping[str, Any]) -> dict[str, bytes]:
    """The request that made the job, each field as JSON."""
    bucket = payload.job.bucket
    fields = {
        "input": _input(payload, changes.get("input")),
        "webhook": orjson.dumps(payload.webhook) if payload.webhook else None,
        "policy": bytes(payload.policy) if payload.policy else None,
        "metadata": json.dumps(metadata_of(payload.job)).encode(),
        "storage": orjson.dumps(bucket.name) if bucket else None,
        "s3Config": None if _names_bucket(changes) else _own_bucket(payload),
    }
    return {name: raw for name, raw in fields.items() if raw is not None}


def _input(payload: Payload, change: Any) -> bytes:
    """As it is kept; of a stored workflow that may still be run its name and `params`, unless nodes are changed."""
    workflow, kept = payload.job.workflow, bytes(payload.input)
    of_nodes = isinstance(change, dict) and isinstance(change.get("workflow"), dict)
    if of_nodes or workflow is None or workflow.deleted_at or workflow.archived_at or payload.params is None:
        return kept
    fields = {name: part.raw for name, part in split_object(kept).values.items()}
    return json_object(fields | {"workflow": orjson.dumps(payload.job.ran), "params": bytes(payload.params)})


def _names_bucket(changes: Mapping[str, Any]) -> bool:
    """Whether the changes say where the files go; null: where they usually go."""
    of_input = changes.get("input")
    return bool({"storage", "s3Config"} & changes.keys()) or (
        isinstance(of_input, dict) and bool(set(BUCKET_FIELDS) & of_input.keys())
    )


def _own_bucket(payload: Payload) -> bytes | None:
    """The S3 bucket that the request brought. A job never falls back to another (rules.md 22)."""
    try:
        if not payload.request_bucket_wiped:
            return payload.request_bucket.unseal().encode() if payload.request_bucket else None
    except SealBroken:
        pass
    error = (
        "The secrets of the S3 bucket that this job's request named are not kept any more. Give it as `s3Config`, or"
        ' name a bucket of yours as `storage`; `"s3Config": null` is for your usual one.'
    )
    raise Refused(409, "bucket_unknown", error)


def _body(given: dict[str, bytes], changes: Mapping[str, Any]) -> bytes:
    for name, change in changes.items():
        if name not in FIELDS:
            error = f"The changes name {shown(name)}, which is no field of a request: {', '.join(FIELDS)}."
            raise bad_request(error, "invalid_changes")
        value = json.loads(given.pop(name, b"null"))
        made = merged(_with_object(value, change), change)
        if made is not None:
            given[name] = json.dumps(made).encode()
    body = json_object(given)
    if len(body) > settings.RUNSYNC_MAX_BYTES:
        error = f"With these changes the request has {len(body)} bytes; at most {settings.RUNSYNC_MAX_BYTES} are taken."
        raise Refused(413, "too_large", error)
    return body


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for name, change in patch.items():
        if change is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), change)
    return made


def _with_object(given: Any, change: Any) -> Any:
    """A workflow that came as text, as the object that its changes are of."""
    both = isinstance(given, dict) and isinstance(change, dict)
    if both and isinstance(given.get("workflow"), str) and isinstance(change.get("workflow"), dict):
        try:
            return given | {"workflow": json.loads(given["workflow"])}
        except ValueError:
            pass  # of a raw endpoint, where it is but text
    return given


def in_admin(job: UUID, changes: Mapping[str, Any]) -> JobId:
    """In the name of the API key that submitted the job, or of another of its tenant's if that is not good any more.
    Raises Refused."""
    row = Job.all_tenants.select_related("endpoint").get(pk=job)
    key, endpoint = _key_for(row), row.endpoint.name
    caller = limits.caller(key, endpoint, RUN)
    _check_limits(caller)
    return creation.create(key, endpoint, submission_of(job, changes, caller, endpoint, None)).job


def _check_limits(caller: Caller) -> None:
    """As the gate before the queue (wire/gate.py), counted anew. Raises Refused: 429, 503."""
    terms = limits.terms(caller)
    for refusal in (terms.refusal, *(limits.look(queue).refusal for queue in terms.queues)):
        if refusal:
            raise refusal.refused()
    most = terms.max_stored_bytes
    if most is not None and (stored := assets.stored_bytes(caller.tenant_id)) >= most:
        raise limits.storage_full(terms.tenant, most, stored).refused()


def _key_for(job: Job) -> GivenKey:
    lives = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    there = Q(endpoints=[]) | Q(endpoints__contains=[job.endpoint.name])
    good = ApiKey.all_tenants.filter(lives, there, tenant=job.tenant_id, revoked_at=None, scopes__contains=[RUN])
    key = good.exclude(is_unused()).order_by(Case(When(pk=job.api_key_id or 0, then=0), default=1), "-pk").first()
    if key is None:
        raise Refused(409, "no_key", "Its tenant has no API key that may run jobs there, in whose name it could be.")
    return GivenKey(kind=CLIENT, prefix=key.prefix, digest=bytes(key.digest))
