"""Signing in: too many failures lock a name out at an address; sessions are new, young, and end with the password."""

import os
import secrets
import subprocess
import sys
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.test import Client as Browser
from django.utils import timezone

from accounts.models import User
from accounts.site import BEGAN, SEEN, SEEN_EVERY_S
from hearth.local.instance import ROOT
from tests.admin.rows import get, list_url, page_url
from tests.admin.walk import GIVEN, PASSWORD
from tests.cast import unique

pytestmark = pytest.mark.usefixtures("quick_passwords")
LOGIN = "/admin/login/"


@pytest.fixture
def address() -> str:
    return "198.51.100.7"


def sign_in(name: str, password: str, address: str, browser: Browser | None = None, **headers: str) -> int:
    browser = browser or Browser(SERVER_NAME="localhost")
    given = {"username": name, "password": password}
    return browser.post(LOGIN, given, REMOTE_ADDR=address, **headers).status_code


def fail(name: str, address: str, times: int = settings.AXES_FAILURE_LIMIT) -> list[int]:
    return [sign_in(name, f"wrong {number}", address, HTTP_USER_AGENT=str(number)) for number in range(times)]


def test_too_many_failures_lock_a_name_out_at_that_address(user: User, address: str) -> None:
    """Whatever the browser calls itself, and with the right password too."""
    assert fail(user.username, address) == [200] * (settings.AXES_FAILURE_LIMIT - 1) + [429]
    assert sign_in(user.username, PASSWORD, address) == 429
    assert sign_in(user.username, PASSWORD, "203.0.113.7") == 302, "a stranger does not keep the user out elsewhere"
    assert sign_in(unique("other"), PASSWORD, address) == 200


def test_a_name_that_nobody_has_is_told_the_same(user: User, address: str) -> None:
    told = []
    for name in (user.username, unique("nobody")):
        fail(name, address)
        browser = Browser(SERVER_NAME="localhost")
        text = browser.post(LOGIN, {"username": name, "password": "x"}, REMOTE_ADDR=address).content.decode()
        assert "too many logins that failed. Try again in 15 minutes" in text
        told.append(text)
    assert told[0] == told[1]


def test_what_a_client_says_of_its_address_is_not_believed(user: User, address: str) -> None:
    """uvicorn reads X-Forwarded-For, of proxies that are named; here it would let everybody begin anew."""
    for number in range(settings.AXES_FAILURE_LIMIT):
        sign_in(user.username, "wrong", address, HTTP_X_FORWARDED_FOR=f"192.0.2.{number}")
    assert sign_in(user.username, PASSWORD, address, HTTP_X_FORWARDED_FOR="192.0.2.99") == 429


def test_the_lock_ends_with_time_and_trying_on_does_not_prolong_it(user: User, address: str) -> None:
    fail(user.username, address)
    attempts = AccessAttempt.objects.filter(username=user.username)
    began = attempts.latest("attempt_time").attempt_time
    sign_in(user.username, "wrong", address)
    assert attempts.latest("attempt_time").attempt_time == began
    attempts.update(attempt_time=timezone.now() - settings.AXES_COOLOFF_TIME - timedelta(seconds=1))
    assert sign_in(user.username, PASSWORD, address) == 302


def test_a_login_forgets_what_failed_before(user: User, address: str) -> None:
    fail(user.username, address, settings.AXES_FAILURE_LIMIT - 1)
    assert sign_in(user.username, PASSWORD, address) == 302
    assert fail(user.username, address, settings.AXES_FAILURE_LIMIT - 1)[-1] == 200


def test_an_operator_lets_somebody_in_again(user: User, address: str, browser: Browser) -> None:
    fail(user.username, address)
    attempt = AccessAttempt.objects.filter(username=user.username).first()
    assert attempt
    assert address in get(browser, f"{list_url(AccessAttempt)}?q={user.username}")
    browser.post(page_url(attempt).replace("change", "let_in"), GIVEN)
    assert sign_in(user.username, PASSWORD, address) == 302


