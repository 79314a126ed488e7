"""What a tenant has used, as its jobs' events, attempts and inputs tell it. jobs_usage must say the same."""

from collections import Counter
from decimal import Decimal

from django.db.models import Sum
from django.db.models.functions import Length

from accounts.models import Tenant
from jobs.models import Attempt, Event, Job, Usage

ENDS = ("completed", "failed", "cancelled", "timed_out")
COUNTED = (*ENDS, "attempts", "lost", "gpu_ms", "unbilled_gpu_ms", "cost", "bytes_in")
Owner = tuple[int, int | None]  # endpoint, API key


def recounted(tenant: Tenant) -> dict[Owner, dict[str, int | Decimal]]:
    jobs = {job.pk: job for job in Job.all_tenants.filter(tenant=tenant).annotate(input_bytes=Length("payload__input"))}
    found: dict[Owner, Counter[str]] = {}

    def of(job: Job) -> Counter[str]:
        return found.setdefault((job.endpoint_id, job.api_key_id), Counter())

    ended = set()
    for event in Event.objects.filter(job__in=jobs, kind__in=ENDS):
        job = jobs[event.job_id]
        of(job)[event.kind] += 1
        of(job)["bytes_in"] += 0 if job.pk in ended else job.input_bytes  # type: ignore[attr-defined]
        ended.add(job.pk)
    for attempt in Attempt.objects.filter(job__in=jobs, released_at__isnull=False):
        assert attempt.gpu_ms is not None, "an attempt that was let go of has been settled"
        assert attempt.cost is not None
        lost = attempt.outcome in ("lost", "handed_back")
        of(jobs[attempt.job_id]).update(
            {
                "attempts": int(attempt.outcome != "undone"),
                "lost": int(lost),
                "gpu_ms": 0 if lost else attempt.gpu_ms,
                "unbilled_gpu_ms": attempt.gpu_ms if lost else 0,
                "cost": attempt.cost,
            }
        )
    assert not Attempt.objects.filter(job__in=jobs, released_at=None, gpu_ms__isnull=False).exists()
    return {owner: {name: counts[name] for name in COUNTED} for owner, counts in found.items()}


def written(tenant: Tenant) -> dict[Owner, dict[str, int | Decimal]]:
    """The days together."""
    days = Usage.all_tenants.filter(tenant=tenant).values("endpoint_id", "api_key_id")
    sums = days.annotate(**{f"all_{name}": Sum(name) for name in COUNTED})
    return {(row["endpoint_id"], row["api_key_id"]): {name: row[f"all_{name}"] for name in COUNTED} for row in sums}


def check_usage(tenant: Tenant) -> None:
    now, then = written(tenant), recounted(tenant)
    empty = dict.fromkeys(COUNTED, 0)
    for owner in {*now, *then}:
        assert now.get(owner, empty) == then.get(owner, empty)
