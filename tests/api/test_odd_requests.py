"""What no sound client sends, and any other may: it is refused, or told as it is, and never fails."""

import json
from base64 import b64encode

import pytest

from jobs.news import Done, done
from tests.api.v1 import V1
from tests.cast import attempt_of
from tests.wire.api import Api, check_refusal

SURROGATE, HUGE = '"\\ud800"', "1e999"


def cursor(at: str) -> str:
    return b64encode(f"p={at}".encode()).decode()


@pytest.fixture
def manager(v1: V1) -> V1:
    return v1.by(f"Bearer {v1.client.new_key(scopes=['run', 'read', 'manage'])}")


@pytest.mark.parametrize("path", ["assets", "jobs", "keys"])
@pytest.mark.parametrize("at", ["", "x", "1.5", "%00", "9" * 30, "-1", "é", "01234567-89ab-7def-8123-456789abcdef"])
def test_a_cursor_that_was_made_by_hand_is_refused_or_shows_a_page(manager: V1, path: str, at: str) -> None:
    answered = manager.call("GET", path, params={"cursor": cursor(at)})
    assert answered.status_code in (200, 404), answered.text


@pytest.mark.parametrize("path", ["keys/%00", "endpoints/a%00b", "jobs/%00", "assets/%00"])
def test_a_path_with_nul_leads_nowhere(manager: V1, path: str) -> None:
    manager.refused(404, "not_found", "GET", path)


@pytest.mark.parametrize("month", ["9999-12", "0001-01", "1999-12", "2026-13", "2026-1", "\u0662026-01", "x", ""])
def test_a_month_that_is_none_is_refused(v1: V1, month: str) -> None:
    v1.refused(400, "bad_request", "GET", "usage", params={"month": month})


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 65}, {"sha256": f"x{'0' * 64}"}, {"content_type": "image/png\nX-Amz-Acl: public-read"}]
)
def test_what_is_announced_has_its_form_as_a_whole(v1: V1, wrong: dict[str, str]) -> None:
    about = {"name": "a.png", "bytes": 1, "sha256": "0" * 64} | wrong
    said = v1.refused(400, "bad_request", "POST", "assets", json=about)
    assert next(iter(wrong)) in said


def test_words_of_a_request_that_no_utf_8_has_are_told_as_they_came(manager: V1) -> None:
    headers = {"Content-Type": "application/json"}
    said = manager.refused(400, "bad_request", "POST", "keys", content=b'{"scopes": ["\\ud800"]}', headers=headers)
    assert "\ud800" in said


def test_a_job_tells_whatever_json_a_worker_gave(v1: V1, acme: Api) -> None:
    job, output = acme.run(), f'{{"text": {SURROGATE}, "number": {HUGE}, "small": 1.5}}'
    gave = Done(output=output.encode(), output_value=json.loads(output))
    assert done(acme.place.endpoint.pk, "w1", attempt_of(acme.take()), gave)
    assert v1.get(f"jobs/{job}")["output"] == {"text": "\ud800", "number": None, "small": 1.5}


@pytest.mark.parametrize("given", [SURROGATE, HUGE, "NaN"])
def test_a_job_is_given_only_what_all_json_can_tell(v1: V1, acme: Api, given: str) -> None:
    answered = acme.post("run", f'{{"input": [{given}]}}'.encode())
    if answered.status_code == 200:
        assert v1.get(f"jobs/{answered.json()['id']}", input="true")["input"] == [None]
    else:
        check_refusal(answered, 400)


def test_a_year_is_told_by_four_digits(manager: V1) -> None:
    made = manager.call("POST", "keys", json={"scopes": ["read"], "expires_at": "0002-01-01T00:02:00Z"}).json()
    assert made["expires_at"] == "0002-01-01T00:02:00Z"
