"""Things of acme, and by which of them each parameter of a path is filled in."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from django.core import signing

from accounts.sealed import Sealed
from jobs import news, remote, uploads
from jobs.ids import AttemptId, JobId, attempt_id, public_id
from jobs.queue import Claimed
from jobs.webhooks.register import register, send_test
from jobs.workflows import stored
from storage import assets
from storage.models import Bucket
from tests.cast import WORKFLOW, Client, attempt_of, new_client, new_place, unique

NO_ID = "01234567-89ab-7def-8123-456789abcdef"


@dataclass(frozen=True)
class Thing:
    """What stands in a path for something of acme's; the same for what is not there; and, where the name itself is
    the right to it, what a stranger can make of it. `is_place`: an endpoint, which others may be granted too.
    `is_anybodys`: a name that whoever asks may choose."""

    real: str
    absent: str
    forged: str | None = None
    is_place: bool = False
    is_anybodys: bool = False


class Acme:
    """A tenant on an endpoint of Hearth's own workers. What it has is made when it is first asked for, and bears its
    name."""

    def __init__(self) -> None:
        self.client: Client = new_client(new_place("hearth"), "acme")
        self.tenant, self.place = self.client.tenant, self.client.place

    @cached_property
    def failed(self) -> UUID:
        """A job that has ended, by a failure."""
        claimed, said = self._running("w-failed"), f'"{self.tenant.name} is out of memory"'.encode()
        assert news.done(self.place.endpoint.pk, "w-failed", attempt_of(claimed), news.Done(error=said))
        return claimed.job

    @cached_property
    def attempt(self) -> AttemptId:
        """It runs, on the worker w1."""
        return attempt_of(self._running("w1"))

    @cached_property
    def asset(self) -> UUID:
        """A file that it has uploaded."""
        content = unique(self.tenant.name).encode()
        new = assets.New(
            name=f"{self.tenant.name}.txt",
            content_type="text/plain",
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            lives=None,
        )
        return assets.put(self.tenant.pk, new, io.BytesIO(content)).pk

    @cached_property
    def bucket(self) -> str:
        s3 = {"endpoint_url": "http://127.0.0.1:9", "s3_bucket": "b", "access_key_id": "AKIAACME"}
        name, secret = unique("bucket"), Sealed.seal(self.tenant.name)
        Bucket.all_tenants.create(tenant=self.tenant, name=name, secret_access_key=secret, **s3)
        return name

    @cached_property
    def webhook(self) -> UUID:
        return register(self.tenant, f"https://hooks.example.com/{self.tenant.name}", ["started"]).webhook.pk

    @cached_property
    def delivery(self) -> str:
        return send_test(self.tenant, self.webhook).message_id

    @cached_property
    def workflow(self) -> str:
        name = unique("workflow")
        return stored.create(self.tenant.pk, name, WORKFLOW, [], by="acme", title=self.tenant.name).name

    @cached_property
    def key_prefix(self) -> str:
        return self.client.new_key(name=self.tenant.name).split("_")[1]

    def queued(self) -> str:
        """A worker that finds a job in the queue."""
        self.client.submit()
        return "w-idle"

    def stopping(self) -> str:
        """A worker whose job has been cancelled."""
        self.client.cancel(JobId(self._running("w-stopping").job, False))
        return "w-stopping"

    def _running(self, worker: str) -> Claimed:
        self.client.submit()
        claimed = self.place.worker(worker).take_one()
        assert news.started(attempt_of(claimed))
        return claimed


def of_worker(name: str) -> Thing:
    return Thing(name, "w-none", is_anybodys=True)


def of_place(acme: Acme) -> Thing:
    return Thing(acme.place.name, unique("ep"), is_place=True)


def of_uuid(value: UUID) -> Thing:
    return Thing(str(value), NO_ID)


def of_job(value: UUID) -> Thing:
    return Thing(public_id(value, False), public_id(UUID(NO_ID), False))


def of_attempt(value: AttemptId) -> Thing:
    return Thing(attempt_id(value.job, False, value.number), attempt_id(UUID(NO_ID), False, value.number))


def of_token(real: str) -> Thing:
    """`forged`: the same, signed by somebody else."""
    body = real.rpartition(":")[0]
    return Thing(real, "no-token", forged=f"{body}:{signing.Signer(key='of a stranger').signature(body)}")


# By the segment before it and its name, else by its name alone.
PARAMETERS: dict[str, Callable[[Acme], Thing]] = {
    "{endpoint}": of_place,
    "endpoints/{name}": of_place,
    "{job}": lambda acme: of_job(acme.failed),
    "job/{job}": lambda acme: of_uuid(acme.failed),
    "{asset}": lambda acme: of_uuid(acme.asset),
    "buckets/{name}": lambda acme: Thing(acme.bucket, unique("bucket")),
    "{webhook}": lambda acme: of_uuid(acme.webhook),
    "{delivery}": lambda acme: Thing(acme.delivery, f"msg_{NO_ID}"),
    "workflows/{name}": lambda acme: Thing(acme.workflow, unique("workflow")),
    "versions/{number}": lambda acme: Thing("1", "2", is_anybodys=True),
    "keys/{prefix}": lambda acme: Thing(acme.key_prefix, "0123456789ab"),
    "{attempt}": lambda acme: of_attempt(acme.attempt),
    "job-take/{worker}": lambda acme: of_worker(acme.queued()),
    "job-take-batch/{worker}": lambda acme: of_worker(acme.queued()),
    "job-stop/{worker}": lambda acme: of_worker(acme.stopping()),
    "{worker}": lambda acme: of_worker("w1"),
    "worker/{token}": lambda acme: of_token(uploads.worker_token(acme.attempt.job, acme.attempt.number)),
    "runpod/{token}": lambda acme: of_token(remote.token(acme.attempt)),
}


def thing(acme: Acme, parameter: str) -> Thing:
    """`parameter`: as in `Walked.parameters`."""
    name = "{" + parameter.partition("{")[2]
    make = PARAMETERS.get(parameter) or PARAMETERS.get(name)
    assert make, f"{parameter!r} of a path is new: say in PARAMETERS (tests/walk/things.py) what of acme's it is."
    return make(acme)
