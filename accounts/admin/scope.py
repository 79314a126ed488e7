"""Whose rows a page shows, and who may do what there. Every page of the admin goes through here.

The operator's staff sees the rows of all tenants, as far as Django's permissions let them; superusers have them all.
A member sees the rows of his tenants, and in each has the rights of his role there. Each page says which: `open_to`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from accounts.admin.changes import trail
from accounts.audit import Change, say
from accounts.errors import counted
from accounts.models import NOT_DELETED, Member, Tenant

OWNER, DEVELOPER, VIEWER = Member.Role.OWNER, Member.Role.DEVELOPER, Member.Role.VIEWER


@dataclass(frozen=True)
class Members:
    """What members have of a kind of rows. `path` leads from a row to its tenant: "tenant", "job__tenant", "pk".

    Each right is named by the least role that has it; None: the operator's alone. `operate` is to act on rows that
    nobody changes by hand; `choose`, to name a row in a form or filter, is all who may view it, or more.
    """

    path: str
    view: str | None = VIEWER
    add: str | None = None
    change: str | None = None
    delete: str | None = None
    operate: str | None = None
    choose: str | None = VIEWER


LOOKUPS = {"id", "pk", "exact", "in", "isnull", "gt", "gte", "lt", "lte"}  # that say no more of a row than which it is
OPERATORS_ONLY = Members("", view=None, choose=None)


class Scoped:
    """Mixed into every page and every list in a page. A page that says nothing is the operator's alone."""

    open_to: Members = OPERATORS_ONLY
    model: type[Model]
    opts: Any
    admin_site: Any

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "view", obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "delete", obj)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """To act on rows; changing them may be nobody's."""
        return self.may(request, "operate", obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_or_change_permission(request)  # type: ignore[attr-defined,no-any-return]

    def may(self, request: HttpRequest, right: str, obj: Any = None) -> bool:
        """Of this row, or of any. `obj`: a row or, as unfold's buttons give it, a row's id."""
        if self.operators_may(request, right):
            return True
        tenants = self.tenants_where(request, right)
        if obj is None or not tenants:
            return bool(tenants)
        return self._tenant_at(request, obj) in tenants

    def _tenant_at(self, request: HttpRequest, obj: Any) -> Any:
        """None: there is no such row for this user. By its id it is looked up once."""
        if isinstance(obj, Model):
            return self.tenant_of(obj)
        found: dict[Any, Any] = request.__dict__.setdefault("tenants_of_rows", {})
        if (self.model, obj) not in found:
            row = self.get_object(request, str(obj))  # type: ignore[attr-defined]
            found[self.model, obj] = row and self.tenant_of(row)
        return found[self.model, obj]

    def operators_may(self, request: HttpRequest, right: str) -> bool:
        """By Django's permissions: whoever may change a row may view it and act on it."""
        asked = {"view": ("view", "change"), "choose": ("view", "change"), "operate": ("change",)}.get(right, (right,))
        names = [f"{self.opts.app_label}.{each}_{self.opts.model_name}" for each in asked]
        user: Any = request.user
        return bool(user.is_staff and any(user.has_perm(name) for name in names))

    def tenants_where(self, request: HttpRequest, right: str) -> list[UUID]:
        """In which this member has the right."""
        user: Any = request.user
        found: list[UUID] = user.tenants(getattr(self.open_to, right)) if user.is_authenticated else []
        return found

    def tenant_of(self, row: Model) -> Any:
        *hops, last = self.open_to.path.split("__")
        return getattr(attrgetter(".".join(hops))(row) if hops else row, "pk" if last == "pk" else f"{last}_id")

    def of_tenants(self, rows: QuerySet[Any], tenants: list[UUID]) -> QuerySet[Any]:
        return rows.filter(**{f"{self.open_to.path}__in": tenants}) if tenants else rows.none()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]
        if self.operators_may(request, "view"):
            return rows
        return self.of_tenants(rows, self.tenants_where(request, "choose"))

    def get_field_queryset(self, db: Any, field: Any, request: HttpRequest) -> QuerySet[Any] | None:
        """What a form's field may name: of tenants, those where the member may add such a row."""
        if field.remote_field.model is Tenant and not self.operators_may(request, "add"):
            return Tenant.objects.filter(pk__in=self.tenants_where(request, "add"), **NOT_DELETED)
        usual: QuerySet[Any] | None = super().get_field_queryset(db, field, request)  # type: ignore[misc]
        return choosable(self.admin_site, field.remote_field.model, request, usual)


