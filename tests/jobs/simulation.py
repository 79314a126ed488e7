"""A fleet in time of its own: the real claim() and done(), with jobs that last as long as a test says.

Nothing waits: before a job is done its start is put back by its length, which is what the clocks of grants are charged.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from accounts import sql
from jobs import news
from jobs.depth import Holder
from jobs.models import Job
from jobs.queue import Claimed, claim
from tests.cast import Client, Place, attempt_of

LAST = "UPDATE jobs_attempt SET started_at = clock_timestamp() - %s * interval '1 ms' WHERE job_id = %s AND number = %s"


@dataclass
class Fleet:
    """Slots of an endpoint. `lasts`: the ms of a job of a grant."""

    place: Place
    slots: int
    lasts: Callable[[Job], int]
    at_ms: int = 0
    taken: list[Job] = field(default_factory=list)
    gpu_ms: Counter[int] = field(default_factory=Counter)  # by grant
    reloads: int = 0
    _running: list[tuple[int, int, Claimed, Job]] = field(default_factory=list)
    _loaded: dict[int, list[int]] = field(default_factory=dict)
    _workers: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._workers = [self.place.worker(f"slot-{n}").poll().worker_id for n in range(self.slots)]

    def run(self, jobs: int) -> None:
        """Until so many more were taken, or nothing is left."""
        until = len(self.taken) + jobs
        busy = {slot for _, slot, _, _ in self._running}
        for slot in range(self.slots):
            if slot not in busy:
                self._take(slot)
        while self._running and len(self.taken) < until:
            self._end_next()

    def finish(self) -> None:
        """What runs ends, nothing more is taken."""
        while self._running:
            self._done(heapq.heappop(self._running))

    def _end_next(self) -> None:
        ended = heapq.heappop(self._running)
        self.at_ms = ended[0]
        self._done(ended)
        self._take(ended[1])

    def _take(self, slot: int) -> None:
        for ends_ms, _, running, job in self._running:
            sql.run(LAST, [self.at_ms - ends_ms + self.lasts(job), running.job, running.number])
        holder = Holder(name=f"slot-{slot}", worker_id=self._workers[slot])
        for claimed in claim(self.place.endpoint.pk, holder, 1).jobs:
            job = Job.all_tenants.get(pk=claimed.job)
            self.taken.append(job)
            if job.model_hashes and job.model_hashes != self._loaded.get(slot):
                self.reloads += 1
                self._loaded[slot] = job.model_hashes
            heapq.heappush(self._running, (self.at_ms + self.lasts(job), slot, claimed, job))

    def _done(self, ended: tuple[int, int, Claimed, Job]) -> None:
        _, slot, claimed, job = ended
        sql.run(LAST, [self.lasts(job), claimed.job, claimed.number])
        assert news.done(self.place.endpoint.pk, f"slot-{slot}", attempt_of(claimed), news.Done(output=b"1"))
        self.gpu_ms[job.grant_id] += self.lasts(job)

    def shares(self, clients: Sequence[Client]) -> list[float]:
        """Of the GPU time had so far, that of each."""
        had = [self.gpu_ms[client.grant.pk] for client in clients]
        return [ms / sum(had) for ms in had]


QUEUE = """
WITH job AS (
    INSERT INTO jobs_job (id, sync, tenant_id, endpoint_id, grant_id, api_key_id, ttl_ms, execution_timeout_ms,
                          model_hashes, deadline_at)
    SELECT uuidv7(), false, g.tenant_id, g.endpoint_id, g.id, k.id, 86400000, 600000, %(models)s::bigint[],
           clock_timestamp() + interval '1 day'
      FROM generate_series(1, %(n)s::int) i, jobs_grant g JOIN accounts_apikey k ON k.tenant_id = g.tenant_id
     WHERE g.id = %(grant)s RETURNING id
)
INSERT INTO jobs_payload (job_id, input) SELECT id, '{}' FROM job"""


def queue(client: Client, n: int, models: Sequence[int] | None = None) -> None:
    """n jobs of the client's first key, written at once."""
    sql.run(QUEUE, {"n": n, "grant": client.grant.pk, "models": list(models) if models else None})


def ids(fleet: Fleet) -> list[UUID]:
    return [job.pk for job in fleet.taken]
