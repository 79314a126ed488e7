"""Input files that are not in a job's payload: found when it is made, held until it has ended, signed at a hand-over.

What `Payload.inputs` holds is where each is; the input itself keeps the words of its client. The bytes that a request
carries as base64 are moved out of it, if they are many: the table of payloads stays narrow.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import orjson
from botocore.exceptions import BotoCoreError
from django.conf import settings

from accounts import access, sql
from accounts.errors import Refused
from accounts.keys import GivenKey
from accounts.models import ApiKey, uuid7
from accounts.sealed import SealBroken
from jobs.dialects import DEKITA, HEARTH, RAW, WORKER_COMFYUI
from jobs.models import Payload
from jobs.wire.bodies import json_object, split_object
from jobs.wire.references import Reference
from jobs.wire.submission import Moved, Submission
from storage import assets
from storage.models import Asset, Blob, Bucket, Hold
from storage.outputs import place_of
from storage.places import sign_get
from worker.kinds import content_type_of
from worker.wire import FILES, MOST_REFERENCES, Source, bytes_in, named_files, reference


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a reference's bytes are. bucket: of the tenant's, None for the operator's S3. blob: what is held for a job.

    sha256: of bytes that Hearth or S3 has hashed. url: signed before, for a file in the bucket of another request.
    """

    ref: str
    key: str
    bucket: int | None = None
    blob: str | None = None
    name: str = ""
    bytes: int | None = None
    sha256: str = ""
    url: str = ""


def stored(places: Sequence[Place]) -> bytes | None:
    """As Payload.inputs keeps it."""
    return orjson.dumps([{k: v for k, v in asdict(place).items() if v} for place in places]) if places else None


def read(inputs: bytes) -> list[Place]:
    return [Place(**fields) for fields in orjson.loads(inputs)]


WHO = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, caller.tenant_id, caller.endpoints, e.dialect
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN caller ON true
  LEFT JOIN jobs_endpoint e ON e.name = %(endpoint)s"""

# Locked, so that they stay what they are until the job holds them. A key that is limited to some endpoints has not the
# files of jobs at others.
ASSETS = """
SELECT a.id, a.name, a.url, b.id, b.bucket_id, b.key, b.bytes, CASE WHEN b.job_id IS NULL THEN b.sha256 ELSE '' END
  FROM storage_asset a JOIN storage_blob b ON b.id = a.blob_id
 WHERE a.tenant_id = %(tenant)s AND a.id = ANY (%(ids)s) AND b.state = 'kept'
   AND (a.expires_at IS NULL OR a.expires_at > clock_timestamp())
   AND (cardinality(%(endpoints)s::text[]) = 0 OR a.job_id IS NULL OR EXISTS (
            SELECT 1 FROM jobs_job j JOIN jobs_endpoint e ON e.id = j.endpoint_id
             WHERE j.id = a.job_id AND e.name = ANY (%(endpoints)s::text[])))
 ORDER BY b.id FOR SHARE OF b"""


def find(key: GivenKey, endpoint: str, submission: Submission) -> tuple[UUID | None, list[Place]]:
    """In the transaction that makes the job: whose it is, and where its files are.

    Raises Refused: 400 for a file that is not the caller's, or no use to the endpoint's worker. What else is wrong is
    for `create` to say.
    """
    row = sql.one(WHO, access.api_key_params(key, ApiKey.Scope.RUN.value) | {"endpoint": endpoint})
    tenant_id, endpoints, dialect = row[access.API_KEY_WIDTH :]
    if tenant_id is None or dialect is None:
        return tenant_id, []
    references = _for_worker(dialect, submission)
    known = _assets(tenant_id, endpoints, references) | _objects(tenant_id, references)
    for each in references:
        if each.text not in known and each.sure:
            raise Refused(400, "invalid_input", f"{each.where}: {each.text[:200]!r} {_unknown(tenant_id, each)}")
    return tenant_id, list(known.values())


def _for_worker(dialect: str, submission: Submission) -> Sequence[Reference]:
    """What a worker of this dialect is to be told a URL of. Ours fetches a file to where ComfyUI has its own; others
    can only give a URL to a node that takes one: an asset becomes one in their input, and s3:// stays text there."""
    if dialect == HEARTH:
        return submission.references
    if dialect == RAW:
        if (number := len(submission.raw_references)) > MOST_REFERENCES:
            raise Refused(400, "invalid_input", f"The input names {number} assets; at most {MOST_REFERENCES} may be.")
        return submission.raw_references
    for each in submission.references:
        if each.loaded:
            error = f"{each.where}: {each.text[:200]!r} would have to be fetched, which {NOT_FETCHED[dialect]}."
            raise Refused(400, "invalid_input", error)
    return [each for each in submission.references if (match := reference(each.text)) and match["asset"]]


