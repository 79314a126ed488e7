"""What the admin pages of all apps have in common."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib.admin import ShowFacets
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.views import ChangeList

from accounts.admin.scope import ScopedList, ScopedPage, choosable
from accounts.relations import protectors

View = Callable[..., Any]
Labels = dict[str, str]  # text -> unfold's colour: info, success, warning, danger, primary
_ID = re.compile(r"(?:sync-)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:-e1)?(?:-a\d+)?", re.I)


def uuid_in(text: str) -> UUID | None:
    """The UUID of an id as it stands in logs and answers: `<uuid>`, `<uuid>-e1`, `sync-<uuid>-e1`, `…-a2`."""
    found = _ID.fullmatch(text.strip())
    return UUID(found[1]) if found else None


def change_url(obj: Model) -> str:
    return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])


def leave(request: HttpRequest, url: str) -> HttpResponse:
    """To `url` after a dialog, which is posted by htmx where there is JavaScript."""
    return HttpResponse(headers={"HX-Redirect": url}) if "HX-Request" in request.headers else HttpResponseRedirect(url)


def asking(
    description: str,
    icon: str,
    text: str,
    *,
    permission: str,
    danger: bool = False,
    form: type[BaseDialogForm] | None = None,
) -> Callable[[View], View]:
    """A button that asks in a dialog first, so that what it does is done by a POST. `form`: what else it asks for."""
    dialog = {"title": f"{description}?", "description": text, "form_class": form, "form_submit_text": description}
    variant = ActionVariant.DANGER if danger else ActionVariant.DEFAULT
    made: Callable[[View], View] = action(
        description=description, icon=icon, variant=variant, permissions=[permission], dialog=dialog
    )
    return made


def going(description: str, icon: str, *, permission: str | None = None) -> Callable[[View], View]:
    """A button on a row's page that leads to another page."""
    permissions = None if permission is None else [permission]
    made: Callable[[View], View] = action(description=description, icon=icon, permissions=permissions)
    return made


def shown_once(page: Any, request: HttpRequest, obj: Any, url: str, template: str) -> HttpResponse:
    """The page with `obj.text_once`. No redirect, so that the text passes no session and no cookie."""
    context = page.admin_site.each_context(request) | {"opts": page.opts, "key": obj, "change_url": url}
    context |= {"title": f"{page.opts.verbose_name} made", "days": settings.PASSWORD_RESET_TIMEOUT // 86400}
    return TemplateResponse(request, template, context, headers={"Referrer-Policy": "no-referrer"})


class Admin(ScopedPage, ModelAdmin):  # type: ignore[misc]
    """Of every page. Which rows members see of it, and what they may do, it says in `open_to`."""

    list_filter_submit = True
    compressed_fields = False  # labels above the fields
    list_disable_select_all = True  # an action is for the rows of one page

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Without "delete selected": deleting is looked at row by row."""
        return {name: found for name, found in super().get_actions(request).items() if name != "delete_selected"}

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What stands in the way is named by its kind: Django would load and list every row of it."""
        protected = sorted({kind for obj in objs for kind in protectors(obj)})
        return ([], {}, set(), protected) if protected else super().get_deleted_objects(objs, request)


class RelatedForm(forms.Form):
    """Unfold's AutocompleteDropdownForm, which would name any row, and asks for `objects`: to what tenants own that is
    no way in."""

    Media = AutocompleteDropdownForm.Media

    def __init__(self, name: str, label: str, field: Any, model_admin: Any, **more: Any) -> None:
        super().__init__(data=more["data"])
        widget = AutocompleteSelect(field, model_admin.admin_site, attrs={"class": "unfold-filter-autocomplete"})
        kind = field.remote_field.model
        rows = choosable(model_admin.admin_site, kind, more["request"], kind._default_manager.all())
        self.fields[name] = forms.ModelChoiceField(rows, label=label, required=False, widget=widget)


class RelatedFilter(AutocompleteSelectFilter):  # type: ignore[misc]
    form_class = RelatedForm


class Inline(ScopedList, TabularInline):  # type: ignore[misc]
    extra = 0
    per_page = 20
    show_change_link = True
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnly:
    """Mixed into what nobody makes, changes or deletes by hand."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class CappedChangeList(ChangeList):  # type: ignore[misc]
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # else the page's head offers to show all


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts to CAP and no further."""

    CAP = 10_000
    template_name = "accounts/capped_pagination.html"
    object_list: QuerySet[Any]

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[: self.CAP].count()

    @property
    def capped(self) -> bool:
        return self.count >= self.CAP


class BigTable:
    """Mixed into lists of tables with millions of rows, whose ids are in the order of time: newest first, uncounted."""

    paginator = CappedPaginator
    show_facets = ShowFacets.NEVER  # counts for every choice of every filter
    show_full_result_count = False
    ordering = ("-id",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[CappedChangeList]:
        return CappedChangeList
