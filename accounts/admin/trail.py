"""The audit trail: who changed what; to read."""

from django.contrib import admin
from unfold.contrib.filters.admin import RangeDateTimeFilter

from accounts.admin.changes import told
from accounts.admin.pages import Admin, BigTable, ReadOnly, RelatedFilter
from accounts.admin.scope import Members
from accounts.audit import Change


@admin.register(Change)
class ChangeAdmin(BigTable, ReadOnly, Admin):
    open_to = Members("tenant")
    list_display = ("when", "who", "address", "kind", "name", "did", "changes")
    list_filter = (("tenant", RelatedFilter), ("at", RangeDateTimeFilter))
    list_select_related = ("tenant",)
    list_fullwidth = True
    sortable_by = ("when",)
    search_fields = ("row", "who__startswith", "name__startswith", "kind")
    search_help_text = "A row's id, or the beginning of its name or of who changed it"
    fields = (("when", "tenant"), ("who", "address"), ("kind", "row", "name"), "did", "changes")

    @admin.display(description="at", ordering="id")
    def when(self, change: Change) -> str:
        return f"{change.at:%Y-%m-%d %H:%M:%S}"

    @admin.display(description="changes")
    def changes(self, change: Change) -> str:
        return told(change)
