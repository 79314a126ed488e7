"""Who: tenants, their members, their API keys."""

from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import uuid_utils.compat
from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import ExpressionWrapper, F, Value
from django.db.models.functions import Coalesce, Now
from django.db.models.lookups import LessThanOrEqual
from django.utils import timezone
from django.utils.functional import cached_property
from django_otp.models import Device, ThrottlingMixin

from accounts.audit import MASK, Audited
from accounts.keys import CLIENT, new_key
from accounts.sealed import SealedField

uuid7 = uuid_utils.compat.uuid7
slug = RegexValidator(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", "1–63 of a–z, 0–9 and - (not at the ends).")


class Limited(models.Model):
    """What a tenant, or one of its keys, may have at most (rules.md 23)."""

    max_queued = models.PositiveIntegerField("queued jobs", null=True, blank=True, help_text="Empty: no limit.")
    max_running = models.PositiveIntegerField("running jobs", null=True, blank=True, help_text="More wait.")
    requests_per_10s = models.PositiveIntegerField(
        "requests in 10 s", null=True, blank=True, help_text="Of each kind, at each endpoint. Empty: RunPod's numbers."
    )
    gpu_s_a_month = models.PositiveBigIntegerField("GPU-seconds a month", null=True, blank=True)
    cost_a_month = models.DecimalField("cost a month", max_digits=14, decimal_places=2, null=True, blank=True)

    class Meta:
        abstract = True


KEPT = "Empty: the instance's; 0: for ever."
UNUSED_DAYS_MOST = 3650


class Tenant(Audited, Limited):
    """A customer: owns keys, buckets, jobs and files, and sees nothing of any other tenant."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=63, unique=True, validators=[slug])
    max_stored_bytes = models.PositiveBigIntegerField(
        "stored bytes", null=True, blank=True, help_text="Of its files in the operator's S3. Empty: no limit."
    )
    payload_days = models.PositiveIntegerField(
        "payloads, days", null=True, blank=True, help_text=f"Inputs, outputs and streams of ended jobs. {KEPT}"
    )
    asset_days = models.PositiveIntegerField(
        "files, days", null=True, blank=True, help_text=f"Outputs and uploads, from when they were made. {KEPT}"
    )
    event_days = models.PositiveIntegerField(
        "timelines, days", null=True, blank=True, help_text=f"Of ended jobs. {KEPT}"
    )
    unused_key_days = models.PositiveIntegerField(
        "unused API keys, days",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(UNUSED_DAYS_MOST)],
        help_text="A key that was neither made nor used for so long has expired. Empty: none does by that.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False, help_text="Its row stays, for what it used.")

    class Meta(Limited.Meta):
        abstract = False
        constraints = [
            models.CheckConstraint(
                condition=models.Q(unused_key_days=None) | models.Q(unused_key_days__range=(1, UNUSED_DAYS_MOST)),
                name="tenant_unused_key_days",
            )
        ]

    def __str__(self) -> str:
        return self.name


NOT_DELETED = {"deleted_at": None}  # of whom something new may be


class User(AbstractUser, Audited):  # type: ignore[django-manager-missing]
    """A person who signs in to the admin: the operator's staff, or a tenant's member."""

    untold = ("last_login", "date_joined")
    second_factor = models.OneToOneField(
        "SecondFactor", models.SET_NULL, null=True, editable=False, related_name="+", help_text="Asked for at logins."
    )

    def told(self, name: str, value: Any) -> Any:
        return MASK if name == "password" and value else super().told(name, value)

    @cached_property
    def roles(self) -> dict[UUID, str]:
        """By tenant, of those that are not deleted; looked up once."""
        mine = Member.all_tenants.filter(user=self, tenant__deleted_at=None)
        return dict(mine.values_list("tenant", "role"))

    def tenants(self, least: str | None) -> list[UUID]:
        """In which the user has this role, or one that may more."""
        return [tenant for tenant, role in self.roles.items() if least and Member.RANK[role] >= Member.RANK[least]]


class SecondFactor(ThrottlingMixin, Device):  # type: ignore[misc]
    """A user's authenticator app (RFC 6238: six digits, 30 s) and recovery codes. It counts once the user names it."""

    key = SealedField(help_text="Base32.")
    last_t = models.BigIntegerField(default=-1, help_text="The time step of the last code: none is good twice.")
    recovery = ArrayField(models.BinaryField(), default=list, help_text="SHA-256 of each code that was not used.")
    created_at = models.DateTimeField(db_default=Now())

    throttling_failure_count: int
    MOST_FAILURES = 10  # that make the pause longer: then it is 512 s

    def get_throttle_factor(self) -> int:
        return 1

    def throttle_increment(self, commit: bool = True) -> None:
        super().throttle_increment(commit=False)
        self.throttling_failure_count = min(self.throttling_failure_count, self.MOST_FAILURES)
        self.save()


class TenantForgotten(TypeError):
    """A queryset of tenant-owned rows that does not start from a tenant."""


class OwnedManager(models.Manager):  # type: ignore[type-arg]
    """`objects` of what a tenant owns: `of(tenant)` is the only way in; `all_tenants` is the operator's and says so."""

    def get_queryset(self) -> models.QuerySet[Any]:
        raise TenantForgotten(f"{self.model.__name__}.objects.of(tenant), or {self.model.__name__}.all_tenants")

    def of(self, tenant: Tenant) -> models.QuerySet[Any]:
        return super().get_queryset().filter(tenant=tenant)


class Owned(models.Model):
    """Base of what belongs to one tenant."""

    all_tenants = models.Manager()
    objects = OwnedManager()

    class Meta:
        abstract = True


class Member(Audited, Owned):
    """A user's place in a tenant."""

    class Role(models.TextChoices):
        OWNER = "owner"
        DEVELOPER = "developer"
        VIEWER = "viewer"

    RANK: dict[str, int] = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="members", limit_choices_to=NOT_DELETED)
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=9, choices=Role, default=Role.DEVELOPER)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="member_once")]

    def __str__(self) -> str:
        return f"{self.user} ({self.role} of {self.tenant})"


