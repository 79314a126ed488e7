"""Webhooks of tenants: where news of their jobs is sent, what signs it, and what became of each delivery."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.audit import Audited
from accounts.models import NOT_DELETED, Owned, Tenant, uuid7
from accounts.sealed import SealedField
from jobs.models.job import Job
from jobs.states import News


class Webhook(Audited, Owned):
    """A URL that a tenant has registered for the kinds of news that it chose. A request's own `webhook` has no row."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="webhooks", limit_choices_to=NOT_DELETED)
    url = models.CharField("URL", max_length=2048)
    kinds = ArrayField(models.CharField(max_length=9, choices=News))
    enabled = models.BooleanField(db_default=True, default=True)
    failing_since = models.DateTimeField(null=True, editable=False, help_text="The first failed try since a success.")
    disabled_at = models.DateTimeField(null=True, editable=False)
    disabled_why = models.CharField(max_length=300, db_default="", default="", editable=False)
    told_at = models.DateTimeField(null=True, editable=False, help_text="When a mail said that it was disabled.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(enabled=True, disabled_at__isnull=False), name="webhook_not_enabled_and_disabled"
            ),
            models.CheckConstraint(condition=Q(kinds__len__gt=0), name="webhook_has_kinds"),
        ]

    untold = ("failing_since", "disabled_at", "disabled_why", "told_at")

    def told(self, name: str, value: Any) -> Any:
        return address(value) if name == "url" and value else super().told(name, value)

    def __str__(self) -> str:
        return f"webhook {self.id} to {urlsplit(self.url).hostname}"


class WebhookSecret(Audited, Owned):
    """Signs a tenant's deliveries as long as it holds; while several do, each delivery carries several signatures."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="webhook_secrets", limit_choices_to=NOT_DELETED)
    secret = SealedField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, editable=False, help_text="Empty for the newest.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(expires_at__isnull=True), name="webhook_secret_one_newest"
            ),
        ]

    def __str__(self) -> str:
        return f"whsec_… of {self.tenant}"


class Delivery(Owned):
    """One piece of news to one receiver, written in the transaction that made the news (rules.md 7).

    `lane`: what its tries queue behind: the webhook, or the tenant for URLs that requests named themselves; a test has
    one of its own.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"
        OUTDATED = "outdated", "outdated: not sent, the job has moved on"

    class Kind(models.TextChoices):
        STARTED = News.STARTED.value
        RETRIED = News.RETRIED.value
        COMPLETED = News.COMPLETED.value
        FAILED = News.FAILED.value
        CANCELLED = News.CANCELLED.value
        TIMED_OUT = News.TIMED_OUT.value, "timed out"
        TEST = "test"

    message = models.UUIDField(db_default=RandomUUID(), unique=True, editable=False, help_text="Of its webhook-id.")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="deliveries", db_index=False)
    webhook = models.ForeignKey(Webhook, models.CASCADE, null=True, related_name="deliveries", db_index=False)
    lane = models.UUIDField()
    job = models.ForeignKey(Job, models.CASCADE, null=True, related_name="deliveries", db_index=False)
    retries = models.IntegerField(db_default=0, help_text="The job's, at the news.")
    attempt = models.IntegerField(db_default=0)
    kind = models.CharField(max_length=9, choices=Kind)
    state = models.CharField(max_length=9, choices=State, db_default=State.PENDING)
    tries = models.IntegerField(db_default=0)
    created_at = models.DateTimeField(db_default=Now())
    began_at = models.DateTimeField(db_default=Now(), help_text="The 24 hours of its tries count from it.")
    next_at = models.DateTimeField(null=True, db_default=Now())
    leased_until = models.DateTimeField(null=True, help_text="A process sends it now; later, one died doing so.")
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(fields=["job", "retries", "attempt", "kind", "lane"], name="delivery_once"),
            models.CheckConstraint(
                condition=Q(state="pending", next_at__isnull=False, ended_at__isnull=True)
                | Q(~Q(state="pending"), next_at__isnull=True, ended_at__isnull=False, leased_until__isnull=True),
                name="delivery_pending_or_ended",
            ),
        ]
        indexes = [
            models.Index(fields=["lane", "next_at"], name="delivery_due", condition=Q(state="pending")),
            models.Index(fields=["tenant"], name="delivery_leased", condition=Q(leased_until__isnull=False)),
            models.Index(fields=["tenant", "-id"], name="delivery_of_tenant"),
            models.Index(fields=["webhook", "-id"], name="delivery_of_webhook", condition=Q(webhook__isnull=False)),
            models.Index(fields=["ended_at"], name="delivery_ended", condition=Q(ended_at__isnull=False)),
        ]

    @property
    def message_id(self) -> str:
        """Its webhook-id: the same at each try and replay."""
        return message_id(self.message)

    def __str__(self) -> str:
        return self.message_id


def message_id(message: object) -> str:
    return f"msg_{message}"


def parse_message_id(text: str) -> UUID | None:
    try:
        return UUID(text.strip().removeprefix("msg_"))
    except ValueError:
        return None


def address(url: str) -> str:
    """A webhook's URL without what may be secret in it: the values of its query."""
    parts = urlsplit(url)
    query = "&".join(f"{name}=…" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return parts._replace(query=query, fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()


class DeliveryTry(Owned):
    """One POST of a delivery and what came of it."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="all_tries", db_index=False)
    at = models.DateTimeField(db_default=Now())
    ms = models.IntegerField()
    status = models.SmallIntegerField(null=True, help_text="Of the HTTP answer, if there was one.")
    answer = models.TextField(db_default="", help_text="Its first bytes.")
    error = models.CharField(max_length=300, db_default="")

    class Meta:
        verbose_name_plural = "delivery tries"
        indexes = [models.Index(fields=["delivery", "id"], name="delivery_try_of")]
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.status or self.error}"
