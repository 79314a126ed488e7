"""Endpoints, who may use them, and who serves them."""

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.audit import Audited
from accounts.keys import WORKER
from accounts.models import NOT_DELETED, Key, Owned, Tenant, slug, uuid7
from storage.models import Bucket


class Endpoint(Audited):
    """What clients address as /v2/<name>/… and workers serve. The operator's; tenants use it by a grant."""

    class Backend(models.TextChoices):
        FLEET = "fleet", "fleet: own workers pull"
        RUNPOD = "runpod", "runpod: pushed to an endpoint of RunPod's cloud"
        DUMMY = "dummy", "dummy: completes at once, for tests and load"

    class Dialect(models.TextChoices):
        HEARTH = "hearth", "hearth: Hearth's own worker"
        DEKITA = "dekita", "dekita: the worker of dekita's runpod-serverless-comfyui-worker"
        WORKER_COMFYUI = "worker-comfyui", "worker-comfyui: RunPod's own"
        RAW = "raw", "raw: any JSON, untouched"

    class Mode(models.TextChoices):
        OPEN = "open", "open"
        PAUSED = "paused", "paused: takes jobs, hands out none"
        DRAINING = "draining", "draining: takes no more jobs, hands out what it has"
        CLOSED = "closed", "closed: takes no more jobs, hands out none"

    name = models.CharField(max_length=63, unique=True, validators=[slug])
    backend = models.CharField(max_length=10, choices=Backend, default=Backend.FLEET)
    dialect = models.CharField(max_length=20, choices=Dialect, default=Dialect.HEARTH)
    prefetch = models.PositiveSmallIntegerField(
        default=1, help_text="Jobs a worker of dialect hearth holds made ready beside the running one."
    )
    mode = models.CharField(max_length=8, choices=Mode, default=Mode.OPEN)
    message = models.CharField(
        max_length=300, blank=True, help_text="What tenants are told while it is not open, as why and until when."
    )
    max_running = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="Of all tenants; for runpod: how many are there at a time, which it needs. Empty: no limit.",
    )
    max_queued = models.PositiveIntegerField(null=True, blank=True, help_text="Of all tenants. Empty: no limit.")
    price = models.DecimalField(
        "price per GPU-second", max_digits=12, decimal_places=6, null=True, blank=True, help_text="Empty: none."
    )
    gpu_s_a_month = models.PositiveBigIntegerField(
        "GPU-seconds a month", null=True, blank=True, help_text="Of all tenants, by the calendar, UTC. Empty: no limit."
    )
    cost_a_month = models.DecimalField(
        "cost a month", max_digits=14, decimal_places=2, null=True, blank=True, help_text="Likewise."
    )
    spent_at = models.DateTimeField(
        null=True, editable=False, help_text="When that was found used up; it holds to the end of that month."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    untold = ("spent_at",)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(backend="runpod") | Q(max_running__isnull=False),
                name="endpoint_runpod_is_bounded",
                violation_error_message="An endpoint of backend runpod needs a number of running jobs.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Grant(Audited, Owned):
    """A tenant may use an endpoint, with a weight and a limit.

    Its place in the fair queue is `clock`: GPU ms it has had for its weight, in the endpoint's common time (queue.py).

    With `overflow_of` it is a stand-in, which Hearth makes and keeps: jobs of that grant, which were addressed to its
    endpoint, wait and run at this one (overflow.py). Nobody may address an endpoint by it.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="grants", limit_choices_to=NOT_DELETED)
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="grants")
    weight = models.FloatField(default=1.0, help_text="Its share of the workers beside the other grants.")
    max_running = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: no limit.")
    price = models.DecimalField(
        "price per GPU-second",
        max_digits=12,
        decimal_places=6,
        null=True,
        blank=True,
        help_text="Empty: the endpoint's.",
    )
    bucket = models.ForeignKey(  # a constraint holds it to be the tenant's
        Bucket,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        help_text="Where files of jobs at this endpoint go. Empty: the tenant's default.",
    )
    clock = models.FloatField(db_default=0.0, editable=False, help_text="Where its next job begins.")
    turn = models.FloatField(db_default=0.0, editable=False, help_text="Where its last job began.")
    job_ms = models.FloatField(
        null=True, editable=False, help_text="GPU ms of its completed jobs, moving average. Empty: it has none yet."
    )
    overflow_of = models.ForeignKey(
        "self",
        models.CASCADE,
        null=True,
        editable=False,
        related_name="stand_ins",
        help_text="Empty: its tenant's own.",
    )
    share_from = models.FloatField(
        db_default=0.0, editable=False, help_text="Of a stand-in: of 100 new jobs, from here"
    )
    share_below = models.FloatField(db_default=0.0, editable=False, help_text="to here begin here.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    CLOCK = ("clock", "turn", "job_ms")
    untold = (*CLOCK, "share_from", "share_below")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "endpoint"], name="grant_once", condition=Q(overflow_of__isnull=True)
            ),
            models.UniqueConstraint(
                fields=["overflow_of", "endpoint"], name="grant_stand_in_once", condition=Q(overflow_of__isnull=False)
            ),
            models.CheckConstraint(condition=Q(weight__gt=0), name="grant_weight_positive"),
        ]

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Leaves the clock alone: claims move it while a form is open."""
        if not self._state.adding:
            kwargs.setdefault("update_fields", [f.name for f in self._meta.fields if f.name not in ("id", *self.CLOCK)])
        super().save(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.tenant} on {self.endpoint}" + (f", for {self.overflow_of.endpoint}" if self.overflow_of else "")


class WorkerKey(Audited, Key):
    """An endpoint's key for its workers. It opens every tenant's jobs there: the operator's, kept like his own."""

    kind = WORKER
    untold = ("digest", "last_used_at")
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="worker_keys")


class Catalogue(models.Model):
    """ComfyUI's node catalogue (/object_info) as workers of an endpoint reported it, once for each that differs."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="catalogues")
    sha256 = models.CharField(max_length=64, help_text="Of the JSON, before it was compressed.")
    body = models.BinaryField(help_text="JSON, gzip.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["endpoint", "sha256"], name="catalogue_once")]

    def __str__(self) -> str:
        return self.sha256[:12]


class Worker(models.Model):
    """A GPU worker as Hearth has seen it: one process, by the id it calls itself."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="workers")
    name = models.CharField(max_length=200)
    version = models.CharField(max_length=50, blank=True, help_text="Of the runpod SDK.")
    first_seen_at = models.DateTimeField(db_default=Now())
    take_at = models.DateTimeField(null=True, help_text="Last job-take poll.")
    stop_at = models.DateTimeField(null=True, help_text="Last job-stop poll.")
    ping_at = models.DateTimeField(null=True)
    stops_in_job = models.BooleanField(default=False, help_text="Was seen polling job-stop while it held a job.")
    hung_up = models.BooleanField(db_default=False, help_text="Its last poll was cut off.")
    unhealthy = models.CharField(max_length=500, blank=True, help_text="What its death notice said.")
    catalogue = models.ForeignKey(
        Catalogue, models.SET_NULL, null=True, blank=True, related_name="workers", help_text="Its ComfyUI's nodes."
    )
    model_hashes = ArrayField(models.BigIntegerField(), null=True, help_text="Of its last job with models.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["endpoint", "name"], name="worker_once")]

    def __str__(self) -> str:
        return self.name


class WebProcess(models.Model):
    """A web process and since when it answers without a gap: leases do not run while nobody could take pings."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    up_since = models.DateTimeField()
    seen_at = models.DateTimeField()
