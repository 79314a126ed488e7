"""The cast of every test: tenants acme and globex, each test with its own, on endpoints of its own."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import django
import orjson

django.setup()

from accounts.keys import GivenKey, given_key
from accounts.models import ApiKey, Tenant
from jobs import creation, lifecycle, workers
from jobs.ids import AttemptId, JobId, parse_attempt_id
from jobs.models import Attempt, Endpoint, Event, Grant, Job, WorkerKey
from jobs.queue import Claimed
from jobs.wire.bodies import parse_request
from jobs.wire.submission import parse_submission

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "t"}},
}


def unique(name: str) -> str:
    return f"{name}-{secrets.token_hex(5)}"


@dataclass
class Place:
    """An endpoint with its worker key."""

    endpoint: Endpoint
    worker_key: str

    @property
    def name(self) -> str:
        return self.endpoint.name

    def worker(self, name: str = "w1") -> "FakeWorker":
        return FakeWorker(self, name)

    @property
    def key(self) -> GivenKey:
        return given_key(self.worker_key)


def new_place(dialect: str = "raw", **fields: Any) -> Place:
    endpoint = Endpoint.objects.create(name=unique("ep"), dialect=dialect, **fields)
    return Place(endpoint, WorkerKey.issue(endpoint=endpoint)[1])


@dataclass
class Client:
    """A tenant at an endpoint, with its key."""

    tenant: Tenant
    place: Place
    grant: Grant
    api_key: str
    key: GivenKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = given_key(self.api_key)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}

    def submit(self, given: Any = None, *, sync: bool = False, **fields: Any) -> JobId:
        body = {"input": {"workflow": WORKFLOW} if given is None else given, **fields}
        submission = parse_submission(parse_request(orjson.dumps(body)), sync=sync)
        return creation.create(self.key, self.place.name, submission).job

    def cancel(self, job: JobId) -> str:
        return lifecycle.cancel(self.key, self.place.name, job).value

    def retry(self, job: JobId) -> str:
        return lifecycle.retry(self.key, self.place.name, job).value

    def new_key(self, **fields: Any) -> str:
        fields = {"scopes": ["run", "read"]} | fields
        return ApiKey.issue(tenant=self.tenant, **fields)[1]


def new_client(place: Place, name: str = "acme", **grant: Any) -> Client:
    tenant = Tenant.objects.create(name=unique(name))
    made = Grant.all_tenants.create(tenant=tenant, endpoint=place.endpoint, **grant)
    return Client(tenant, place, made, ApiKey.issue(tenant=tenant, scopes=["run", "read"])[1])


@dataclass
class FakeWorker:
    """A worker as the verbs see it."""

    place: Place
    name: str

    def poll(self, *, idle: bool = False) -> workers.Poller:
        return workers.begin_take(self.place.key, self.place.name, self.name, idle=idle)

    def take(self, n: int = 1, *, idle: bool = False) -> list[Claimed]:
        return workers.take(self.poll(idle=idle), n).jobs

    def take_one(self) -> Claimed:
        (job,) = self.take()
        return job

    def ping(self, *claimed: Claimed) -> None:
        named = [AttemptId(job.job, job.number) for job in claimed]
        workers.ping(self.place.key, self.place.name, self.name, "1.12.0", named)

    def stops(self) -> list[AttemptId]:
        poller = workers.begin_stop(self.place.key, self.place.name, self.name)
        return [found for text in workers.stops(poller) if (found := parse_attempt_id(text))]


def attempt_of(claimed: Claimed) -> AttemptId:
    return AttemptId(claimed.job, claimed.number)


def row(job: JobId | Claimed) -> Job:
    return Job.all_tenants.select_related("payload").get(pk=job.uuid if isinstance(job, JobId) else job.job)


def attempt_row(claimed: Claimed) -> Attempt:
    return Attempt.objects.get(job_id=claimed.job, number=claimed.number)


def kinds(job: JobId | Claimed) -> list[str]:
    return list(Event.objects.filter(job_id=row(job).pk).order_by("id").values_list("kind", flat=True))
