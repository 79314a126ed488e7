"""Where else an endpoint's jobs may run."""

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q, Sum

from accounts.audit import Audited
from jobs.models.fleet import Endpoint


class Overflow(Audited):
    """Jobs of an endpoint may go to another one, when it cannot run them (overflow.py)."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="overflows", db_index=False)
    to = models.ForeignKey(Endpoint, models.CASCADE, related_name="+")
    position = models.PositiveSmallIntegerField(default=1, help_text="The lowest that can take a job gets it.")
    unhealthy = models.BooleanField(default=True, help_text="When no worker takes its jobs, or RunPod does not.")
    throttled = models.BooleanField(default=True, help_text="When RunPod has no GPU free for it.")
    over_budget = models.BooleanField(default=True, help_text="When its budget of the month is used up.")
    wait_s = models.PositiveIntegerField(
        "wait in s", null=True, blank=True, help_text="A job that has waited for so long. Empty: not for that."
    )
    share_percent = models.FloatField(
        "share in %", default=0, help_text="Of all jobs, whatever state it is in: to try another fleet."
    )

    class Meta:
        verbose_name_plural = "overflow"
        ordering = ["position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "to"], name="overflow_once"),
            models.CheckConstraint(
                condition=~Q(endpoint=F("to")),
                name="overflow_elsewhere",
                violation_error_message="An endpoint cannot overflow to itself.",
            ),
            models.CheckConstraint(
                condition=Q(share_percent__gte=0, share_percent__lte=100),
                name="overflow_share_is_percent",
                violation_error_message="A share is 0 to 100 %%.",
            ),
        ]

    def clean(self) -> None:
        """What was checked for the one dialect must do for the other; and more than all jobs cannot be shared out."""
        if self.endpoint_id and self.to_id:
            mine, its = self.endpoint.dialect, self.to.dialect
            if mine != its and Endpoint.Dialect.RAW in (mine, its):
                raise ValidationError(f"{self.endpoint} speaks {mine} and {self.to} {its}: only raw can stand for raw.")
        others = Overflow.objects.filter(endpoint=self.endpoint_id).exclude(pk=self.pk)
        taken: float = others.aggregate(sum=Sum("share_percent"))["sum"] or 0
        if taken + (self.share_percent or 0) > 100:
            raise ValidationError(f"Other endpoints have {taken:g} of 100 jobs already.")

    def __str__(self) -> str:
        return f"{self.endpoint} to {self.to}"