def test_passwords_are_not_kept_with_what_failed(user: User, address: str) -> None:
    sign_in(user.username, "a secret, mistyped", address)
    attempt = AccessAttempt.objects.get(username=user.username)
    assert "mistyped" not in str(vars(attempt))


def test_who_has_no_place_is_told_what_a_wrong_password_is_told(address: str) -> None:
    user = User.objects.create_user(unique("nobody"), password=PASSWORD)
    browser, texts = Browser(SERVER_NAME="localhost"), set()
    for password in (PASSWORD, "wrong"):
        texts.add(browser.post(LOGIN, {"username": user.username, "password": password}, REMOTE_ADDR=address).content)
    assert len({text.partition(b"csrfmiddlewaretoken")[0] for text in texts}) == 1


@pytest.fixture
def browser_in(user: User, address: str) -> Browser:
    """Signed in by the form."""
    made = Browser(SERVER_NAME="localhost")
    assert sign_in(user.username, PASSWORD, address, made) == 302
    return made


def test_a_login_takes_a_new_session(user: User, address: str) -> None:
    """Whoever set a session's id before it would else be signed in with it."""
    browser = Browser(SERVER_NAME="localhost")
    session = browser.session
    session["planted"] = True
    session.save()
    planted = browser.cookies[settings.SESSION_COOKIE_NAME].value
    sign_in(user.username, PASSWORD, address, browser)
    assert browser.cookies[settings.SESSION_COOKIE_NAME].value != planted


def test_the_sessions_cookie_is_for_this_site_and_no_script(browser_in: Browser) -> None:
    cookie = browser_in.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert cookie["max-age"] == settings.SESSION_COOKIE_AGE


def change(browser: Browser, **fields: int) -> None:
    session = browser.session
    session.update(fields)
    session.save()


def test_a_session_ends_some_days_after_its_login(browser_in: Browser) -> None:
    get(browser_in, "/admin/")
    change(browser_in, **{BEGAN: browser_in.session[BEGAN] - settings.SESSION_LIFE_S})
    assert browser_in.get("/admin/").status_code == 302
    assert browser_in.get("/admin/").status_code == 302, "for good"


def test_a_session_that_is_used_goes_on(browser_in: Browser) -> None:
    """Its end moves with its use, written at most once a minute."""
    get(browser_in, "/admin/")
    seen = browser_in.session[SEEN]
    assert settings.SESSION_COOKIE_NAME not in browser_in.get("/admin/").cookies
    change(browser_in, **{SEEN: seen - SEEN_EVERY_S})
    answer = browser_in.get("/admin/")
    assert answer.cookies[settings.SESSION_COOKIE_NAME]["max-age"] == settings.SESSION_COOKIE_AGE
    assert browser_in.session[SEEN] >= seen


def test_a_new_password_ends_all_other_sessions(user: User, browser_in: Browser, address: str) -> None:
    other = Browser(SERVER_NAME="localhost")
    sign_in(user.username, PASSWORD, address, other)
    new = {"old_password": PASSWORD, "new_password1": "another long password", "new_password2": "another long password"}
    browser_in.post("/admin/password_change/", new)
    assert (browser_in.get("/admin/").status_code, other.get("/admin/").status_code) == (200, 302)


def test_a_login_leads_nowhere_else(user: User, address: str) -> None:
    browser, given = Browser(SERVER_NAME="localhost"), {"username": user.username, "password": PASSWORD}
    answer = browser.post(f"{LOGIN}?next=https://evil.example/", given, REMOTE_ADDR=address)
    assert answer["Location"] == "/admin/"


def test_djangos_own_check_of_a_deployment_finds_nothing() -> None:
    env = os.environ | {"HEARTH_URL": "https://hearth.example.com", "HEARTH_ALLOWED_HOSTS": "hearth.example.com"}
    env["HEARTH_SECRET_KEY"] = secrets.token_urlsafe(48)  # as docs/operations.md makes it
    argv = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "System check identified no issues (3 silenced).\n"
