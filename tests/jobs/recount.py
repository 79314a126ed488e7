"""What a tenant has used, as its jobs' events, inputs, outputs and files tell it. jobs_usage must say the same."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Coalesce, Length

from accounts.models import Tenant
from jobs.models import Attempt, Endpoint, Event, Figures, Job, Usage
from storage.models import Asset

ENDS = ("completed", "failed", "cancelled", "timed_out")
LOST = ("lost", "handed_back")
LET_GO = ("completed", "failed", *LOST)  # the event of such an outcome is of the moment in which its worker let go
SAME_MOMENT = timedelta(seconds=5)  # for what is written by two statements
COUNTED = (*ENDS, "attempts", "lost", "gpu_ms", "unbilled_gpu_ms", "cost", "bytes_in", "bytes_out")
IN_FIGURES = (*ENDS, "gpu_ms")
Owner = tuple[int, int | None]  # endpoint, API key
Lines = dict[tuple[UUID, int, str], Event]


def recounted(tenant: Tenant, cleared: Mapping[UUID, int]) -> dict[Owner, dict[str, int | Decimal]]:
    sizes = {"input_bytes": Length("payload__input") + F("payload__moved_bytes")}
    sizes |= {"output_bytes": Coalesce(Length("payload__output"), 0)}
    found = Job.all_tenants.filter(tenant=tenant).select_related("endpoint", "grant").annotate(**sizes)
    jobs = {job.pk: job for job in found}
    counts: dict[Owner, Counter[str]] = {(job.endpoint_id, job.api_key_id): Counter() for job in jobs.values()}

    def of(job: UUID) -> Counter[str]:
        return counts[jobs[job].endpoint_id, jobs[job].api_key_id]

    lines: Lines = {}
    for event in Event.objects.filter(job__in=jobs).order_by("-id"):
        lines[event.job_id, event.attempt, event.kind] = event
        of(event.job_id)[event.kind] += event.kind in ENDS
    for pk in {job for job, _, kind in lines if kind in ENDS}:
        of(pk)["bytes_in"] += jobs[pk].input_bytes  # type: ignore[attr-defined]
        of(pk)["bytes_out"] += jobs[pk].output_bytes + cleared.get(pk, 0)  # type: ignore[attr-defined]
    for asset in Asset.all_tenants.filter(job_id__in=jobs, source=Asset.Source.OUTPUT).select_related("blob"):
        assert asset.job_id
        of(asset.job_id)["bytes_out"] += asset.blob.bytes
    for attempt in Attempt.objects.filter(job__in=jobs):
        of(attempt.job_id).update(used(jobs[attempt.job_id], attempt, lines))
    return {owner: {name: of_owner[name] for name in COUNTED} for owner, of_owner in counts.items()}


def used(job: Job, attempt: Attempt, lines: Lines) -> dict[str, int | Decimal]:
    if attempt.released_at is None:
        assert attempt.gpu_ms is None, "what its worker still holds is not settled"
        return {}
    lost = attempt.outcome in LOST
    ms = gpu_ms(began(job, attempt, lines), let_go(attempt, lines)) if attempt.outcome != "undone" else 0
    price = job.grant.price if job.grant.price is not None else job.endpoint.price or Decimal(0)
    cost = Decimal(0) if lost else (ms * price / 1000).quantize(Decimal("0.000001"), ROUND_HALF_UP)
    assert (attempt.gpu_ms, attempt.cost) == (ms, cost), f"attempt {attempt.number} says another time or cost"
    counts = {"attempts": int(attempt.outcome != "undone"), "lost": int(lost), "cost": cost}
    return counts | {"unbilled_gpu_ms" if lost else "gpu_ms": ms}


def began(job: Job, attempt: Attempt, lines: Lines) -> datetime | None:
    """Jobs of dialect hearth begin when their worker says so, others when they are handed over; at RunPod by what it
    says that they ran for, of which the attempt alone tells."""
    if job.endpoint.backend == Endpoint.Backend.RUNPOD:
        return attempt.started_at
    own = job.endpoint.dialect == Endpoint.Dialect.HEARTH
    event = lines.get((job.pk, attempt.number, "started" if own else "handed"))
    return event.at if event else None


def let_go(attempt: Attempt, lines: Lines) -> datetime:
    """No event tells when a worker let go of what had been cancelled or had timed out: the attempt does."""
    assert attempt.released_at
    ended = lines[attempt.job_id, attempt.number, attempt.outcome].at
    if attempt.outcome in LET_GO:
        assert abs(attempt.released_at - ended) < SAME_MOMENT
    else:
        assert attempt.released_at > ended - SAME_MOMENT
    return attempt.released_at


def gpu_ms(begin: datetime | None, end: datetime) -> int:
    if begin is None:
        return 0
    microseconds = (end - begin) // timedelta(microseconds=1)
    return int((Decimal(max(0, microseconds)) / 1000).quantize(Decimal(1), ROUND_HALF_UP))


def written(tenant: Tenant) -> dict[Owner, dict[str, int | Decimal]]:
    """The days together."""
    days = Usage.all_tenants.filter(tenant=tenant).values("endpoint_id", "api_key_id")
    sums = days.annotate(**{f"all_{name}": Sum(name) for name in COUNTED})
    return {(row["endpoint_id"], row["api_key_id"]): {name: row[f"all_{name}"] for name in COUNTED} for row in sums}


def check_usage(tenant: Tenant, cleared: Mapping[UUID, int] | None = None) -> None:
    """With the prices of now. `cleared`: bytes of outputs of jobs that were retried since, which are nowhere now."""
    now, then = written(tenant), recounted(tenant, cleared or {})
    empty = dict.fromkeys(COUNTED, 0)
    for owner in {*now, *then}:
        assert now.get(owner, empty) == then.get(owner, empty)
    check_figures(tenant)


def check_figures(tenant: Tenant) -> None:
    """Its rows, however far they are rolled up, say what its usage says of each endpoint."""
    now, then = (by_endpoint(rows.filter(tenant=tenant)) for rows in (Figures.objects, Usage.all_tenants))
    nothing = (0,) * len(IN_FIGURES)
    for endpoint in {*now, *then}:
        assert now.get(endpoint, nothing) == then.get(endpoint, nothing)


def by_endpoint(rows: QuerySet[Any]) -> dict[int, tuple[int, ...]]:
    sums = rows.values("endpoint_id").annotate(**{f"all_{name}": Sum(name) for name in IN_FIGURES})
    return {row["endpoint_id"]: tuple(row[f"all_{name}"] for name in IN_FIGURES) for row in sums}
