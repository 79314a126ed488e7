"""Endpoints of RunPod's cloud that jobs are pushed to, and what RunPod's webhooks said."""

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now

from accounts.audit import Audited
from accounts.sealed import SealedField
from jobs.models.fleet import Endpoint
from jobs.models.job import Job

endpoint_id = RegexValidator(r"^[A-Za-z0-9._-]+$", "An endpoint's id at RunPod has letters, digits, and . _ - only.")

api_key = RegexValidator(r"^[!-~]+$", "The API key has characters that no key has.")


class RunpodEndpoint(Audited):
    """Where the jobs of an endpoint of backend runpod go, and how that does. The endpoint's max_running is how many
    are there at a time."""

    endpoint = models.OneToOneField(Endpoint, models.CASCADE, primary_key=True, related_name="runpod")
    remote_id = models.CharField("endpoint id at RunPod", max_length=200, validators=[endpoint_id])
    api_key = SealedField(editable=False)
    wait_s = models.PositiveIntegerField(
        "wait in s", default=1800, help_text="How long a job may wait there for a worker before it is given up."
    )
    keeps_keys = models.BooleanField(
        default=False,
        help_text="It is another Hearth: by the Idempotency-Key a request of unknown outcome is safely sent again.",
    )
    failures = models.IntegerField(db_default=0, editable=False, help_text="Requests in a row that came to nothing.")
    rest_until = models.DateTimeField(null=True, editable=False, help_text="Until then it is left alone.")
    trouble = models.CharField(max_length=500, db_default="", editable=False, help_text="Why.")
    throttled = models.BooleanField(db_default=False, editable=False, help_text="No GPU was free for it there.")
    looked_at = models.DateTimeField(null=True, editable=False, help_text="When its health was last asked.")
    woken_at = models.DateTimeField(null=True, editable=False, help_text="When the sweeper last woke its dispatcher.")

    untold = ("failures", "rest_until", "trouble", "throttled", "looked_at", "woken_at")

    def __str__(self) -> str:
        return self.remote_id


class Receipt(models.Model):
    """A webhook that came from RunPod for an attempt: what it said, without its copy of the request, and what came of
    that here."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="receipts", db_index=False)
    attempt = models.IntegerField()
    at = models.DateTimeField(db_default=Now())
    bytes = models.BigIntegerField(help_text="Of the body as it came.")
    said = models.TextField(help_text="JSON, cut.")
    outcome = models.CharField(max_length=200)

    class Meta:
        indexes = [models.Index(fields=["job", "id"], name="receipt_of_job")]
        ordering = ["id"]

    def __str__(self) -> str:
        return f"webhook of attempt {self.attempt}"
