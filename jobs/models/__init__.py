"""What runs: endpoints and who may use them, jobs with their payloads, attempts and events, the workers, and usage."""

from jobs.models.fleet import Catalogue, Endpoint, Grant, WebProcess, Worker, WorkerKey
from jobs.models.job import Attempt, Chunk, Event, IdempotencyKey, Job, Payload
from jobs.models.usage import Usage

__all__ = [
    "Attempt",
    "Catalogue",
    "Chunk",
    "Endpoint",
    "Event",
    "Grant",
    "IdempotencyKey",
    "Job",
    "Payload",
    "Usage",
    "WebProcess",
    "Worker",
    "WorkerKey",
]
