"""Receipts of what was deleted."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.models import Owned, Tenant, uuid7


class Deletion(Owned):
    """What was deleted of a tenant, when, and for whom: numbers, no content. It stays.

    Of a tenant's retention there is one for each day, UTC, on which something went.
    """

    class What(models.TextChoices):
        JOB = "job"
        TENANT = "tenant"
        RETENTION = "retention"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="deletions", db_index=False)
    what = models.CharField(max_length=9, choices=What)
    job_id = models.UUIDField(null=True, unique=True, editable=False)  # no foreign key: the job goes
    day = models.DateField(null=True, editable=False)
    asked_by = models.CharField(max_length=200)
    asked_at = models.DateTimeField(db_default=Now())
    done_at = models.DateTimeField(
        null=True, help_text="When nothing was left; of retention, when something went last."
    )
    fault = models.TextField(db_default="", help_text="What keeps it from being done.")
    jobs = models.BigIntegerField(db_default=0)
    payloads = models.BigIntegerField(db_default=0)
    events = models.BigIntegerField("lines", db_default=0, help_text="Of timelines.")
    assets = models.BigIntegerField(db_default=0)
    files = models.BigIntegerField(db_default=0, help_text="Objects in S3.")
    bytes = models.BigIntegerField(db_default=0, help_text="Of these objects.")
    out_of_reach = models.BigIntegerField(
        db_default=0, help_text="Files in S3 buckets that requests named, whose secrets Hearth no longer has."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "day"], name="deletion_retention_once_a_day"),
            models.UniqueConstraint(fields=["tenant"], condition=Q(what="tenant"), name="deletion_of_tenant_once"),
            models.CheckConstraint(
                condition=Q(what="job", job_id__isnull=False, day__isnull=True)
                | Q(what="tenant", job_id__isnull=True, day__isnull=True)
                | Q(what="retention", job_id__isnull=True, day__isnull=False),
                name="deletion_names_what",
            ),
        ]
        indexes = [
            models.Index(fields=["asked_at"], name="deletion_to_do", condition=Q(done_at__isnull=True)),
            models.Index(fields=["tenant", "-id"], name="deletion_of"),
        ]

    def __str__(self) -> str:
        return f"deletion {self.id}"
