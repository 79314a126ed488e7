"""Workflows that tenants store under a name, in versions that do not change."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.audit import Audited
from accounts.models import NOT_DELETED, Owned, Tenant, slug, uuid7


class Workflow(Audited, Owned):
    """A name of a tenant's, and which of its versions `name` alone means. When it is deleted its versions go, and the
    row stays for the jobs that ran it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="workflows", limit_choices_to=NOT_DELETED, db_index=False
    )
    name = models.CharField(max_length=63, validators=[slug])
    title = models.CharField(max_length=200, blank=True)
    description = models.TextField(max_length=2000, blank=True)
    current = models.PositiveIntegerField(null=True, default=1, help_text="The version that its name alone means.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="From then on it is not run.")
    deleted_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [  # and, in the migration: `current` is one of its versions
            models.UniqueConstraint(fields=["tenant", "id"], name="workflow_of_tenant"),
            models.UniqueConstraint(
                fields=["tenant", "name"], condition=Q(deleted_at__isnull=True), name="workflow_name_once"
            ),
            models.CheckConstraint(
                condition=Q(current__isnull=True, deleted_at__isnull=False)
                | Q(current__isnull=False, deleted_at__isnull=True),
                name="workflow_current_unless_deleted",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(Audited, Owned):
    """A graph and its parameters. A trigger lets nobody change one. They go when it is deleted, from the trail too."""

    untold = ("graph", "parameters")

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False, editable=False)
    workflow = models.ForeignKey(Workflow, models.CASCADE, related_name="versions", db_index=False)
    number = models.PositiveIntegerField(editable=False)
    graph = models.TextField(help_text="ComfyUI's API format, as JSON.")
    parameters = models.TextField(default="[]", help_text="JSON (jobs/workflows/parameters.py).")
    note = models.CharField(max_length=500, blank=True, help_text="What is new in it.")
    made_by = models.CharField(max_length=200, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [  # and, in the migration: the tenant is its workflow's
            models.UniqueConstraint(fields=["workflow", "number"], name="workflow_version_once"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow.name}@{self.number}"
