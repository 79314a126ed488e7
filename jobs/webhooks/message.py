"""What a delivery posts: RunPod's status JSON, signed as Standard Webhooks has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks import Webhook as Signer

from accounts import sql
from accounts.sealed import Sealed
from jobs import history
from jobs.models.webhook import message_id
from jobs.states import News, State

BODY_MAX_BYTES = 10 * 1024**2  # of an output; without a larger one
USER_AGENT = "Hearth-Webhooks/1"
SAMPLE = {
    "delayTime": 24,
    "executionTime": 61,
    "id": "00000000-0000-7000-8000-000000000000-e1",
    "status": "COMPLETED",
    "output": {
        "files": ["https://example.com/picture.png"],
        "datas": {},
        "assets": [
            {
                "id": "00000000-0000-7000-8000-000000000001",
                "node": "9",
                "kind": "image",
                "name": "picture.png",
                "subfolder": "",
                "content_type": "image/png",
                "bytes": 828,
                "sha256": "0" * 64,
                "url": "https://example.com/picture.png",
            }
        ],
    },
    "workerId": "test",
}
STATE_AT: Mapping[str, State] = {
    News.STARTED: State.IN_PROGRESS,
    News.RETRIED: State.IN_QUEUE,
    News.COMPLETED: State.COMPLETED,
    News.FAILED: State.FAILED,
    News.CANCELLED: State.CANCELLED,
    News.TIMED_OUT: State.TIMED_OUT,
}


@dataclass(frozen=True, kw_only=True)
class Message:
    url: str
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)


# `p` is the payload without an output that is too large, which is not even read.
ABOUT = f"""
SELECT d.message, d.kind, d.tenant_id, coalesce(w.url, p.webhook), clock_timestamp(), p.omitted,
       d.kind = 'test', j.state, (j.attempt, j.retries) = (d.attempt, d.retries) AND j.payload_gone_at IS NULL,
       (SELECT json_object_agg(name, CASE WHEN is_text THEN to_json(value) ELSE value::json END ORDER BY name)
          FROM jobs_metadata WHERE job_id = d.job_id),
       {history.COLUMNS}
  FROM jobs_delivery d LEFT JOIN jobs_webhook w ON w.id = d.webhook_id
  LEFT JOIN (jobs_job j JOIN jobs_endpoint e ON e.id = j.endpoint_id) ON j.id = d.job_id
  LEFT JOIN LATERAL (
       SELECT webhook, error, progress, CASE WHEN octet_length(output) <= %(most)s THEN output END AS output,
              CASE WHEN octet_length(output) > %(most)s THEN octet_length(output) END AS omitted
         FROM jobs_payload WHERE job_id = d.job_id) p ON true
 WHERE d.id = %(delivery)s"""
ABOUT_WIDTH = 10


def make(delivery: int) -> Message | None:
    """The message as it is to be sent now; None if the job has moved on since the news, which would tell what is no
    longer so, perhaps after newer news has come; or if what it would tell was deleted."""
    row = sql.first(ABOUT, {"delivery": delivery, "most": BODY_MAX_BYTES})
    if row is None:
        return None
    message, kind, tenant_id, url, now, omitted, is_test, state, same, metadata = row[:ABOUT_WIDTH]
    if not is_test and not (same and state == STATE_AT[kind]):
        return None
    body = orjson.dumps(SAMPLE) if is_test else _status(history.snapshot(row[ABOUT_WIDTH:]), omitted, metadata)
    return Message(url=url, body=body, headers=_headers(tenant_id, message, kind, body, now))


def _status(job: history.Snapshot, omitted: int | None, metadata: dict[str, Any] | None) -> bytes:
    """As /status says it, with the job's own metadata. `outputOmitted`: the bytes of an output that only /status
    gives."""
    more = {"outputOmitted": omitted, "metadata": metadata}
    return orjson.dumps(job.fields() | {name: value for name, value in more.items() if value is not None})


def _headers(tenant_id: UUID, message: UUID, kind: str, body: bytes, now: datetime) -> dict[str, str]:
    id, at = message_id(message), now.astimezone(UTC)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "Hearth-Event": kind,
    }
    text = body.decode()
    signatures = [Signer(secret).sign(id, at, text) for secret in _secrets(tenant_id)]
    return headers | ({"webhook-signature": " ".join(signatures)} if signatures else {})


SECRETS = """
SELECT secret FROM jobs_webhooksecret WHERE tenant_id = %s AND coalesce(expires_at > clock_timestamp(), true)
 ORDER BY id DESC"""


def _secrets(tenant_id: UUID) -> list[str]:
    """Those that hold, the newest first; none before the tenant has one: its deliveries are unsigned, as RunPod's."""
    return [Sealed(secret).unseal() for (secret,) in sql.rows(SECRETS, [tenant_id])]
