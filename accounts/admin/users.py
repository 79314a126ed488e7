"""Users, who sign in here, and members: a user's place in a tenant."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.forms import AdminPasswordChangeForm, UserCreationForm

from accounts.admin.pages import Admin, Inline, going
from accounts.models import Member, User


@admin.register(User)
class UserAdmin(DjangoUserAdmin, Admin):  # type: ignore[type-arg]
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "tenants", "last_login")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username", "email")
    ordering = ("username",)
    fieldsets = (
        (None, {"fields": ("username", ("first_name", "last_name"), "email")}),
        ("Rights", {"fields": (("is_active", "is_staff", "is_superuser"),)}),
        ("Dates", {"fields": (("last_login", "date_joined"),)}),
    )
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
    actions_detail = ["set_password"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("memberships__tenant")

    @going("Set a password", "key")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:auth_user_password_change", args=[object_id]))

    @admin.display(description="tenants")
    def tenants(self, user: User) -> str:
        return ", ".join(str(member.tenant) for member in user.memberships.all())


admin.site.unregister(Group)  # rights are by tenant and role


class MemberInline(Inline):
    model = Member
    fields = ("user", "role", "created_at")
    readonly_fields = ("user", "created_at")
    can_delete = True

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("user", "tenant").order_by("pk")


@admin.register(Member)
class MemberAdmin(Admin):
    list_display = ("user", "tenant", "role", "created_at")
    list_filter = (("tenant", AutocompleteSelectFilter), "role")
    list_select_related = ("user", "tenant")
    search_fields = ("user__username", "user__email", "tenant__name")
    autocomplete_fields = ("user", "tenant")
    fields = ("tenant", "user", "role", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("created_at", "tenant", "user") if obj else ("created_at",)
