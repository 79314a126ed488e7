"""Examples for the OpenAPI document: of each JSON body that is sent or answered, made of its schema and of what a field
of that name may hold. A test holds each to its schema."""

from collections.abc import Iterator
from typing import Any

from jobs.api.schema import WORKFLOW

JSON = "application/json"
ID, AT, LATER = "01a20f1c-7d5e-7c3a-9b1f-3f1d2c4b5a69", "2026-11-25T10:00:00Z", "2026-12-25T10:00:00Z"
URL = "https://s3.eu-central-1.amazonaws.com/acme-renders/hearth/picture.png?X-Amz-Signature=…"
CODES = {
    400: ("bad_request", "`limit`: A valid integer is required."),
    401: ("unauthorized", "Unknown API key."),
    403: ("forbidden", "This API key has not the scope 'manage'."),
    404: ("not_found", "There is no job '01a20f1c-…-e1' of yours."),
    405: ("method_not_allowed", "PUT is not allowed here."),
    409: ("not_retryable", "Only FAILED and TIMED_OUT jobs can be retried; this one is COMPLETED."),
    410: ("gone", f"The job '01a20f1c-…-e1' was deleted at {AT}."),
    413: ("too_large", "The file has 40000000 bytes; at most 33554432 are taken here. Announce it and PUT it."),
    415: (
        "unsupported_media_type",
        "A body of type 'text/plain' is not taken here. Its Content-Type must be application/json.",
    ),
    422: (
        "idempotency_key_reused",
        "The Idempotency-Key 'a' came with another body before. A new request needs a new key.",
    ),
    429: (
        "rate_limited",
        "Too many requests: Tenant 'acme' may make 1000 `api` requests in 10 s. More are taken in 7 s.",
    ),
    503: ("unavailable", "The database is away. Try again."),
}
"""What is answered with each status."""
OF_FIELDS: dict[str, Any] = {
    "access_key_id": "AKIAEXAMPLE",
    "archived_at": None,
    "addressing": "virtual",
    "answer": "thanks",
    "attempt": 1,
    "bytes": 828,
    "class_type": "KSampler",
    "content_type": "image/png",
    "cost": "0.0042",
    "cost_a_month": "250.00",
    "currency": "EUR",
    "day": "2026-11-25",
    "delay_ms": 12,
    "disabled_at": None,
    "disabled_why": None,
    "endpoint": "comfyui",
    "endpoint_url": "https://s3.eu-central-1.amazonaws.com",
    "endpoints": ["comfyui"],
    "enabled": True,
    "error": None,
    "execution_ms": 2140,
    "expires_at": LATER,
    "failed_since": "2026-11-24T10:00:00Z",
    "failing_since": None,
    "fault": None,
    "good": True,
    "gpu_ms": 2140,
    "gpu_s_a_month": 360_000,
    "headers": {"Content-Type": "image/png", "Content-Length": "828"},
    "id": ID,
    "input": {"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}},
    "job": f"{ID}-e1",
    "key": "hth_0123456789ab_…",
    "kind": "completed",
    "kinds": ["completed", "failed"],
    "max_queued": 1000,
    "max_running": 4,
    "max_stored_bytes": 100_000_000_000,
    "made_by": "key hth_0123456789ab_…",
    "message": None,
    "metadata": {"order": "1042"},
    "month": "2026-11",
    "ms": 12,
    "name": "prod",
    "next": "https://hearth.example.com/api/v1/…?cursor=cD0x",
    "next_at": None,
    "node": "9",
    "ok": True,
    "output": {"files": [URL]},
    "overlap_s": 86400,
    "payload_deleted_at": None,
    "place": "comfyui",
    "prefix": "0123456789ab",
    "preview": URL,
    "previous": None,
    "price": "0.002000",
    "priority": 0,
    "public_url": "",
    "queue": None,
    "region": "eu-central-1",
    "requests_per_10s": 1000,
    "retries": 0,
    "revoked_at": None,
    "s3_bucket": "acme-renders",
    "scopes": ["run", "read"],
    "secret": "whsec_…",
    "secret_access_key": "…",
    "sha256": "d" * 64,
    "signed_urls": True,
    "state": "active",
    "status": "COMPLETED",
    "step": "write an object",
    "title": "Portrait",
    "unused_key_days": 90,
    "url": URL,
    "url_hours": 24,
    "warning": None,
    "workflow": "portrait@3",
    "worker": "gpu-1",
    "works": True,
}
"""By name; by component and name where that is another thing."""
OF_FIELDS |= {
    **dict.fromkeys((f"Used.{name}" for name in ("failed", "cancelled", "timed_out", "lost", "unbilled_gpu_ms")), 0),
    "ABucket.prefix": "hearth",
    "ChangedBucket.prefix": "hearth",
    "GivenBucketRequest.prefix": "hearth",
    "PatchedBucketChangesRequest.prefix": "hearth",
    "AnAsset.kind": "image",
    "AnAsset.name": "picture.png",
    "AnAsset.source": "output",
    "AnAsset.job": f"{ID}-e1",
    "AnnouncedRequest.name": "picture.png",
    "AnEndpoint.name": "comfyui",
    "OneEndpoint.name": "comfyui",
    "AnEndpoint.url": "https://hearth.example.com/v2/comfyui",
    "OneEndpoint.url": "https://hearth.example.com/v2/comfyui",
    "ATenant.name": "acme",
    "AKey.name": "ci",
    "KeyOfJob.name": "ci",
    "NewKey.name": "ci",
    "NewRequest.name": "ci",
    "PatchedChangedRequest.name": "ci",
    "Posted.status": 200,
    "Try.status": 200,
    "Posted.error": "",
    "Try.error": "",
    "Used.key": "0123456789ab",
    "AWorkflow.name": "portrait",
    "OneVersion.workflow": WORKFLOW,
    **{f"{job}.id": f"{ID}-e1" for job in ("ListedJob", "OneJob", "Moved", "JobStatus")},
    **{f"{sent}.id": f"msg_{ID}" for sent in ("ADelivery", "OneDelivery")},
    **{
        f"{hook}.url": "https://hooks.example.com/hearth"
        for hook in ("AWebhook", "NewWebhook", "GivenWebhookRequest", "PatchedWebhookChangesRequest")
    },
    **{f"{sent}.url": "https://hooks.example.com/hearth" for sent in ("ADelivery", "OneDelivery")},
    **{f"{sent}.state": "delivered" for sent in ("ADelivery", "OneDelivery")},
    **{f"{hook}.state": "enabled" for hook in ("AWebhook", "NewWebhook")},
}


def with_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The document, with an example at each JSON body that has none."""
    make = Maker(result["components"]["schemas"])
    for methods in result["paths"].values():
        for operation in methods.values():
            for status, media in _bodies(operation):
                if "example" not in media and "examples" not in media:
                    media["example"] = _refusal(status) if status in CODES else make.example(media["schema"])
    return result


def _bodies(operation: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON ones, with their status; 0: what is sent."""
    told = {"0": operation.get("requestBody", {}), **operation["responses"]}
    for status, body in told.items():
        if media := body.get("content", {}).get(JSON):
            yield int(status), media


def _refusal(status: int) -> dict[str, str]:
    code, error = CODES[status]
    return {"error": error, "code": code}


class Maker:
    """Makes what a schema allows."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components

    def example(self, schema: dict[str, Any], name: str = "", of: str = "") -> Any:
        """`name`: of the field, in the component `of`."""
        for known in (f"{of}.{name}", name):
            if known in OF_FIELDS and _fits(OF_FIELDS[known], schema):
                return OF_FIELDS[known]
        if "example" in schema:
            return schema["example"]
        if "$ref" in schema:
            of = schema["$ref"].rpartition("/")[2]
            return self.example(self._components[of], of=of)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return self.example(schema[choice][0], name, of)
        if "allOf" in schema:
            return self._all(schema, of)
        return self._plain(schema, name, of)

    def _all(self, schema: dict[str, Any], of: str) -> Any:
        made = [self.example(part, of=of) for part in schema["allOf"]]
        made.append(self._object(schema, of))
        return {field: value for part in made for field, value in part.items()}

    def _plain(self, schema: dict[str, Any], name: str, of: str) -> Any:
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "object":
                return self._object(schema, of)
            case "array":
                return [self.example(schema["items"], name, of)]
            case "string":
                return {"uuid": ID, "date-time": AT, "date": AT[:10]}.get(schema.get("format", ""), "…")
            case "integer" | "number":
                return schema.get("default", max(1, schema.get("minimum", 1)))
            case "boolean":
                return schema.get("default", False)
        return {}

    def _object(self, schema: dict[str, Any], of: str) -> dict[str, Any]:
        return {name: self.example(inner, name, of) for name, inner in schema.get("properties", {}).items()}


KINDS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a field of this schema may have that value, of which only its kind and an enum are looked at."""
    if value is None:
        return bool(schema.get("nullable"))
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema.get("type")
    return isinstance(value, KINDS[kind]) if kind else not {"$ref", "allOf", "oneOf", "anyOf"} & schema.keys()
