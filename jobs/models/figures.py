"""What came of jobs over time, for charts."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from accounts.models import Tenant
from jobs.figures import DAY, FRESH, HOUR, MINUTE
from jobs.models.fleet import Endpoint


class Figures(models.Model):
    """What came of jobs at an endpoint in one span of time, of a tenant's or of all (then `tenant` is empty).

    A job's end adds to its tenant's FRESH minute, in the transaction that makes it (usage.py). The sweeper moves that
    to the minute of the tenant and of all, later minutes to hours and hours to days (figures.py); so each end is in
    one row of its tenant's and in one of all, or still fresh.
    """

    class Span(models.TextChoices):
        FRESH = FRESH
        MINUTE = MINUTE
        HOUR = HOUR
        DAY = DAY

    tenant = models.ForeignKey(
        Tenant, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    endpoint = models.ForeignKey(Endpoint, models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    span = models.CharField(max_length=6, choices=Span)
    at = models.DateTimeField(help_text="Its beginning.")

    completed = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    cancelled = models.BigIntegerField(db_default=0)
    timed_out = models.BigIntegerField(db_default=0)
    gpu_ms = models.BigIntegerField(db_default=0, help_text="Billed, of attempts let go of.")
    delays = ArrayField(models.BigIntegerField(), help_text="Of ended jobs, how many in each bucket.")
    executions = ArrayField(models.BigIntegerField(), help_text="Likewise.")
    queued = models.BigIntegerField(null=True, help_text="The most of all looks in this time. Empty: there was none.")
    running = models.BigIntegerField(null=True, help_text="Likewise.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "at", "endpoint", "span"], name="figures_once", nulls_distinct=False
            ),
        ]
        indexes = [models.Index(fields=["span", "at"], name="figures_of_span")]
        verbose_name_plural = "figures"

    def __str__(self) -> str:
        return f"{self.tenant_id or 'all'} on {self.endpoint_id}, {self.span} of {self.at}"
