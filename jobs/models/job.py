"""Jobs with their payloads, attempts, events and chunks."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.models import ApiKey, Owned, Tenant, uuid7
from accounts.sealed import SealedField
from jobs.ids import public_id
from jobs.models.fleet import Endpoint, Grant, Worker
from jobs.models.workflow import Workflow
from jobs.states import FINAL, State
from storage.models import Bucket


class Job(Owned):
    """A tenant's request, from its submission to its end. Hot and narrow: what is large is in Payload.

    `endpoint` is what the client addressed. Where the job waits, or runs, is its grant's, of which it is another's
    only if it was moved there (overflow.py); while it runs, that does not change.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    sync = models.BooleanField(default=False, help_text="Submitted by runsync: its id begins with sync-.")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="jobs", db_index=False)
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="jobs", db_index=False)
    grant = models.ForeignKey(Grant, models.PROTECT, related_name="jobs", db_index=False)
    api_key = models.ForeignKey(
        ApiKey, models.SET_NULL, null=True, blank=True, related_name="jobs", db_index=False, db_constraint=False
    )
    workflow = models.ForeignKey(  # whose row stays, so that no job locks it
        Workflow, models.DO_NOTHING, null=True, blank=True, related_name="jobs", db_index=False, db_constraint=False
    )
    workflow_version = models.IntegerField(null=True, help_text="Which of that workflow it was.")
    state = models.CharField(max_length=11, choices=State, db_default=State.IN_QUEUE)
    priority = models.SmallIntegerField(db_default=0, help_text="Higher first, within the tenant; lowPriority is -1.")
    model_hashes = ArrayField(models.BigIntegerField(), null=True, help_text="Model files its workflow names, by hash.")
    skipped = models.SmallIntegerField(db_default=0, help_text="Times a warmer job was taken in its turn.")

    ttl_ms = models.BigIntegerField()
    execution_timeout_ms = models.BigIntegerField()
    attempt = models.IntegerField(db_default=0, help_text="Number of the latest attempt; 0 before the first.")
    losses = models.SmallIntegerField(db_default=0, help_text="Attempts lost, since it was last queued by a client.")
    free_losses = models.SmallIntegerField(db_default=0, help_text="Attempts lost before they started: not counted.")
    retries = models.IntegerField(db_default=0, help_text="Times a client retried it after its end.")
    bucket = models.ForeignKey(
        Bucket,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        help_text="Empty: the operator's.",
    )

    run_again_of = models.CharField(max_length=50, db_default="", editable=False, help_text="Whose request it is.")
    created_at = models.DateTimeField(db_default=Now())
    queued_at = models.DateTimeField(
        db_default=Now(), help_text="Submitted or retried: ttl and delayTime count from it."
    )
    deadline_at = models.DateTimeField(null=True, help_text="Queued: ttl; started: the execution time-out.")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    delay_ms = models.BigIntegerField(null=True)
    execution_ms = models.BigIntegerField(null=True)
    worker_name = models.CharField(max_length=200, db_default="")
    payload_gone_at = models.DateTimeField(null=True, editable=False, help_text="Its input and output were deleted.")
    files_gone_at = models.DateTimeField(null=True, editable=False, help_text="Of its files one was, or is to be.")
    events_gone_at = models.DateTimeField(null=True, editable=False, help_text="Its timeline was deleted.")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | Q(~Q(state__in=FINAL), finished_at__isnull=True),
                name="job_finished_if_final",
            ),
            models.CheckConstraint(condition=Q(state__in=list(State)), name="job_state_known"),
            models.CheckConstraint(
                condition=~Q(state=State.IN_PROGRESS) | Q(attempt__gte=1), name="job_in_progress_has_attempt"
            ),
        ]
        indexes = [
            models.Index(
                F("grant"), F("api_key"), F("priority").desc(), F("id"), name="job_queue", condition=Q(state="IN_QUEUE")
            ),
            models.Index(
                fields=["deadline_at"], name="job_deadline", condition=Q(state__in=[State.IN_QUEUE, State.IN_PROGRESS])
            ),
            models.Index(fields=["grant", "-finished_at"], name="job_finished", condition=Q(finished_at__isnull=False)),
            models.Index(fields=["tenant", "-id"], name="job_of_tenant"),
            models.Index(fields=["workflow", "-id"], name="job_of_workflow", condition=Q(workflow__isnull=False)),
            models.Index(fields=["run_again_of"], name="job_run_again", condition=~Q(run_again_of="")),
            models.Index(
                fields=["tenant", "finished_at"],
                name="job_with_payload",
                condition=Q(finished_at__isnull=False, payload_gone_at__isnull=True),
            ),
            models.Index(
                fields=["tenant", "finished_at"],
                name="job_with_events",
                condition=Q(finished_at__isnull=False, events_gone_at__isnull=True),
            ),
        ]

    @property
    def public_id(self) -> str:
        return public_id(self.id, self.sync)

    @property
    def ran(self) -> str | None:
        """The stored workflow that it was submitted by, as the client may name it."""
        return f"{self.workflow.name}@{self.workflow_version}" if self.workflow else None

    def __str__(self) -> str:
        return self.public_id


