"""What clients say of their jobs for themselves."""

import json
from typing import Any

from django.db import models

from accounts.models import Owned, Tenant
from jobs.models.job import Job


class Metadata(Owned):
    """One entry of a job's metadata, by which its tenant finds it: written by the statement that makes the job, never
    changed, and gone with it. That statement is why no constraint has to look whether the job and the tenant are there.
    """

    pk = models.CompositePrimaryKey("job_id", "name")
    job = models.ForeignKey(Job, models.CASCADE, related_name="metadata", db_index=False, db_constraint=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    name = models.CharField(max_length=40)
    value = models.CharField(max_length=500, help_text="Text as it is; a number, true and false as JSON writes them.")
    is_text = models.BooleanField()

    class Meta:
        indexes = [models.Index(fields=["tenant", "name", "value", "job"], name="metadata_found")]
        ordering = ["name"]

    @property
    def given(self) -> Any:
        return as_given(self.value, self.is_text)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def as_given(value: str, is_text: bool) -> Any:
    return value if is_text else json.loads(value)


def metadata_of(job: Any) -> dict[str, Any]:
    """As its client gave it."""
    return {entry.name: entry.given for entry in job.metadata.all()}