NOT_FETCHED: dict[str, str] = {
    DEKITA: "this endpoint's worker (dekita) does not: it takes no files; use a node that takes a URL",
    WORKER_COMFYUI: "this endpoint's worker (worker-comfyui) does not: send the file as base64 in `input.images`",
}


def _assets(tenant_id: UUID, endpoints: list[str], references: Sequence[Reference]) -> dict[str, Place]:
    texts: dict[UUID, list[str]] = {}
    for each in references:
        if (match := reference(each.text)) and match["asset"]:
            texts.setdefault(UUID(match["id"]), []).append(each.text)
    found: dict[str, Place] = {}
    for id, name, url, blob, bucket, where, size, sha256 in (
        sql.rows(ASSETS, {"tenant": tenant_id, "ids": list(texts), "endpoints": endpoints}) if texts else ()
    ):
        for text in texts[id]:
            found[text] = Place(
                ref=text, key=where, bucket=bucket, blob=str(blob), name=name, bytes=size, sha256=sha256, url=url
            )
    return found


def _objects(tenant_id: UUID, references: Sequence[Reference]) -> dict[str, Place]:
    """Of several buckets at the same S3 bucket the default one, then the oldest. No key with `..`: some S3 would follow
    it out of the bucket's prefix, into what may be another tenant's."""
    matches = [(each.text, match) for each in references if (match := reference(each.text)) and match["s3"]]
    wanted = [(text, match) for text, match in matches if not {".", ".."} & set(match["key"].split("/"))]
    buckets = list(Bucket.all_tenants.filter(tenant_id=tenant_id).order_by("-is_default", "pk")) if wanted else []
    found: dict[str, Place] = {}
    for text, match in wanted:
        for bucket in buckets:
            if bucket.s3_bucket == match["bucket"] and match["key"].startswith(f"{bucket.prefix}/".lstrip("/")):
                found.setdefault(text, Place(ref=text, key=match["key"], bucket=bucket.pk))
    return found


def _unknown(tenant_id: UUID, each: Reference) -> str:
    match = reference(each.text)
    assert match
    if match["s3"]:
        return "is in no bucket of yours (S3 bucket and prefix; a key has no `.` or `..`)."
    why = assets.no_asset(tenant_id, UUID(match["id"]))
    return "is not uploaded yet, or not an asset of yours." if why.status == 404 else f"cannot be used: {why.error}"


def hold(job: UUID, places: Sequence[Place]) -> None:
    """In the transaction that made the job, with the blobs locked."""
    blobs = {UUID(place.blob) for place in places if place.blob}
    Hold.objects.bulk_create(Hold(job_id=job, blob_id=blob) for blob in blobs)


def can_run_again(payload: Payload) -> bool:
    """Whether the bytes of its inputs are still held."""
    if payload.inputs is None or not any(place.blob for place in read(bytes(payload.inputs))):
        return True
    return Hold.objects.filter(job_id=payload.pk).exists()


def sources(inputs: bytes) -> dict[str, Source]:
    """What a worker gets for each reference: a URL that is signed now."""
    places = read(inputs)
    buckets = Bucket.all_tenants.in_bulk([place.bucket for place in places if place.bucket])
    return {place.ref: _source(place, buckets) for place in places}