class Payload(models.Model):
    """What a job was given and what came back, as the JSON bytes received (rules.md 9)."""

    job = models.OneToOneField(Job, models.CASCADE, primary_key=True, related_name="payload")
    input = models.BinaryField()
    params = models.BinaryField(null=True, help_text="JSON: of a stored workflow, what its parameters were.")
    inputs = models.BinaryField(null=True, help_text="JSON: where the files are that the input names (jobs/inputs.py).")
    moved_bytes = models.BigIntegerField(db_default=0, help_text="Of files that came in the request and are not in it.")
    webhook = models.TextField(db_default="")
    policy = models.BinaryField(null=True, help_text="As given.")
    request_bucket = SealedField(null=True, help_text="The request's own tobucket / s3Config (rules.md 22).")
    request_bucket_wiped = models.BooleanField(db_default=False)
    progress = models.BinaryField(null=True)
    progress_fraction = models.FloatField(db_default=-1.0)
    output = models.BinaryField(null=True)
    error = models.BinaryField(null=True, help_text="JSON: what the worker or Hearth said was wrong.")

    class Meta:
        indexes = [
            models.Index(
                fields=["job"], name="payload_with_secret", condition=Q(request_bucket__isnull=False)
            ),  # few of millions: the sweep and rotate_secrets look for them
        ]


