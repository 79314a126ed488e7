"""The audit trail: who changed what, when, from where, from what to what. It is written where rows are saved.

A model that is Audited says each change of its rows in the transaction that makes it, whether a form, the API or a
command asks. What is done by a statement of its own, or changes no row of these, is said by `say`. No secret is told.
"""

import getpass
import os
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.db import models, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse

from accounts import sql
from accounts.sealed import Sealed

MASK = "…"
HEARTHS_OWN = ("sweeper", "deliverer", "qcluster")  # commands that nobody asks for a change
_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)


class Change(models.Model):
    """A line of the trail. Only ever added; the sweeper deletes what is older than AUDIT_DAYS."""

    tenant = models.ForeignKey(
        "accounts.Tenant", models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    at = models.DateTimeField(db_default=Now(), db_index=True)
    who = models.CharField(max_length=300, help_text="A user, an API key, a command, or Hearth itself.")
    address = models.GenericIPAddressField("from", null=True, help_text="Of the request.")
    kind = models.CharField(max_length=100, help_text="Of the row: app.model.")
    row = models.CharField(max_length=100)
    name = models.CharField(max_length=300, help_text="The row's, then.")
    did = models.TextField("what")
    fields = models.JSONField(default=dict, help_text="Of each: from what to what.")

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-id"], name="change_of_tenant"),
            models.Index(fields=["kind", "row", "-id"], name="change_of_row"),
        ]

    def __str__(self) -> str:
        return f"{self.who}: {self.name}: {self.did}"


class Acting:
    """Middleware: whoever changes something in this thread meanwhile does it for this request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def who_acts() -> tuple[str, str | None]:
    """And from where."""
    request = _request.get()
    if request is None:
        return _process(), None
    user: Any = getattr(request, "user", None)
    address = request.META.get("REMOTE_ADDR") or None
    if key_id := getattr(user, "key_id", None):
        from accounts.models import ApiKey

        return f"API key {ApiKey.all_tenants.get(pk=key_id)}", address
    return f"user {user}" if user and user.is_authenticated else "somebody with a link", address


def _process() -> str:
    name = os.path.basename(sys.argv[0])
    if name != "manage.py" or len(sys.argv) < 2 or sys.argv[1] in HEARTHS_OWN:
        return "Hearth"
    return f"command {sys.argv[1]} by {_user()}"


def _user() -> str:
    """A container may run as a number that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def say(row: models.Model, did: str, fields: dict[str, Any] | None = None) -> None:
    """A line of the trail about this row."""
    who, address = who_acts()
    opts = row._meta
    tenant = row.pk if opts.label_lower == "accounts.tenant" else getattr(row, "tenant_id", None)
    line = {"tenant_id": tenant, "who": who[:300], "address": address, "did": did, "fields": fields or {}}
    Change.objects.create(kind=opts.label_lower, row=str(row.pk), name=str(row)[:300], **line)


FORGET = """
DELETE FROM accounts_change WHERE id IN (
       SELECT id FROM accounts_change WHERE at < clock_timestamp() - %(days)s * interval '1 day' LIMIT %(batch)s)"""


def forget(batch: int) -> int:
    """Lines that are older than AUDIT_DAYS."""
    days: int = settings.AUDIT_DAYS
    return sql.run(FORGET, {"days": days, "batch": batch}) if days else 0


class Audited(models.Model):
    """Base of what is told of in the trail. `untold`: fields that change by themselves."""

    untold: tuple[str, ...] = ()
    doing = "Changed."  # what the next save does, in words

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **kwargs: Any) -> Self:
        made = super().from_db(db, field_names, values, **kwargs)
        made._note_stored()
        return made

    def refresh_from_db(self, using: Any = None, fields: Any = None, from_queryset: Any = None) -> None:
        super().refresh_from_db(using, fields, from_queryset)
        self._note_stored(fields)

    def save(self, *args: Any, **kwargs: Any) -> None:
        is_new = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            fields = self._changes(kwargs.get("update_fields"), is_new)
            if fields or is_new:
                say(self, "Added." if is_new else self.doing, fields)
        self._note_stored(kwargs.get("update_fields"))

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        with transaction.atomic():
            self.say_deleted()
            return super().delete(*args, **kwargs)

    def say_deleted(self) -> None:
        """For who deletes the row by a statement of his own."""
        say(self, "Deleted.", {name: [self.told(name, value), None] for name, value in self._values().items() if value})

    def told(self, name: str, value: Any) -> Any:
        """What the trail has of a field's value. Models override it where a value may hold a secret."""
        if isinstance(value, Sealed | bytes | memoryview):
            return MASK
        if isinstance(value, datetime):
            return value.isoformat(timespec="seconds")
        return str(value) if isinstance(value, Decimal | UUID) else value

    def _note_stored(self, fields: Iterable[str] | None = None) -> None:
        stored = self._values()
        if fields is not None:
            stored = getattr(self, "_stored", {}) | {name: stored[name] for name in fields if name in stored}
        self._stored = stored

    def _values(self) -> dict[str, Any]:
        """Of the fields that are loaded and told of."""
        skipped, loaded = {*self.untold, "tenant", "created_at", self._meta.pk.name}, self.__dict__
        values = {
            field.name: loaded[field.attname]
            for field in self._meta.concrete_fields
            if field.name not in skipped and field.attname in loaded
        }
        return {name: [*value] if isinstance(value, list) else value for name, value in values.items()}

    def _changes(self, saved: Iterable[str] | None, is_new: bool) -> dict[str, Any]:
        before, after = getattr(self, "_stored", {}), self._values()
        changed = [
            name
            for name, value in after.items()
            if (saved is None or name in saved) and not hasattr(value, "resolve_expression")
            if (value if is_new else name in before and before[name] != value)
        ]
        return {name: [self.told(name, before.get(name)), self.told(name, after[name])] for name in changed}
