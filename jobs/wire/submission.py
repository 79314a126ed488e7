"""A client's request to run a job, parsed: RunPod's fields and the reference's (api-interactions.md)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID

from django.conf import settings

from accounts.errors import Refused, bad_request
from accounts.sealed import Sealed
from jobs.graph.check import Graph
from jobs.graph.faults import Verdict
from jobs.wire.bodies import Part, Parts, json_object, kind, shown, split_object
from jobs.wire.metadata import parse_metadata
from jobs.wire.references import NOBODY_TOLD, Reference, TakesFiles, find_assets, find_references
from jobs.wire.workflow import workflow_of
from jobs.workflows.run import Ran
from storage.models import Blob
from storage.places import BucketRefused, request_bucket
from worker.kinds import is_model
from worker.wire import HEARTH_FIELD, UrlRefused, check_url, file_names

EXECUTION_TIMEOUT_MS = (5_000, 7 * 24 * 3600_000)
TTL_MS = (10_000, 7 * 24 * 3600_000)
PRIORITY, LOW_PRIORITY = (-10, 10), -1
DEFAULT_EXECUTION_TIMEOUT_MS, DEFAULT_TTL_MS = 600_000, 24 * 3600_000
BUCKET_FIELDS = ("tobucket", "s3Config")
WEBHOOK_FIELDS = ("webhook", "webhookV2")  # both are in the JS SDK

Judge = Callable[[Graph, Collection[str]], Verdict | None]
"""(workflow, names of the job's own files) → why the endpoint's workers would refuse it."""


@dataclass(frozen=True, kw_only=True)
class Once:
    """A request's Idempotency-Key, and the SHA-256 of its body."""

    key: str
    body_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A file of the request whose bytes are `blob`; the job will have it as `asset`."""

    asset: UUID
    blob: Blob
    name: str

    @property
    def ref(self) -> str:
        return f"asset:{self.asset}"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What `create` writes. `input`: the JSON bytes for dialect raw; `workflow_input`: for dialects with a workflow,
    without secrets; `workflow_fault`: why those dialects refuse it, "" if they do not; `verdict`: the node catalogue's,
    if that is why; `refused`: why the stored workflow that it names is not run, if that is. `ran`: which one it is.
    `model_hashes`: of the model files it names, None if it names none. `references`: files that its input names and
    that Hearth has to find; `raw_references`: the same for dialect raw. `moved`: files that came in it, and are not in
    `input` any more. `storage`: the name of the tenant's bucket that it asks for."""

    sync: bool
    input: bytes
    workflow_input: bytes
    workflow_fault: str
    verdict: Verdict | None
    webhook: str
    policy: bytes | None
    execution_timeout_ms: int
    ttl_ms: int
    priority: int
    model_hashes: list[int] | None
    request_bucket: Sealed | None
    raw_request_bucket: Sealed | None
    references: tuple[Reference, ...] = ()
    raw_references: tuple[Reference, ...] = ()
    moved: tuple[Moved, ...] = ()
    once: Once | None = None
    storage: str | None = None
    ran: Ran | None = None
    refused: Refused | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    run_again_of: str = ""

    def refusal(self) -> Refused:
        """What dialects with a workflow answer to a fault."""
        if self.refused:
            return self.refused
        if self.verdict is None:
            return bad_request(self.workflow_fault, "invalid_workflow")
        error, nodes = self.verdict.told()
        return Refused(400, "invalid_workflow", error, nodes=nodes)


def parse_submission(
    parts: Parts,
    *,
    sync: bool,
    judge: Judge | None = None,
    takes_files: TakesFiles = NOBODY_TOLD,
    once: Once | None = None,
    ran: Ran | Refused | None = None,
) -> Submission:
    """`ran`: what came of an input that names a stored workflow. Raises Refused(400) for what no dialect takes."""
    values = parts.values
    given = values.get("input")
    if given is None:
        raise bad_request("The body has no `input`.", "no_input")
    policy = _policy(values.get("policy"))
    whole = ran.given if isinstance(ran, Ran) else given
    kept, own_bucket, bucket_fault = _cut_secrets(whole)
    config = _config(values.get("s3Config"))
    workflow, workflow_fault = ({}, ran.error) if isinstance(ran, Refused) else workflow_of(whole.value)
    references, input_fault = ((), "") if workflow_fault else find_references(whole.value, workflow, takes_files)
    fault = workflow_fault or bucket_fault or input_fault
    verdict = judge(workflow, set(file_names(whole.value))) if judge and not fault else None
    return Submission(
        sync=sync,
        input=given.raw,
        workflow_input=kept,
        workflow_fault="ComfyUI would refuse it." if verdict else fault,
        verdict=verdict,
        webhook=_webhook(values),
        policy=values["policy"].raw if "policy" in values else None,
        execution_timeout_ms=_bounded(policy, "executionTimeout", EXECUTION_TIMEOUT_MS, DEFAULT_EXECUTION_TIMEOUT_MS),
        ttl_ms=_bounded(policy, "ttl", TTL_MS, DEFAULT_TTL_MS),
        priority=_priority(policy),
        model_hashes=_model_hashes(workflow),
        request_bucket=own_bucket or config,
        raw_request_bucket=config,
        references=references,
        raw_references=find_assets(given),
        once=once,
        storage=_storage(values.get("storage")),
        ran=ran if isinstance(ran, Ran) else None,
        refused=ran if isinstance(ran, Refused) else None,
        metadata=parse_metadata(parts.value("metadata")),
    )


def _cut_secrets(given: Part) -> tuple[bytes, Sealed | None, str]:
    """The input without its bucket secrets (and without what is ours to add), the bucket it named, sealed, and what is
    wrong with that, "" if nothing is."""
    if not isinstance(given.value, dict) or not {*BUCKET_FIELDS, HEARTH_FIELD} & given.value.keys():
        return given.raw, None, ""
    parts = split_object(given.raw).values
    kept = {name: part for name, part in parts.items() if name not in (*BUCKET_FIELDS, HEARTH_FIELD)}
    raw = json_object({name: part.raw for name, part in kept.items()})
    try:
        named = [_bucket(parts.get(field), f"input.{field}") for field in BUCKET_FIELDS]
    except BucketRefused as error:
        return raw, None, str(error)
    return raw, next((bucket for bucket in named if bucket), None), ""


def _config(part: Part | None) -> Sealed | None:
    try:
        return _bucket(part, "s3Config")
    except BucketRefused as error:
        raise bad_request(str(error), "invalid_bucket") from error


def _bucket(part: Part | None, field: str) -> Sealed | None:
    """The bucket that a field names, sealed; None if it names none. Raises BucketRefused."""
    if part is None or part.value in (None, {}):
        return None
    try:
        request_bucket(part.value)
    except BucketRefused as error:
        raise BucketRefused(f"`{field}`: {error}.") from error
    return Sealed.seal(part.raw.decode())


def _storage(part: Part | None) -> str | None:
    if part is None or part.value in (None, ""):
        return None
    if not isinstance(part.value, str) or len(part.value) > 63 or not part.value.isprintable():
        raise bad_request(
            f"`storage` must be the name of a bucket of yours, not {shown(part.value)}.", "unknown_bucket"
        )
    return part.value


def _webhook(values: Mapping[str, Part]) -> str:
    """The first that is given."""
    given = {name: values[name].value for name in WEBHOOK_FIELDS if name in values}
    for name, url in given.items():
        if url is None or url == "":
            continue
        try:
            return check_url(url, settings.URL_ALLOW)
        except UrlRefused as error:
            raise bad_request(f"`{name}`: {error}.", "invalid_webhook") from error
    return ""


def _policy(part: Part | None) -> Mapping[str, Any]:
    """The policy by lower-cased names: the reference spells `executiontimeout`, RunPod `executionTimeout`."""
    if part is None or part.value is None:
        return {}
    if not isinstance(part.value, dict):
        raise bad_request(f"`policy` must be an object, not {kind(part.value)}.", "invalid_policy")
    return {name.lower(): value for name, value in part.value.items()}


def _priority(policy: Mapping[str, Any]) -> int:
    """`priority`, else by RunPod's lowPriority. Below 0: after the jobs of all other tenants too."""
    low = _flag(policy, "lowPriority")
    value = policy.get("priority")
    if value is None:
        return LOW_PRIORITY if low else 0
    least, most = PRIORITY
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad_request(f"`policy.priority` must be {least} to {most}, not {shown(value)}.", "invalid_policy")
    return value


MODELS_MOST, MODEL_NAME_MOST = 32, 255


def _model_hashes(workflow: Mapping[str, Any]) -> list[int] | None:
    """64 bits for each model file that a workflow names: what tells a worker's warm jobs from others."""
    nodes = (
        node["inputs"] for node in workflow.values() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    )
    values = (value for inputs in nodes for value in inputs.values())
    names = {value for value in values if isinstance(value, str) and len(value) <= MODEL_NAME_MOST and is_model(value)}
    return sorted(map(model_hash, names))[:MODELS_MOST] or None


def model_hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(errors="replace"), digest_size=8).digest(), signed=True)


def _bounded(policy: Mapping[str, Any], name: str, bounds: tuple[int, int], default: int) -> int:
    value = policy.get(name.lower())
    if value is None:
        return default
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise bad_request(f"`policy.{name}` must be {low} to {high} (ms), not {shown(value)}.", "invalid_policy")
    return int(value)


def _flag(policy: Mapping[str, Any], name: str) -> bool:
    value = policy.get(name.lower())
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad_request(f"`policy.{name}` must be true or false, not {shown(value)}.", "invalid_policy")
    return value
