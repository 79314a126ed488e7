"""The rows of one tenant, whatever table they are in, and whether any of them was written."""

from collections import deque
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models.expressions import RawSQL

from accounts.models import RateWindow, SecondFactor, Tenant, User
from jobs.models import Endpoint, WebProcess

APPS = ("accounts", "storage", "jobs")
# A person, what he signs in by, requests counted, a process.
OF_NOBODY: set[type[models.Model]] = {User, SecondFactor, RateWindow, WebProcess}


def models_of_hearth() -> list[type[models.Model]]:
    return [model for model in apps.get_models() if model._meta.app_label in APPS and model not in OF_NOBODY]


def way(model: type[models.Model], to: type[models.Model]) -> str | None:
    """The shortest chain of foreign keys that leads from it to whom it belongs, "pk" for that itself."""
    if model is to:
        return "pk"
    left: deque[tuple[type[models.Model], str]] = deque([(model, "")])
    seen = {model}
    while left:
        at, path = left.popleft()
        for field in at._meta.fields:
            related = field.related_model
            if not isinstance(related, type) or related in seen:
                continue
            if related is to:
                return path + field.name
            seen.add(related)
            left.append((related, f"{path}{field.name}__"))
    return None


def filters(model: type[models.Model], tenant: Any, endpoint: Any) -> dict[str, Any]:
    """What picks the tenant's rows of it, or, if it is the operator's, those of the endpoint."""
    if found := way(model, Tenant):
        return {found: tenant}
    if found := way(model, Endpoint):
        return {found: endpoint}
    raise AssertionError(f"Whose are the rows of {model._meta.label}? Nothing leads from it to a tenant or endpoint.")


def written(tenant: Any, endpoint: Any) -> dict[tuple[str, Any], str]:
    """Each row of the tenant, and of its endpoint, with the transaction that wrote it last."""
    seen: dict[tuple[str, Any], str] = {}
    for model in models_of_hearth():
        xmin = RawSQL(f'"{model._meta.db_table}".xmin::text', [])
        rows = model._base_manager.filter(**filters(model, tenant.pk, endpoint.pk)).annotate(row_xmin=xmin)
        seen |= {(model._meta.label, pk): by for pk, by in rows.values_list("pk", "row_xmin")}
    return seen


def difference(before: dict[tuple[str, Any], str], after: dict[tuple[str, Any], str]) -> list[str]:
    said = [f"{label} {pk} is new" for label, pk in after.keys() - before.keys()]
    said += [f"{label} {pk} has gone" for label, pk in before.keys() - after.keys()]
    return said + [
        f"{row[0]} {row[1]} was written" for row in before.keys() & after.keys() if before[row] != after[row]
    ]
