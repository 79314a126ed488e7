"""A past for a new instance: what its charts, budgets and endpoints show. It runs in that instance's manage.py."""

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from accounts.models import Tenant
from jobs.figures import BUCKETS, DAY, HOUR, MINUTE, bucket_of
from jobs.models import Endpoint, Figures, Grant, Usage

A_MINUTE = 6.0  # jobs of all tenants at an endpoint
SHARES = (0.5, 0.3, 0.15, 0.05)  # of them, by tenant
PLACES = {"comfyui": (9_000, 1.0), "video": (64_000, 0.15)}  # ms that a job takes, part of the load


def fill(*names: str) -> None:
    """For tenants of these names, which are there."""
    tenants = [Tenant.objects.get(name=name) for name in names]
    video = Endpoint.objects.create(name="video", mode="paused", message="New disks until 18:00.")
    for tenant in tenants:
        Grant.all_tenants.create(tenant=tenant, endpoint=video)
    dice, now = random.Random(9), timezone.now()
    for name, (job_ms, part) in PLACES.items():
        endpoint = Endpoint.objects.get(name=name)
        for span, step, at in moments(now):
            jobs = part * A_MINUTE * (step / timedelta(minutes=1)) * busy(at)
            add(endpoint, tenants, span, at, jobs, job_ms, dice)
    budget(tenants[1], Endpoint.objects.get(name="comfyui"), now)


def moments(now: datetime) -> Iterator[tuple[str, timedelta, datetime]]:
    """Minutes of this hour and the last, before them hours of today and yesterday, before them days."""
    minute = now.replace(second=0, microsecond=0)
    hour = minute.replace(minute=0) - timedelta(hours=1)
    day = minute.replace(minute=0, hour=0) - timedelta(days=1)
    for span, step, begin, end in (
        (MINUTE, timedelta(minutes=1), max(hour, day), minute),
        (HOUR, timedelta(hours=1), day, hour),
        (DAY, timedelta(days=1), day - timedelta(days=28), day),
    ):
        for n in range((end - begin) // step):
            yield span, step, begin + n * step


def busy(at: datetime) -> float:
    """More by day than by night."""
    return 1 + 0.6 * math.sin(2 * math.pi * (at.hour + at.minute / 60 - 8) / 24)


def add(
    endpoint: Endpoint, tenants: list[Tenant], span: str, at: datetime, jobs: float, job_ms: int, dice: random.Random
) -> None:
    rows = []
    for tenant, share in zip(tenants, SHARES, strict=False):
        ended = max(0, round(dice.gauss(jobs * share, math.sqrt(jobs * share + 0.1))))
        failed = sum(dice.random() < 0.02 for _ in range(min(ended, 500)))
        row = Figures(tenant=tenant, endpoint=endpoint, span=span, at=at)
        row.completed, row.failed, row.cancelled = (
            ended - failed,
            failed,
            sum(dice.random() < 0.01 for _ in range(min(ended, 500))),
        )
        row.delays, row.executions = times(dice, 900 * busy(at) ** 2, ended), times(dice, job_ms, ended)
        row.gpu_ms = ended * job_ms
        row.queued, row.running = round(max(0, dice.gauss(4 * share * busy(at) ** 2, 1))), int(dice.random() < share)
        rows.append(row)
    Figures.objects.bulk_create([*rows, together(rows)], ignore_conflicts=True)  # the sweeper has looked at this minute


def times(dice: random.Random, typical_ms: float, number: int) -> list[int]:
    counts = [0] * BUCKETS
    for _ in range(number):
        counts[bucket_of(typical_ms * math.exp(dice.gauss(0, 0.5)))] += 1
    return counts


def together(rows: list[Figures]) -> Figures:
    """Of all tenants."""
    row = Figures(endpoint=rows[0].endpoint, span=rows[0].span, at=rows[0].at)
    for name in ("completed", "failed", "cancelled", "gpu_ms", "queued", "running"):
        setattr(row, name, sum(getattr(each, name) for each in rows))
    for name in ("delays", "executions"):
        setattr(row, name, [sum(counts) for counts in zip(*(getattr(each, name) for each in rows), strict=True)])
    return row


def budget(tenant: Tenant, endpoint: Endpoint, now: datetime) -> None:
    """Most of this month's is used."""
    Tenant.objects.filter(pk=tenant.pk).update(gpu_s_a_month=50_000)
    Usage.all_tenants.create(tenant=tenant, endpoint=endpoint, day=now.date(), gpu_ms=43_000_000)