class Attempt(models.Model):
    """One hand-over of a job to a backend. `ended_at`: decided; `released_at`: the worker has let go of its slot."""

    class Outcome(models.TextChoices):
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"
        TIMED_OUT = "timed_out"
        LOST = "lost"
        HANDED_BACK = "handed_back"
        UNDONE = "undone"

    job = models.ForeignKey(Job, models.CASCADE, related_name="attempts", db_index=False)
    number = models.IntegerField()
    endpoint = models.ForeignKey(Endpoint, models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    grant = models.ForeignKey(Grant, models.PROTECT, related_name="+", db_index=False, db_constraint=False)
    worker = models.ForeignKey(  # the row goes some time after the worker; its name stays
        Worker, models.DO_NOTHING, null=True, related_name="attempts", db_index=False, db_constraint=False
    )
    worker_name = models.CharField(max_length=200, db_default="")
    handed_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True, help_text="The first ping that named it, or the first news.")
    named_at = models.DateTimeField(null=True, help_text="The last ping that named it.")
    missed_pings = models.SmallIntegerField(db_default=0, help_text="Pings in a row that did not name it.")
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=11, choices=Outcome, db_default="")
    stop_wanted = models.BooleanField(db_default=False, help_text="It ended here but the worker may still run it.")
    stop_sent_at = models.DateTimeField(null=True, help_text="When the worker was last told to stop it.")
    released_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True, help_text="Pushed: from then on the backend may have it.")
    remote_id = models.CharField(
        max_length=200, db_default="", help_text="Pushed: the backend's name for it, if known."
    )
    asks = models.SmallIntegerField(db_default=0, help_text="Pushed: times the backend was asked, or told to stop it.")
    ask_at = models.DateTimeField(null=True, help_text="Pushed: when that is next.")
    expires_at = models.DateTimeField(null=True, help_text="Pushed: by then it is over there, whatever came of it.")
    charged_ms = models.FloatField(db_default=0.0, help_text="What its grant's clock was moved by at the hand-over.")
    gpu_ms = models.BigIntegerField(null=True, help_text="From its start to its release; set once it is in the usage.")
    cost = models.DecimalField(max_digits=18, decimal_places=6, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="attempt_number_once"),
            models.UniqueConstraint(fields=["job"], condition=Q(ended_at__isnull=True), name="attempt_one_open_a_job"),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True, outcome="") | Q(Q(ended_at__isnull=False), ~Q(outcome="")),
                name="attempt_ended_with_outcome",
            ),
            models.CheckConstraint(
                condition=Q(released_at__isnull=True) | Q(ended_at__isnull=False), name="attempt_released_after_end"
            ),
            models.CheckConstraint(
                condition=Q(sent_at__isnull=True, remote_id="")
                | Q(sent_at__isnull=False, ask_at__isnull=False, expires_at__isnull=False),
                name="attempt_sent_is_bounded",
            ),
        ]
        indexes = [
            models.Index(fields=["worker"], name="attempt_on_worker", condition=Q(released_at__isnull=True)),
            models.Index(fields=["worker"], name="attempt_to_stop", condition=Q(stop_wanted=True)),
            models.Index(fields=["grant"], name="attempt_running", condition=Q(released_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}"


class Event(models.Model):
    """One line of a job's timeline. `assets`: of an output, its files as the worker describes them (JSON, by key)."""

    class Kind(models.TextChoices):
        CREATED = "created"
        HANDED = "handed", "handed to a worker"
        STARTED = "started"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"
        TIMED_OUT = "timed_out", "timed out"
        LOST = "lost", "lost by its worker"
        HANDED_BACK = "handed_back", "handed back"
        UNDONE = "undone", "hand-over undone"
        RETRIED = "retried"
        MOVED = "moved", "moved to other workers"
        OUTPUT = "output", "output ready"
        IGNORED = "ignored", "news ignored"
        NOTED = "noted"

    job = models.ForeignKey(Job, models.CASCADE, related_name="events", db_index=False)
    attempt = models.IntegerField(db_default=0)
    kind = models.CharField(max_length=11, choices=Kind)
    at = models.DateTimeField(db_default=Now())
    text = models.CharField(max_length=2000, db_default="")
    assets = models.TextField(null=True)

    class Meta:
        indexes = [models.Index(fields=["job", "id"], name="event_of_job")]
        ordering = ["id"]

    def __str__(self) -> str:
        return self.get_kind_display()


class Chunk(models.Model):
    """One piece of a job's stream, as its worker's generator yielded it; a client reads it once, in order."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="chunks", db_index=False)
    attempt = models.IntegerField()
    body = models.BinaryField(help_text="JSON, as it came.")
    total_bytes = models.BigIntegerField(db_default=0, help_text="Of the attempt's chunks up to this one.")
    at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, help_text="When a client read it.")

    class Meta:
        indexes = [
            models.Index(fields=["job", "id"], name="chunk_of_job"),
            models.Index(fields=["job", "id"], name="chunk_unsent", condition=Q(sent_at__isnull=True)),
        ]
        ordering = ["id"]

    def __str__(self) -> str:
        return f"chunk of attempt {self.attempt}"


class Preview(models.Model):
    """The newest picture of a job that runs and asked for them. Its table is unlogged: after a crash it is empty."""

    job = models.OneToOneField(Job, models.CASCADE, primary_key=True, related_name="+")
    attempt = models.IntegerField()
    node = models.CharField(max_length=100)
    content_type = models.CharField(max_length=20)
    body = models.BinaryField()
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"preview of attempt {self.attempt}"


class IdempotencyKey(Owned):
    """A submission's Idempotency-Key and the job that it made; the same key makes no other for 24 h (rules.md 24)."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    body_sha256 = models.BinaryField(max_length=32)
    job_id = models.UUIDField()
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "endpoint", "key"], name="idempotency_key_once"),
        ]

    def __str__(self) -> str:
        return self.key
