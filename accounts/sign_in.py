"""The forms of signing in: login, a new password by a link, the second factor."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.forms import SetPasswordForm as DjangoSetPasswordForm
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.forms import AuthenticationForm as UnfoldAuthenticationForm
from unfold.widgets import BASE_INPUT_CLASSES, UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from accounts import second_factor

CODE = {"autocomplete": "one-time-code", "spellcheck": "false", "maxlength": 40}


def may_come_in(user: Any) -> bool:
    """The operator's staff, and members of a tenant that is not deleted."""
    return bool(user.is_active and (user.is_staff or user.roles))


class LoginForm(UnfoldAuthenticationForm):  # type: ignore[misc]
    """All that is wrong is told in the same words: not even whose password is right."""

    error_messages = UnfoldAuthenticationForm.error_messages | {
        "invalid_login": "The name, the password or the code is wrong."
    }
    code = forms.CharField(
        required=False,
        max_length=40,
        widget=forms.TextInput(CODE | {"class": " ".join(BASE_INPUT_CLASSES)}),
        help_text="If you have a second factor: of your app, or a recovery code.",
    )

    def confirm_login_allowed(self, user: Any) -> None:
        AuthenticationForm.confirm_login_allowed(self, user)
        if not may_come_in(user):
            raise self.get_invalid_login_error()

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean()
        user = self.get_user()
        code = given.get("code", "")
        if user and user.second_factor_id and not (code and second_factor.verify(user, code)):
            tried = {"username": user.get_username()}
            user_login_failed.send(sender=__name__, credentials=tried, request=self.request)  # it counts
            raise self.get_invalid_login_error()
        return given


class SetPasswordForm(DjangoSetPasswordForm):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs["class"] = " ".join(BASE_INPUT_CLASSES)


class CodeForm(forms.Form):
    """To turn the second factor on. `codes`: to be shown once."""

    password = forms.CharField(
        label="Your password", widget=UnfoldAdminPasswordWidget({"autocomplete": "current-password"})
    )
    code = forms.CharField(label="Code of the app", max_length=40, widget=UnfoldAdminTextInputWidget(CODE))
    codes: list[str] | None = None

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self.user: Any = request.user
        super().__init__(*args, **kwargs)

    def clean_password(self) -> None:
        if not self.user.check_password(self.cleaned_data["password"]):
            raise ValidationError("That is not your password.")

    def clean(self) -> None:
        if not self.errors and not self.act(self.cleaned_data["code"]):
            raise ValidationError({"code": "That code is not good. Look whether the clock of your phone is right."})

    def act(self, code: str) -> bool:
        self.codes = second_factor.confirm(self.user, code)
        return self.codes is not None


class OffForm(CodeForm):
    """To have new recovery codes, or to turn it off."""

    what = forms.ChoiceField(
        choices=[("codes", "New recovery codes, in place of those before"), ("off", "Turn the second factor off")],
        widget=forms.RadioSelect,
        initial="codes",
        label="What to do",
    )

    def act(self, code: str) -> bool:
        if not second_factor.verify(self.user, code):
            return False
        if self.cleaned_data["what"] == "codes":
            self.codes = second_factor.new_codes(self.user)
        else:
            second_factor.turn_off(self.user)
        return True
