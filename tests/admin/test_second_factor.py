"""A second factor at logins: enrolled by its user, good once, with recovery codes, and off again by an operator."""

import base64
import re
import time
from io import StringIO
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.core.management import call_command
from django.test import Client as Browser
from django_otp.oath import TOTP

from accounts import second_factor
from accounts.models import SecondFactor, Tenant, User
from tests.admin.rows import get, page_url
from tests.admin.walk import GIVEN, PASSWORD, member
from tests.cast import unique

pytestmark = pytest.mark.usefixtures("quick_passwords")
PAGE = "/admin/second-factor/"


def code_of(user: User, ahead: int = 0) -> str:
    """The app's, `ahead` times 30 s from now."""
    factor = SecondFactor.objects.get(user=user)
    totp = TOTP(base64.b32decode(factor.key.unseal()))
    totp.time = time.time() + 30 * ahead
    return f"{totp.token():06}"


def sign_in(user: User, code: str = "", password: str = PASSWORD) -> Browser | None:
    """None: he was not let in."""
    browser = Browser(SERVER_NAME="localhost")
    given = {"username": user.username, "password": password, "code": code}
    return browser if browser.post("/admin/login/", given).status_code == 302 else None


def enrol(user: User) -> tuple[Browser, list[str]]:
    """His browser, and the recovery codes."""
    browser = sign_in(user)
    assert browser
    get(browser, PAGE)
    text = browser.post(PAGE, {"password": PASSWORD, "code": code_of(user)}).content.decode()
    SecondFactor.objects.filter(user=user).update(last_t=-1)  # as if it were half a minute ago
    user.refresh_from_db()
    return browser, re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}", text)


def forgive(user: User) -> None:
    """As if the pause after failures were over, and the lock of his name."""
    SecondFactor.objects.filter(user=user).update(throttling_failure_timestamp=None)
    AccessAttempt.objects.filter(username=user.username).delete()


def test_a_user_enrols_by_a_picture_and_is_asked_from_then_on(user: User) -> None:
    browser = sign_in(user)
    assert browser
    page = get(browser, PAGE)
    key = SecondFactor.objects.get(user=user).key.unseal()
    assert "<svg" in page
    assert key in page
    assert key in get(browser, PAGE), "the same key, as long as it does not count"
    answer = browser.post(PAGE, {"password": PASSWORD, "code": code_of(user)})
    assert answer["Cache-Control"] == "no-store"
    get(browser, "/admin/")
    assert sign_in(user) is None
    again = sign_in(user, code_of(user, 1))
    assert again
    get(again, "/admin/")
    assert key not in get(again, PAGE), "it is never shown again"


def test_sessions_from_before_it_was_on_end(user: User) -> None:
    before = sign_in(user)
    assert before
    enrol(user)
    assert before.get("/admin/").status_code == 302
    assert before.get(PAGE).status_code == 302


@pytest.mark.parametrize(("password", "ahead"), [("wrong", 0), (PASSWORD, 1000)])
def test_it_is_not_turned_on_without_password_and_code(user: User, password: str, ahead: int) -> None:
    browser = sign_in(user)
    assert browser
    get(browser, PAGE)
    browser.post(PAGE, {"password": password, "code": code_of(user, ahead)})
    user.refresh_from_db()
    assert user.second_factor_id is None
    assert sign_in(user)


def test_a_code_is_good_once(user: User) -> None:
    enrol(user)
    code = code_of(user)
    assert sign_in(user, code)
    assert sign_in(user, code) is None


def test_a_recovery_code_is_good_once_in_any_writing(user: User) -> None:
    _, codes = enrol(user)
    assert len(set(codes)) == second_factor.RECOVERY_CODES
    assert sign_in(user, codes[0].lower().replace("-", " "))
    assert sign_in(user, codes[0]) is None
    forgive(user)
    assert sign_in(user, codes[1])


def test_another_users_code_opens_nothing(user: User) -> None:
    other = member(Tenant.objects.create(name=unique("globex")), "owner")
    other.set_password(PASSWORD)
    other.save()
    enrol(user)
    _, codes = enrol(other)
    assert sign_in(user, codes[0]) is None


def test_wrong_codes_make_pauses_and_lock_out(user: User) -> None:
    enrol(user)
    assert sign_in(user, "000000") is None
    assert sign_in(user, code_of(user)) is None, "the pause after a failure"
    forgive(user)
    for _ in range(settings.AXES_FAILURE_LIMIT):
        sign_in(user, "000000")
    SecondFactor.objects.filter(user=user).update(throttling_failure_timestamp=None)
    assert sign_in(user, code_of(user)) is None, "locked out, as by wrong passwords"
    forgive(user)
    assert sign_in(user, code_of(user))


def test_the_login_does_not_tell_whose_password_is_right(user: User) -> None:
    enrol(user)
    texts = []
    for password, code in ((PASSWORD, ""), (PASSWORD, "000000"), ("wrong", "")):
        forgive(user)
        given = {"username": user.username, "password": password, "code": code}
        text = Browser(SERVER_NAME="localhost").post("/admin/login/", given).content.decode()
        assert "The name, the password or the code is wrong." in text
        texts.append(re.sub(r'\s*value="[^"]*"', "", text))
    assert len(set(texts)) == 1


def test_secrets_are_sealed_or_hashed(user: User) -> None:
    _, codes = enrol(user)
    factor = SecondFactor.objects.get(user=user)
    stored = str(SecondFactor.objects.filter(pk=factor.pk).values()) + str(factor.key.token)
    assert factor.key.unseal() not in stored
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]


def test_its_user_has_new_recovery_codes_and_turns_it_off(user: User) -> None:
    browser, old = enrol(user)
    given = {"password": PASSWORD, "what": "codes", "code": code_of(user)}
    new = browser.post(PAGE, given).content.decode()
    assert old[0] not in new
    assert sign_in(user, old[0]) is None
    forgive(user)
    browser.post(PAGE, given | {"what": "off", "code": old[1]})
    assert User.objects.get(pk=user.pk).second_factor_id, "not without a good code"
    forgive(user)
    (fresh, *_) = re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}", new)
    browser.post(PAGE, given | {"what": "off", "code": fresh})
    get(browser, "/admin/")
    assert sign_in(user)


def test_an_operator_turns_it_off_and_so_does_a_command(user: User, browser: Browser) -> None:
    enrol(user)
    assert "Second factor off" in get(browser, page_url(user))
    browser.post(page_url(user).replace("change", "factor_off"), GIVEN)
    user.refresh_from_db()
    assert sign_in(user)
    enrol(user)
    call_command("second_factor_off", user.username, stdout=StringIO())
    assert sign_in(user)


@pytest.fixture
def staff_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SECOND_FACTOR_FOR_STAFF", True)


def test_the_operators_may_be_made_to_have_one(
    operator: User, browser: Browser, user: User, staff_need_it: Any
) -> None:
    assert browser.get("/admin/", follow=True).redirect_chain[-1][0] == PAGE
    assert browser.get(page_url(user)).status_code == 302
    operator.set_password(PASSWORD)
    operator.save()
    mine, _ = enrol(operator)
    get(mine, "/admin/")
    assert sign_in(user), "members may do without"


def test_a_lost_sealing_key_leaves_the_recovery_codes(user: User) -> None:
    _, codes = enrol(user)
    code = code_of(user)
    SecondFactor.objects.filter(user=user).update(key=b"sealed by a key that was lost")
    assert sign_in(user, code) is None
    forgive(user)
    assert sign_in(user, codes[0])
    SecondFactor.objects.filter(user=user).delete()  # other tests look whether all secrets open
