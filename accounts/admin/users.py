"""Users, who sign in here, and members: a user's place in a tenant."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.validators import RegexValidator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.forms import AdminPasswordChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts import membership, second_factor
from accounts.admin.pages import Admin, Inline, RelatedFilter, asking, change_url, going, leave, shown_once
from accounts.admin.scope import OPERATORS_ONLY, OWNER, Members
from accounts.errors import Refused
from accounts.models import Member, User


@admin.register(User)
class UserAdmin(DjangoUserAdmin, Admin):  # type: ignore[type-arg, misc]
    open_to = OPERATORS_ONLY
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "has_second_factor", "tenants", "last_login")
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
    actions_detail = ["set_password", "factor_off"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("memberships__tenant")

    @going("Set a password", "key")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:auth_user_password_change", args=[object_id]))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        user = self.get_object(request, str(object_id))
        found = super().get_actions_detail(request, object_id)
        return found if user and user.second_factor_id else [each for each in found if each.path != "factor_off"]

    @asking(
        "Second factor off",
        "phonelink_erase",
        "For who has lost phone and recovery codes. Make sure that it is the user who asks.",
        permission="change",
        danger=True,
    )
    def factor_off(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        user = self.get_object(request, object_id)
        if user is None:
            return leave(request, reverse("admin:accounts_user_changelist"))
        second_factor.turn_off(user)
        messages.success(request, f"{user} signs in by password alone.")
        return leave(request, change_url(user))

    @admin.display(description="second factor", boolean=True)
    def has_second_factor(self, user: User) -> bool:
        return user.second_factor_id is not None

    @admin.display(description="tenants")
    def tenants(self, user: User) -> str:
        return ", ".join(str(member.tenant) for member in user.memberships.all())


admin.site.unregister(Group)  # rights are by tenant and role


class MemberInline(Inline):
    model = Member
    fields = readonly_fields = ("user", "role", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("user", "tenant").order_by("pk")


class InviteForm(forms.ModelForm):  # type: ignore[type-arg]
    """An owner's: he knows no users but those of his tenant, so he makes one."""

    name = forms.CharField(
        max_length=80,
        validators=[RegexValidator(r"\A[a-z0-9._-]+\Z", "a–z, 0–9, dot, - and _.")],
        widget=UnfoldAdminTextInputWidget,
        help_text="Signs in by name@tenant, as bob@acme. The next page has a link, by which a password is set.",
    )
    email = forms.EmailField(label="E-mail", required=False, widget=UnfoldAdminTextInputWidget)


@admin.register(Member)
class MemberAdmin(Admin):
    """Owners invite, operators name any user; both by the verbs of accounts.membership."""

    open_to = Members("tenant", add=OWNER, change=OWNER, delete=OWNER)
    list_display = ("user", "tenant", "role", "created_at")
    list_filter = (("tenant", RelatedFilter), "role")
    list_select_related = ("user", "tenant")
    search_fields = ("user__username", "user__email", "tenant__name")
    autocomplete_fields = ("user", "tenant")
    actions_detail = ("password_link",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("created_at", "tenant", "user") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if not obj and not self.operators_may(request, "add"):
            kwargs["form"] = InviteForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj:
            return ("tenant", "user", "role", "created_at")
        who = ("user",) if self.operators_may(request, "add") else ("name", "email")
        return ("tenant", *who, "role")

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return _or_told(request, super().changeform_view, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return _or_told(request, super().delete_view, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        given = form.cleaned_data
        if change:
            membership.change_role(obj, given["role"])
        elif "name" in given:
            made = membership.invite(given["tenant"], given["name"], given["email"], given["role"])
            obj.pk, obj.user, obj.text_once = made.pk, made.user, membership.password_link(made.user)
        else:
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        membership.remove(obj)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> Any:
        if hasattr(obj, "text_once"):
            return shown_once(self, request, obj, change_url(obj), LINK_MADE)
        return super().response_add(request, obj, post_url_continue)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        member = self.get_object(request, str(object_id))
        is_own = member and self._may_be_sent_a_link(request, member)
        return super().get_actions_detail(request, object_id) if is_own else []

    @going("Link to set a password", "link", permission="change")
    def password_link(self, request: HttpRequest, object_id: str) -> HttpResponse:
        member = self.get_object(request, object_id)
        if member is None or not self._may_be_sent_a_link(request, member):
            messages.error(request, "The operator looks after the password of this user.")
            return leave(request, reverse("admin:accounts_member_changelist"))
        member.text_once = membership.password_link(member.user)
        self.log_change(request, member, "Made a link to set a password.")
        return shown_once(self, request, member, change_url(member), LINK_MADE)

    def _may_be_sent_a_link(self, request: HttpRequest, member: Member) -> bool:
        return self.operators_may(request, "change") or membership.is_of_that_tenant_alone(member)


LINK_MADE = "accounts/link_made.html"


def _or_told(request: HttpRequest, view: Any, *args: Any, **kwargs: Any) -> Any:
    """The page again, with why it was refused."""
    try:
        return view(request, *args, **kwargs)
    except Refused as refused:
        messages.error(request, refused.error)
        return HttpResponseRedirect(request.get_full_path())
