"""Counts beside the rows of a list, each a subquery on an index, so that a list stays one query."""

from datetime import timedelta
from typing import Any

from django.db.models import Case, CharField, IntegerField, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Greatest, Now

from jobs.models import Attempt, Job, Worker
from jobs.states import State

ALIVE_FOR = timedelta(seconds=30)  # as in RunPod's health (jobs.history)
ALIVE, GONE, UNHEALTHY = "alive", "gone", "unhealthy"


class Rows(Subquery):
    """How many rows a queryset has that refers to the outer one."""

    template = "(SELECT count(*) FROM (%(subquery)s) counted)"
    output_field = IntegerField()

    def __init__(self, rows: QuerySet[Any]) -> None:
        super().__init__(rows.order_by().values("pk"))


def load(owner: str) -> dict[str, Rows]:
    """`queued` and `running` for each row; `owner` leads from a job or attempt to it."""
    of_row = {owner: OuterRef("pk")}
    return {
        "queued": Rows(Job.all_tenants.filter(state=State.IN_QUEUE, **of_row)),
        "running": Rows(Attempt.objects.filter(released_at=None, **of_row)),
    }


def with_health(workers: QuerySet[Worker]) -> QuerySet[Any]:
    """Adds `seen_at`, the last poll or ping, and `health`."""
    health = Case(
        When(~Q(unhealthy=""), then=Value(UNHEALTHY)),
        When(seen_at__gt=Now() - ALIVE_FOR, then=Value(ALIVE)),
        default=Value(GONE),
        output_field=CharField(),
    )
    return workers.annotate(seen_at=Greatest("take_at", "stop_at", "ping_at")).annotate(health=health)