class Key(models.Model):
    """What API keys and worker keys have in common: only the prefix and a SHA-256 are stored."""

    name = models.CharField(max_length=100, blank=True)
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="To the minute.")

    kind: str
    doing: str
    ACTIVE, EXPIRED, UNUSED, REVOKED = "active", "expired", "expired (unused)", "revoked"

    class Meta:
        abstract = True

    @classmethod
    def issue(cls, **fields: Any) -> tuple[Self, str]:
        """Make and save a key; returns it with its text, which is shown this once."""
        key = new_key(cls.kind)
        return cls._default_manager.create(prefix=key.prefix, digest=key.digest, **fields), key.text

    @property
    def state(self) -> str:
        if self.revoked_at:
            return self.REVOKED
        return self.EXPIRED if self.expires_at and self.expires_at <= timezone.now() else self.ACTIVE

    def revoke(self) -> None:
        self.revoked_at, self.doing = self.revoked_at or timezone.now(), "Revoked."
        self.save(update_fields=["revoked_at"])

    def __str__(self) -> str:
        return f"{self.kind}_{self.prefix}_… {self.name}".rstrip()


LIMITED_MANAGES = "With the scope `manage` a key could lift its own limit: a key for some endpoints cannot have it."


class ApiKey(Audited, Owned, Key, Limited):
    """A tenant's key to the client API."""

    class Scope(models.TextChoices):
        RUN = "run", "run: submit, cancel, retry, purge"
        READ = "read", "read: status, health, requests"
        MANAGE = "manage", "manage: what the tenant sets up, as keys and buckets"

    kind = CLIENT
    untold = ("digest", "last_used_at")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys", limit_choices_to=NOT_DELETED)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope), default=list, blank=True)
    endpoints = ArrayField(
        models.CharField(max_length=63, validators=[slug]),
        default=list,
        db_default=[],
        blank=True,
        help_text="Names, with commas between: it is good for these alone. Empty: for all that its tenant may use.",
    )

    class Meta(Key.Meta):
        abstract = False
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(endpoints=[]) | ~models.Q(scopes__contains=["manage"]),
                name="key_with_limit_manages_nothing",
                violation_error_message=LIMITED_MANAGES,
            )
        ]

    @property
    def state(self) -> str:
        """UNUSED is what access.API_KEY calls so; `tenant` is at hand."""
        state, days = super().state, self.tenant.unused_key_days
        used_at = self.last_used_at or self.created_at
        if state == self.ACTIVE and days is not None and used_at <= timezone.now() - timedelta(days=days):
            return self.UNUSED
        return state


def is_unused() -> models.Q:
    """Of API keys: whether that is so, revoked and expired ones among them."""
    days = ExpressionWrapper(F("tenant__unused_key_days") * Value(timedelta(days=1)), models.DurationField())
    unused = LessThanOrEqual(Coalesce("last_used_at", "created_at"), Now() - days)
    return models.Q(tenant__unused_key_days__isnull=False) & models.Q(unused)


class RateWindow(models.Model):
    """Requests that were let in, by scope, in one window of rates.WINDOW_S. Unlogged: a crash empties it."""

    pk = models.CompositePrimaryKey("scope", "began_at")
    scope = models.CharField(max_length=200, help_text="Whose, at which endpoint, of which kind.")
    began_at = models.DateTimeField()
    taken = models.BigIntegerField(help_text="Permits that processes took, or asked for in vain.")