def _source(place: Place, buckets: Mapping[int, Bucket]) -> Source:
    about: dict[str, Any] = {"name": place.name, "bytes": place.bytes, "sha256": place.sha256}
    if place.url:
        return Source(url=place.url, **about)
    try:
        where = place_of(buckets[place.bucket] if place.bucket else None, None)
        return Source(url=sign_get(where, place.key, settings.INPUT_URL_LIFETIME), trusted=where.trusted, **about)
    except KeyError:
        return Source(url="", fault="its bucket was deleted", **about)
    except (SealBroken, ValueError, BotoCoreError) as error:
        return Source(url="", fault=f"its bucket cannot be used: {error}", **about)


MOVED_BYTES, MOST_MOVED = 32 * 1024, 50  # of base64: what is smaller stays where it is; files of one request


@dataclass(frozen=True, kw_only=True)
class Move:
    """A submission whose large base64 files have become assets of the job to be; `uploads`: what S3 has not yet."""

    submission: Submission
    uploads: list[tuple[Blob, bytes]]


def plan_move(tenant_id: UUID, submission: Submission) -> Move | None:
    """None if nothing is to be moved, or the tenant has no room: no job is refused for that."""
    parts = split_object(submission.workflow_input).values
    values = {key: parts[key].value for key in FILES if key in parts}
    uploads: list[tuple[Blob, bytes]] = []
    try:
        moved = {text: _moved(tenant_id, name, data, uploads) for name, text, data in _large(values)}
    except Refused:
        return None
    if not moved:
        return None
    rewritten = {key: json.dumps(_with_assets(value, moved)).encode() for key, value in values.items()}
    given = json_object({key: rewritten.get(key, part.raw) for key, part in parts.items()})
    planned = replace(submission, input=given, workflow_input=given, moved=tuple(moved.values()))
    return Move(submission=planned, uploads=uploads)


def _large(values: Mapping[str, Any]) -> list[tuple[str, str, bytes]]:
    """(name, base64, bytes) of what is to be moved, the largest first. What is no base64 stays for the worker to
    refuse."""
    named = [pair for listed in values.values() for pair in named_files(listed)]
    texts = [(name, text) for name, text in named if isinstance(name, str) and isinstance(text, str)]
    long = sorted((pair for pair in texts if len(pair[1]) >= MOVED_BYTES), key=lambda pair: -len(pair[1]))[:MOST_MOVED]
    return [(name, text, data) for name, text in long if (data := bytes_in(text))]


def _moved(tenant_id: UUID, name: str, data: bytes, uploads: list[tuple[Blob, bytes]]) -> Moved:
    sha256 = hashlib.sha256(data).hexdigest()
    new = assets.New(name=name[:300], content_type=content_type_of(name), bytes=len(data), sha256=sha256)
    blob = assets.known(tenant_id, sha256) or next((blob for blob, _ in uploads if blob.sha256 == sha256), None)
    if blob is None:
        assets.check_room(tenant_id, new)
        uploads.append((blob := assets.pending(tenant_id, new), data))
    return Moved(asset=uuid7(), blob=blob, name=name[:300])


def _with_assets(listed: Any, moved: Mapping[str, Moved]) -> Any:
    def swapped(content: Any) -> Any:
        return moved[content].ref if isinstance(content, str) and content in moved else content

    if isinstance(listed, dict):
        return {name: swapped(content) for name, content in listed.items()}
    return [{k: swapped(v) for k, v in item.items()} if isinstance(item, dict) else item for item in listed]


def keep_moved(moved: Sequence[Moved]) -> list[Place]:
    """In the transaction that makes the job: the blobs, locked in one order. Raises assets.Lost."""
    kept = [(each, assets.keep(each.blob)) for each in sorted(moved, key=lambda each: each.blob.sha256)]
    return [
        Place(ref=each.ref, key=blob.key, blob=str(blob.pk), name=each.name, bytes=blob.bytes, sha256=blob.sha256)
        for each, blob in kept
    ]


def name_moved(job: UUID, tenant_id: UUID, moved: Sequence[Moved], places: Sequence[Place]) -> None:
    """What was moved becomes assets of the job, which is there now."""
    blobs = {place.ref: place.blob or "" for place in places}
    Asset.all_tenants.bulk_create(
        Asset(
            id=each.asset,
            tenant_id=tenant_id,
            blob_id=blobs[each.ref],
            source=Asset.Source.INPUT,
            job_id=job,
            name=each.name,
        )
        for each in moved
    )