def choosable(
    site: Any, model: type[Model], request: HttpRequest, usual: QuerySet[Any] | None = None
) -> QuerySet[Any] | None:
    """Rows that the user may name: for operators `usual`."""
    try:
        page = site.get_model_admin(model)
    except NotRegistered:
        return usual if request.user.is_staff else model._default_manager.none()
    return usual if page.operators_may(request, "view") else page.get_queryset(request)


class ScopedPage(Scoped):
    """Of a page: its buttons, actions and filters, too."""

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """A member narrows a list by its filters alone: Django would let him ask about any field of a related row."""
        allowed = super().lookup_allowed(lookup, value, request)  # type: ignore[misc]
        if request is None or self.operators_may(request, "view"):
            return bool(allowed)
        filters = self.get_list_filter(request)  # type: ignore[attr-defined]
        names = {each[0] if isinstance(each, tuple) else each for each in filters} | {"pk", self.opts.pk.name}
        path = [part for part in lookup.split("__") if part not in LOOKUPS]
        is_field = path and path[0] in {field.name for field in self.opts.get_fields()}
        own = {getattr(each, "parameter_name", None) for each in filters}
        is_column = path and path[0] not in own and path[0] in self.get_queryset(request).query.annotations
        return bool(allowed) and not is_column and (not is_field or "__".join(path) in names)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A member who may add to one tenant alone need not name it."""
        found: dict[str, Any] = super().get_changeform_initial_data(request)  # type: ignore[misc]
        tenants = self.tenants_where(request, "add")
        if self.open_to.path == "tenant" and len(tenants) == 1 and not self.operators_may(request, "add"):
            found.setdefault("tenant", tenants[0])
        return found

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Each acts on those of the chosen rows where the user may."""
        found = super().get_actions(request)  # type: ignore[misc]
        return {name: (_where_allowed(act), *more) for name, (act, *more) in found.items()}

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """Rows tell of themselves when they are saved (accounts.audit)."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:
        """What a button has done, in words; a form's fields the row itself tells."""
        if isinstance(message, str):
            say(obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> None:
        """As log_addition."""

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """What the trail has of this row, the newest first."""
        row = self.get_object(request, unquote(object_id))  # type: ignore[attr-defined]
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        if not self.has_view_or_change_permission(request, row):  # type: ignore[attr-defined]
            raise PermissionDenied
        table = trail(Change.objects.filter(kind=self.opts.label_lower, row=str(row.pk)))
        context = self.admin_site.each_context(request) | {"opts": self.opts, "object": row, "table": table}
        title = {"title": f"History of {row}", "module_name": self.opts.verbose_name_plural}
        return TemplateResponse(request, "accounts/history.html", context | title | (extra_context or {}))

    def get_unfold_action(self, action: str) -> Any:
        """A button is there for whom its row is."""
        found = super().get_unfold_action(action)  # type: ignore[misc]
        return replace(found, method=self._where_seen(found.method))

    def _where_seen(self, act: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(act)
        def page(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            given = kwargs.get("object_id")
            if not self.operators_may(request, "view") and not self.may(request, "view", given):
                return self._get_obj_does_not_exist_redirect(request, self.opts, given)  # type: ignore[attr-defined]
            return act(request, *args, **kwargs)

        return page


def _where_allowed(act: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(act)
    def acting(page: Any, request: HttpRequest, rows: QuerySet[Any]) -> Any:
        for right in getattr(act, "allowed_permissions", ()):
            if not page.operators_may(request, right):
                before, rows = rows.count(), page.of_tenants(rows, page.tenants_where(request, right))
                if left := before - rows.count():
                    messages.warning(request, f"Left out: {counted(left, 'row')}, where your role does not allow it.")
        return act(page, request, rows)

    return acting


class ScopedList(Scoped):
    """Of a list in a page: the tenant of the page's row decides. Its rights are those of its own page, if any."""

    parent_model: type[Model]

    def __init__(self, parent_model: type[Model], admin_site: Any) -> None:
        super().__init__(parent_model, admin_site)  # type: ignore[call-arg]
        own = admin_site._registry.get(self.model)
        if own and self.open_to is OPERATORS_ONLY:
            self.open_to = own.open_to

    def tenant_of(self, row: Model) -> Any:
        if isinstance(row, self.parent_model):
            return self.admin_site.get_model_admin(self.parent_model).tenant_of(row)
        return super().tenant_of(row)
