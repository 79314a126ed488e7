"""Logins that failed, of the last minutes; who had too many is let in again here."""

from typing import Any

from axes.models import AccessAttempt
from axes.utils import reset
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from accounts.admin.pages import Admin, ReadOnly, asking, leave
from accounts.admin.scope import OPERATORS_ONLY


@admin.register(AccessAttempt)
class AttemptAdmin(ReadOnly, Admin):
    open_to = OPERATORS_ONLY
    list_display = ("username", "ip_address", "failures_since_start", "attempt_time", "user_agent")
    search_fields = ("username", "ip_address")
    ordering = ("-attempt_time",)
    fields = (("username", "ip_address", "failures_since_start"), ("attempt_time", "user_agent"))
    actions = ("let_in_selected",)
    actions_detail = ("let_in",)

    @asking("Let in again", "lock_open", "What failed by this name at this address is forgotten.", permission="operate")
    def let_in(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        attempt = self.get_object(request, object_id)
        if attempt is not None:
            self._let_in(request, attempt)
        return leave(request, reverse("admin:axes_accessattempt_changelist"))

    @admin.action(description="Let in again", permissions=["operate"])
    def let_in_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for attempt in list(queryset):
            self._let_in(request, attempt)

    def _let_in(self, request: HttpRequest, attempt: AccessAttempt) -> None:
        """By name and address, as they are locked out: each browser has a row of its own."""
        reset(username=attempt.username, ip=attempt.ip_address)
        self.log_change(request, attempt, "Let in again.")
        messages.success(request, f"{attempt.username} may sign in from {attempt.ip_address}.")
