"""The admin's site: who may come in, and that its lists of pages name only what he may see. Only web loads it."""

import time
from typing import Any

from django.conf import settings
from django.contrib.admin import site
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.forms import SetPasswordForm as DjangoSetPasswordForm
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import PasswordResetConfirmView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import Resolver404, path, resolve, reverse
from unfold.forms import AuthenticationForm as UnfoldAuthenticationForm
from unfold.sites import UnfoldAdminSite
from unfold.widgets import BASE_INPUT_CLASSES

from accounts.membership import set_password


def may_come_in(user: Any) -> bool:
    """The operator's staff, and members of a tenant that is not deleted."""
    return bool(user.is_active and (user.is_staff or user.roles))


class LoginForm(UnfoldAuthenticationForm):  # type: ignore[misc]
    def confirm_login_allowed(self, user: Any) -> None:
        """Whoever may not come in is told what a wrong password is told."""
        AuthenticationForm.confirm_login_allowed(self, user)
        if not may_come_in(user):
            raise self.get_invalid_login_error()


class SetPasswordForm(DjangoSetPasswordForm):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs["class"] = " ".join(BASE_INPUT_CLASSES)


class Autocomplete(AutocompleteJsonView):
    def has_perm(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows may be there to choose, though they have no page for members."""
        page: Any = self.model_admin
        return bool(super().has_perm(request, obj) or page.may(request, "choose"))


BEGAN, SEEN = "began", "seen"  # of a session: Unix seconds
SEEN_EVERY_S = 60


class Site(UnfoldAdminSite):  # type: ignore[misc]
    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        return may_come_in(request.user) and self._is_young(request)

    def _is_young(self, request: HttpRequest) -> bool:
        """A session ends some days after its login, and some hours after it was used last."""
        now, session = int(time.time()), request.session
        if session.get(BEGAN, now) + settings.SESSION_LIFE_S <= now:
            session.flush()
            request.user = AnonymousUser()
            return False
        if session.get(SEEN, 0) + SEEN_EVERY_S <= now:
            session.setdefault(BEGAN, now)
            session[SEEN] = now  # so it is stored, with a new age
        return True

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        answer: HttpResponse = super().login(request, extra_context)
        if request.method == "POST" and request.user.is_authenticated:
            request.session[BEGAN] = int(time.time())
        return answer

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        return Autocomplete.as_view(admin_site=self)(request)  # type: ignore[return-value]

    def get_urls(self) -> list[Any]:
        page = path("set-password/<uidb64>/<token>/", self.set_password, name="set_password")
        return [page, *super().get_urls()]

    def set_password(self, request: HttpRequest, uidb64: str, token: str) -> HttpResponse:
        """For whoever has the link (accounts.membership)."""
        view = PasswordResetConfirmView.as_view(
            token_generator=set_password,
            form_class=SetPasswordForm,
            template_name="accounts/set_password.html",
            success_url=reverse("admin:index"),
            extra_context=self.each_context(request),
        )
        return view(request, uidb64=uidb64, token=token)  # type: ignore[return-value]

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Without the lists that this user may not see."""
        groups: list[dict[str, Any]] = super().get_sidebar_list(request)
        for group in groups:
            group["items"] = [item for item in group["items"] if self._is_seen(request, str(item["link"]))]
        return [group for group in groups if group["items"]]

    def _is_seen(self, request: HttpRequest, link: str) -> bool:
        try:
            page = getattr(resolve(link).func, "model_admin", None)
        except Resolver404:  # it leads out of here
            return True
        return page is None or page.has_view_or_change_permission(request)


def locked_out(request: HttpRequest, answer: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    """In place of the login's answer, the same for users that are there and for others, whatever the password was."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() / 60)
    context = site.each_context(request) | {"title": "Wait", "minutes": minutes}
    told = render(request, "accounts/locked_out.html", context, status=429)
    told["Retry-After"] = str(minutes * 60)
    return told
