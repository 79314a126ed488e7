"""What runs: endpoints and who may use them, stored workflows, jobs with their payloads, attempts and events, the
workers, usage, webhooks with their deliveries, and receipts of what was deleted."""

from jobs.models.deletion import Deletion
from jobs.models.figures import Figures
from jobs.models.fleet import Catalogue, Endpoint, Grant, WebProcess, Worker, WorkerKey
from jobs.models.job import Attempt, Chunk, Event, IdempotencyKey, Job, Payload, Preview
from jobs.models.metadata import Metadata
from jobs.models.overflow import Overflow
from jobs.models.runpod import Receipt, RunpodEndpoint
from jobs.models.usage import Usage
from jobs.models.webhook import Delivery, DeliveryTry, Webhook, WebhookSecret
from jobs.models.workflow import Workflow, WorkflowVersion

__all__ = [
    "Attempt",
    "Catalogue",
    "Chunk",
    "Deletion",
    "Delivery",
    "DeliveryTry",
    "Endpoint",
    "Event",
    "Figures",
    "Grant",
    "IdempotencyKey",
    "Job",
    "Metadata",
    "Overflow",
    "Payload",
    "Preview",
    "Receipt",
    "RunpodEndpoint",
    "Usage",
    "WebProcess",
    "Webhook",
    "WebhookSecret",
    "Worker",
    "WorkerKey",
    "Workflow",
    "WorkflowVersion",
]
