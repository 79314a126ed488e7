"""Django-Q2's tables. A task is a hint (rules.md 17), so dropping or resubmitting one does no harm."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django_q.admin import resubmit_task
from django_q.models import Failure, OrmQ, Schedule, Success

from accounts.admin.pages import Admin, ReadOnly
from accounts.admin.scope import OPERATORS_ONLY
from accounts.errors import counted

for model in (Failure, OrmQ, Schedule, Success):
    admin.site.unregister(model)  # nothing is scheduled: sweep does what is due


class EndedAdmin(ReadOnly, Admin):
    open_to = OPERATORS_ONLY
    list_display: tuple[str, ...] = ("name", "func", "cluster", "args", "started", "stopped", "took")
    list_filter = ("func", "cluster")
    search_fields = ("name", "func", "id")
    ordering = ("-stopped",)
    fields = (("name", "func", "cluster"), ("args", "kwargs", "attempt_count"), ("started", "stopped", "took"), "said")

    @admin.display(description="took")
    def took(self, task: Any) -> str:
        return f"{task.time_taken():.2f} s"

    @admin.display(description="result")
    def said(self, task: Any) -> str:
        return format_html('<pre class="whitespace-pre-wrap break-all text-xs">{}</pre>', task.result)


@admin.register(Success)
class SuccessAdmin(EndedAdmin):
    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(success=True)


@admin.register(Failure)
class FailureAdmin(EndedAdmin):
    list_display = ("name", "func", "args", "stopped", "attempt_count", "last_line")
    actions = ["resubmit"]

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("django_q.change_task"))

    @admin.display(description="error")
    def last_line(self, task: Any) -> str:
        lines = str(task.result or "").strip().splitlines()
        return lines[-1][:150] if lines else "-"

    @admin.action(description="Submit the selected tasks again", permissions=["operate"])
    def resubmit(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        tasks = list(queryset)
        resubmit_task(self, request, tasks)
        queryset.delete()
        messages.success(request, f"Submitted {counted(len(tasks), 'task')} again.")


@admin.register(OrmQ)
class QueuedAdmin(ReadOnly, Admin):
    open_to = OPERATORS_ONLY
    list_display = ("task_id", "name", "func", "args", "key", "lock")
    list_filter = ("key",)
    ordering = ("pk",)
    fields = (("task_id", "name", "func"), ("args", "kwargs", "q_options"), ("key", "lock"))
