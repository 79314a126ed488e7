"""One shape of errors for all of /api/v1: keys, scopes, paths, methods, bodies."""

from base64 import b64encode

import httpx
import pytest
from django.urls import URLPattern

from accounts.models import ApiKey
from jobs.api.urls import urlpatterns
from tests.api.v1 import V1
from tests.cast import Place, new_client
from tests.wire.api import check_refusal

NO_ID = "01234567-89ab-7def-8123-456789abcdef"
WRONG_KEYS = ("", "hth_0123456789ab_" + "a" * 43, "hwk_0123456789ab_" + "a" * 43)
PATHS = [pattern for pattern in urlpatterns if str(pattern.pattern)]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
of_every_path = pytest.mark.parametrize("pattern", PATHS, ids=lambda pattern: str(pattern.pattern))


@pytest.fixture
def acme(http: httpx.Client, place: Place) -> V1:
    return V1.of(http, new_client(place, "acme"))


def url(pattern: URLPattern) -> str:
    path = str(pattern.pattern)
    while "<" in path:
        path = path[: path.index("<")] + NO_ID + path[path.index(">") + 1 :]
    return path


def allowed(pattern: URLPattern) -> set[str]:
    view = pattern.callback.view_class  # type: ignore[attr-defined]
    return {method for method in METHODS if hasattr(view, method.lower()) and method != "OPTIONS"}


@of_every_path
def test_wrong_keys_are_refused(acme: V1, pattern: URLPattern) -> None:
    for key in WRONG_KEYS:
        answered = acme.by(key).call(sorted(allowed(pattern))[0], url(pattern))
        check_refusal(answered, 401, "unauthorized")
        assert answered.headers["WWW-Authenticate"] == "Bearer"


@of_every_path
def test_scopes_are_asked_for(acme: V1, pattern: URLPattern) -> None:
    for method in allowed(pattern):
        other = "run" if method == "GET" or hasattr(pattern.callback.view_class, "scope") else "read"
        key = acme.client.new_key(scopes=[other])
        acme.by(f"Bearer {key}").refused(403, "forbidden", method, url(pattern))


@of_every_path
def test_other_methods_are_refused(acme: V1, pattern: URLPattern) -> None:
    all_scopes = acme.by(f"Bearer {acme.client.new_key(scopes=ApiKey.Scope.values)}")
    for method in METHODS - allowed(pattern) - {"OPTIONS"}:
        answered = all_scopes.call(method, url(pattern))
        check_refusal(answered, 405, "method_not_allowed")
        assert set(answered.headers["Allow"].split(", ")) - {"OPTIONS", "HEAD"} == allowed(pattern)


@pytest.mark.parametrize("path", ["", "nothing", "assets/", "assets/x/y", f"assets/{NO_ID}/", "assets%00", "%0A"])
def test_an_unknown_path_is_a_json_404(acme: V1, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert "There is nothing at /api/v1/" in acme.refused(404, "not_found", method, path)


def test_a_body_that_is_no_json_is_refused(acme: V1) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"\xff", b'{"bytes": NaN}', b"[" * 100_000):
        acme.refused(400, "invalid_body", "POST", "assets", content=body, headers=headers)


@pytest.mark.parametrize("kind", ["png", "image/", "/png", "a b/c", "text/ü", "*/*"])
def test_a_content_type_that_is_none_is_refused(acme: V1, kind: str) -> None:
    said = acme.refused(
        415, "unsupported_media_type", "POST", "assets", content=b"x", headers={"Content-Type": kind.encode()}
    )
    assert (
        "is not taken here. Its Content-Type must be application/json or multipart/form-data or the file's own" in said
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""])
def test_a_body_that_should_be_json_and_is_of_another_type_is_refused(acme: V1, kind: str) -> None:
    said = acme.refused(
        415,
        "unsupported_media_type",
        "POST",
        f"assets/{NO_ID}/complete",
        content=b"{}",
        headers={"Content-Type": kind} if kind else {},
    )
    assert (repr(kind) if kind else "without a Content-Type") in said
    assert "must be application/json." in said
    acme.refused(404, "not_found", "POST", f"assets/{NO_ID}/complete", headers={"Content-Type": kind} if kind else {})
    acme.refused(404, "not_found", "POST", f"assets/{NO_ID}/complete", json={})


def test_whatever_is_accepted_errors_are_json(acme: V1) -> None:
    acme.refused(404, "not_found", "GET", f"assets/{NO_ID}", headers={"Accept": "text/html"})


def test_an_odd_cursor_or_filter_is_refused(acme: V1) -> None:
    no_uuid = b64encode(b"p=x").decode()
    for query in ("cursor=x", f"cursor={no_uuid}", "source=x", "source=%00"):
        answered = acme.call("GET", f"assets?{query}")
        check_refusal(answered, answered.status_code)
        assert answered.status_code in (400, 404)
