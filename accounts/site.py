"""The admin's site: who may come in, and that its lists of pages name only what he may see. Only web loads it."""

import time
from typing import Any

import segno
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import site
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import PasswordResetConfirmView, redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import Resolver404, path, resolve, reverse
from django.utils.safestring import mark_safe
from unfold.sites import UnfoldAdminSite

from accounts import second_factor
from accounts.membership import set_password
from accounts.sign_in import CodeForm, LoginForm, OffForm, SetPasswordForm, may_come_in


class Autocomplete(AutocompleteJsonView):
    def has_perm(self, request: HttpRequest, obj: Any = None) -> bool:
        """Rows may be there to choose, though they have no page for members."""
        page: Any = self.model_admin
        return bool(super().has_perm(request, obj) or page.may(request, "choose"))


BEGAN, SEEN = "began", "seen"  # of a session: Unix seconds
FACTOR = "second_factor"  # of a session: which one its user gave a code of
SEEN_EVERY_S = 60


class Site(UnfoldAdminSite):  # type: ignore[misc]
    login_form = LoginForm

    login_template = "accounts/login.html"

    def has_permission(self, request: HttpRequest) -> bool:
        return self._is_let_in(request) and not self._must_enrol(request)

    def _is_let_in(self, request: HttpRequest) -> bool:
        user: Any = request.user
        if not may_come_in(user) or user.second_factor_id not in (None, request.session.get(FACTOR)):
            return False
        return self._is_young(request)

    def _must_enrol(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return settings.SECOND_FACTOR_FOR_STAFF and user.is_staff and user.second_factor_id is None

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
        if request.method == "GET" and self._is_let_in(request) and self._must_enrol(request):
            return redirect("admin:second_factor")
        answer: HttpResponse = super().login(request, extra_context)
        user: Any = request.user
        if request.method == "POST" and user.is_authenticated and answer.status_code == 302:
            request.session.update({BEGAN: int(time.time()), FACTOR: user.second_factor_id})
        return answer

    def second_factor(self, request: HttpRequest) -> HttpResponse:
        """The user's own: he enrols by the code of his app, and later has new recovery codes or turns it off."""
        user: Any = request.user
        if not self._is_let_in(request):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        context = self.each_context(request) | {"title": "Second factor"}
        kind = OffForm if user.second_factor_id else CodeForm
        form = kind(request, request.POST or None)
        if request.method == "POST" and form.is_valid():
            if form.codes:
                request.session[FACTOR] = user.second_factor_id
                return _private(request, "accounts/recovery_codes.html", context | {"codes": form.codes})
            messages.success(request, "The second factor is off.")
            return redirect("admin:second_factor")
        context |= {"form": form, "factor": user.second_factor}
        if not user.second_factor_id:
            factor = second_factor.begin(user)
            url = second_factor.key_url(factor)
            picture = segno.make(url, error="m").svg_inline(scale=5, border=2, light="white")
            context |= {"picture": mark_safe(picture), "key": factor.key.unseal()}
        return _private(request, "accounts/second_factor.html", context)

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        return Autocomplete.as_view(admin_site=self)(request)  # type: ignore[return-value]

    def get_urls(self) -> list[Any]:
        pages = [
            path("set-password/<uidb64>/<token>/", self.set_password, name="set_password"),
            path("second-factor/", self.second_factor, name="second_factor"),
        ]
        return [*pages, *super().get_urls()]

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


def _private(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """What is on it is for nobody's cache."""
    answer = render(request, template, context)
    answer["Cache-Control"] = "no-store"
    return answer


def locked_out(request: HttpRequest, answer: HttpResponse, credentials: dict[str, Any] | None) -> HttpResponse:
    """In place of the login's answer, the same for users that are there and for others, whatever the password was."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() / 60)
    context = site.each_context(request) | {"title": "Wait", "minutes": minutes}
    told = render(request, "accounts/locked_out.html", context, status=429)
    told["Retry-After"] = str(minutes * 60)
    return told
