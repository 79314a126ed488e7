"""A tenant's jobs at an endpoint that is pushed to, and the passing of time."""

from dataclasses import dataclass
from typing import Any

import orjson

from accounts import sql
from accounts.sealed import Sealed
from jobs.depth import Holder
from jobs.dispatch import dispatch
from jobs.ids import AttemptId, JobId
from jobs.models import Attempt, Receipt, RunpodEndpoint
from jobs.queue import claim
from jobs.webhooks.receive import receive
from tests.cast import Client, Place, kinds, new_client, new_place, row, unique
from tests.runpod.cloud import KEY, Cloud, There

TIMES = {
    "jobs_attempt": ("handed_at", "started_at", "sent_at", "ask_at", "expires_at", "stop_sent_at"),
    "jobs_job": ("queued_at", "started_at", "deadline_at"),
    "jobs_runpodendpoint": ("rest_until", "woken_at", "looked_at"),
}
"""All are of an endpoint; what an attempt has used is settled at its release."""


@dataclass
class Pushed:
    client: Client
    there: There

    @property
    def endpoint_id(self) -> int:
        return self.client.place.endpoint.pk

    @property
    def runpod(self) -> RunpodEndpoint:
        return RunpodEndpoint.objects.get(endpoint=self.endpoint_id)

    def submit(self, *given: Any, **fields: Any) -> JobId:
        return self.client.submit(*given, **fields)

    def dispatch(self) -> int:
        return dispatch(self.endpoint_id)

    def pushed(self, *given: Any, **fields: Any) -> JobId:
        """A job that is at RunPod now."""
        job = self.submit(*given, **fields)
        assert self.dispatch() == 1
        return job

    def attempt(self, job: JobId) -> Attempt:
        return Attempt.objects.filter(job=job.uuid).latest("number")

    def remote(self, job: JobId) -> str:
        """What RunPod calls it."""
        return self.attempt(job).remote_id

    def hears(self, job: JobId, state: str, *, attempt: int = 1, **fields: Any) -> None:
        """RunPod's webhook: the job has come to this."""
        name = Attempt.objects.get(job=job.uuid, number=attempt).remote_id
        self.hears_body(job, self.there.becomes(name, state, **fields), attempt=attempt)

    def hears_body(self, job: JobId, body: bytes, *, attempt: int = 1) -> None:
        receive(AttemptId(job.uuid, attempt), body)

    def passes(self, seconds: float) -> None:
        """So much time passes for all that is of this endpoint."""
        for table, columns in TIMES.items():
            moved = ", ".join(f"{column} = {column} - %(s)s * interval '1 s'" for column in columns)
            which = "endpoint_id = %(of)s" + (" AND released_at IS NULL" if table == "jobs_attempt" else "")
            sql.run(f"UPDATE {table} SET {moved} WHERE {which}", {"s": seconds, "of": self.endpoint_id})

    def is_due(self) -> None:
        """RunPod may be asked again now."""
        sql.run(
            "UPDATE jobs_attempt SET ask_at = clock_timestamp() WHERE endpoint_id = %s AND sent_at IS NOT NULL",
            [self.endpoint_id],
        )
        RunpodEndpoint.objects.filter(endpoint=self.endpoint_id).update(rest_until=None)

    def attends(self, seconds: float = 0) -> int:
        """What a dispatcher does after so long."""
        self.passes(seconds)
        return self.dispatch()

    def receipts(self, job: JobId) -> list[str]:
        return list(Receipt.objects.filter(job=job.uuid).values_list("outcome", flat=True))


def new_pushed(cloud: Cloud, dialect: str = "raw", *, at_a_time: int = 4, **fields: Any) -> Pushed:
    place = new_place(dialect, backend="runpod", max_running=at_a_time)
    return Pushed(new_client(place), register(cloud, place, **fields))


def register(cloud: Cloud, place: Place, **fields: Any) -> There:
    name = unique("rp")
    there = cloud.endpoints[name] = There(keeps_keys=fields.get("keeps_keys", False))
    RunpodEndpoint.objects.create(endpoint=place.endpoint, remote_id=name, api_key=Sealed.seal(KEY), **fields)
    return there


def claimed(acme: Pushed) -> AttemptId:
    """As by a dispatcher that died right after it."""
    (job,) = claim(acme.endpoint_id, Holder(name="backend runpod", starts=False), 1).jobs
    return AttemptId(job.job, job.number)


def state(job: JobId) -> str:
    return row(job).state


def error(job: JobId) -> Any:
    found = row(job).payload.error
    return None if found is None else orjson.loads(bytes(found))


__all__ = ["Pushed", "claimed", "error", "kinds", "new_pushed", "register", "row", "state"]
