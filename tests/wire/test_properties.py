"""What holds for any bytes and any JSON: bodies are split without a change, and refused only by 400."""

import json
from typing import Any

import orjson
import pytest
from django.conf import settings
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from accounts.errors import Refused
from jobs.wire.bodies import Parts, Unreadable, parse_request, split_object
from jobs.wire.submission import EXECUTION_TIMEOUT_MS, TTL_MS, Submission, parse_submission
from tests.cast import WORKFLOW
from worker.wire import check_url

thorough = hypothesis(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(max_size=8)
numbers = st.integers(-(2**100), 2**100) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda some: st.lists(some, max_size=3) | st.dictionaries(texts, some, max_size=3), max_leaves=6
)
objects = st.dictionaries(texts, values, max_size=4)
SECRET = "hunter2-hunter2-hunter2"
BUCKET = {"accessId": "A", "accessSecret": SECRET, "bucketName": "b", "endpointUrl": "https://s3.example.com"}
FIELDS = ("input", "policy", "webhook", "s3Config")
POLICY_NAMES = ("executionTimeout", "executiontimeout", "EXECUTIONTIMEOUT", "ttl", "TTL", "lowPriority", "lowpriority")
TOKENS = (
    *("{", "}", "[", "]", ":", ",", " ", "\n", '"', "\\", '"a"', '"a":', '"b": 1', "{}", "[]", "0", "-", "01", "1e9"),
    *("1e999", "9" * 4301, "NaN", "Infinity", "-Infinity", "null", "true", '"\\ud800"', '"\\u0000"', "\0", "\ufeff"),
    *("'a'", "//", "\t", "é", "😀"),
)


@st.composite
def written(draw: st.DrawFn, given: st.SearchStrategy[Any] = objects) -> tuple[Any, bytes]:
    """A value and one of the ways to write it as JSON."""
    value = draw(given)
    space = draw(st.sampled_from(["", " ", "\n\t\r "]))
    separators = (f"{space},{space}", f"{space}:{space}")
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=separators)
    return value, (space + text + space).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with some of its bytes cut out and others put in."""
    body = draw(written(st.fixed_dictionaries({"input": values, "policy": values})))[1]
    at = draw(st.integers(0, len(body)))
    end = draw(st.integers(at, min(len(body), at + 5)))
    return body[:at] + draw(st.binary(max_size=5)) + body[end:]


def parse(body: bytes) -> Submission | None:
    """None where it is refused; any other exception fails the test."""
    try:
        return parse_submission(parse_request(body), sync=False)
    except Refused as error:
        refused = error
    assert (refused.status, bool(refused.error)) == (400, True)
    return None


def joined(parts: Parts) -> bytes:
    return b"{" + b",".join(json.dumps(name).encode() + b":" + part.raw for name, part in parts.values.items()) + b"}"


@thorough
@given(written())
@example(({"a": 2**70 + 1}, b'{"a": 1180591620717411303425}'))
def test_parts_are_the_bytes_that_came_and_together_the_same_object(pair: tuple[Any, bytes]) -> None:
    value, body = pair
    parts = parse_request(body)
    assert json.loads(joined(parts)) == value
    assert {name: part.value for name, part in parts.values.items()} == value
    assert all(part.raw in body and json.loads(part.raw) == part.value for part in parts.values.values())
    assert not parts.mended


@thorough
@given(st.binary() | damaged())
@example(b"")
@example(b'{"input": ' + b"[" * 100_000)
@example(b'{"input": ' + b'{"a":' * 990 + b"1" + b"}" * 990 + b"}")
def test_any_bytes_are_taken_or_refused_by_400(body: bytes) -> None:
    parse(body)


@thorough
@given(st.lists(st.sampled_from(TOKENS), max_size=12).map("".join).map(lambda text: "{" + text + "}"))
@example("{[]:1}")
@example("{NaN:1}")
@example('{"a":1,}')
@example('{"a":' + "9" * 5000 + "}")
def test_an_object_is_split_exactly_if_it_is_one(text: str) -> None:
    """Python's own reader is the judge, which also takes NaN and Infinity: those become null."""
    try:
        expected = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        with pytest.raises(Unreadable):
            split_object(text.encode())
        return
    parts = split_object(text.encode())
    assert {name: part.value for name, part in parts.values.items()} == expected
    assert json.loads(joined(parts)) == expected
    assert parts.mended == ("NaN" in text.replace('"NaN"', "") or "Infinity" in text)


@thorough
@given(written(st.dictionaries(st.sampled_from((*FIELDS, "more")), values)))
def test_a_request_of_any_values_is_taken_or_refused_by_400(pair: tuple[Any, bytes]) -> None:
    value, body = pair
    submission = parse(body)
    if submission is None:
        return
    assert json.loads(submission.input) == value["input"]
    assert EXECUTION_TIMEOUT_MS[0] <= submission.execution_timeout_ms <= EXECUTION_TIMEOUT_MS[1]
    assert TTL_MS[0] <= submission.ttl_ms <= TTL_MS[1]
    assert not submission.webhook or check_url(submission.webhook, settings.URL_ALLOW)
    assert submission.workflow_fault, "no random value is a workflow"


@thorough
@given(st.dictionaries(st.sampled_from(POLICY_NAMES), values | st.integers(0, 10**9)))
def test_a_policy_of_any_values_is_within_its_bounds_or_refused(policy: dict[str, Any]) -> None:
    submission = parse(json.dumps({"input": 1, "policy": policy}).encode())
    if submission is not None:
        assert type(submission.execution_timeout_ms) is type(submission.ttl_ms) is int
        assert EXECUTION_TIMEOUT_MS[0] <= submission.execution_timeout_ms <= EXECUTION_TIMEOUT_MS[1]
        assert TTL_MS[0] <= submission.ttl_ms <= TTL_MS[1]
        assert submission.priority in (0, -1)
        assert json.loads(submission.policy or b"") == policy


@thorough
@given(st.text() | st.text("https:/.[]@#?%0123456789abcx-\\", max_size=40).map("https://{}".format))
@example("https://[::1%25eth0]/")
@example("https://\u0661.\u0660.0.1/")
@example("https://xn--/")
def test_any_text_is_a_webhook_or_refused(webhook: str) -> None:
    submission = parse(json.dumps({"input": 1, "webhook": webhook}).encode())
    assert submission is None or submission.webhook == webhook


@st.composite
def escaped(draw: st.DrawFn, name: str) -> str:
    """A name as a JSON string, some of its characters written as escapes."""
    return '"' + "".join(f"\\u{ord(char):04x}" if draw(st.booleans()) else char for char in name) + '"'


@thorough
@given(objects, st.data())
def test_a_secret_is_never_in_what_a_workflows_dialect_keeps(more: dict[str, Any], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["tobucket", "s3Config"]).flatmap(escaped), min_size=1, max_size=3))
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in (more | {"workflow": WORKFLOW}).items()]
    fields += [f"{name}: {json.dumps(BUCKET)}" for name in names]
    given_input = "{" + ", ".join(data.draw(st.permutations(fields))) + "}"
    submission = parse(f'{{"input": {given_input}}}'.encode())
    assert submission is not None
    assert SECRET.encode() not in submission.workflow_input
    kept = {name: value for name, value in more.items() if name not in ("tobucket", "s3Config", "_hearth")}
    assert json.loads(submission.workflow_input) == kept | {"workflow": WORKFLOW}
    assert submission.request_bucket is not None
    assert orjson.loads(submission.request_bucket.unseal()) == BUCKET
