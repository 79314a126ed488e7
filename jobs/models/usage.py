"""What tenants used, for limits and invoices."""

from django.db import models

from accounts.models import ApiKey, Owned, Tenant
from jobs.models.fleet import Endpoint


class Usage(Owned):
    """What a tenant used on an endpoint by one key on one day (UTC); written where an attempt or a job ends."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="usage", db_index=False)
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="+", db_index=False)
    api_key = models.ForeignKey(
        ApiKey, models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    day = models.DateField()

    completed = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    cancelled = models.BigIntegerField(db_default=0)
    timed_out = models.BigIntegerField(db_default=0)
    attempts = models.BigIntegerField(db_default=0, help_text="That got to a worker and were let go of.")
    lost = models.BigIntegerField(db_default=0, help_text="Of them lost or handed back.")
    gpu_ms = models.BigIntegerField(db_default=0, help_text="Billed.")
    unbilled_gpu_ms = models.BigIntegerField(db_default=0, help_text="Of lost attempts, unless HEARTH_BILL_LOST.")
    cost = models.DecimalField(max_digits=18, decimal_places=6, db_default=0)
    bytes_in = models.BigIntegerField(db_default=0, help_text="Of inputs as they were sent.")
    bytes_out = models.BigIntegerField(db_default=0, help_text="Of outputs and their files.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "day", "endpoint", "api_key"], name="usage_once", nulls_distinct=False
            ),
        ]
        indexes = [models.Index(fields=["endpoint", "day"], name="usage_of_endpoint")]
        verbose_name_plural = "usage"

    def __str__(self) -> str:
        return f"{self.tenant} on {self.endpoint}, {self.day}"
