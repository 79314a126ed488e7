"""Receipts of what was deleted: to read."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from unfold.contrib.filters.admin import ChoicesRadioFilter

from accounts.admin.pages import Admin, BigTable, ReadOnly, RelatedFilter, uuid_in
from accounts.admin.scope import Members
from jobs.models import Deletion

NUMBERS = ("jobs", "payloads", "events", "assets", "files", "size")


@admin.register(Deletion)
class DeletionAdmin(BigTable, ReadOnly, Admin):
    open_to = Members("tenant")
    list_display = ("asked_at", "what", "tenant", "job_id", "asked_by", "done_at", *NUMBERS)
    list_filter = (("tenant", RelatedFilter), ("what", ChoicesRadioFilter))
    list_select_related = ("tenant",)
    sortable_by = ("asked_at",)
    search_fields = ("job_id",)
    search_help_text = "A job's id"
    fieldsets = (
        (None, {"fields": (("what", "tenant", "job_id"), ("asked_by", "asked_at", "day"), ("done_at", "fault"))}),
        ("Deleted", {"fields": (NUMBERS, "out_of_reach")}),
    )

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        if search_term.strip():
            uuid = uuid_in(search_term)
            queryset = queryset.filter(job_id=uuid) if uuid else queryset.none()
        return queryset, False

    @admin.display(description="bytes", ordering="bytes")
    def size(self, deletion: Deletion) -> str:
        return str(filesizeformat(deletion.bytes))
