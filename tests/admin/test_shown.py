import json

import pytest

from jobs.admin.shown import MASK, SHOWN_CHARS, duration, pretty
from jobs.models.webhook import address


def shown(value: object) -> str:
    raw = json.dumps(value).encode()
    return pretty(raw, len(raw))["text"]


def test_json_is_indented_and_its_letters_are_readable() -> None:
    assert shown({"prompt": "größer"}) == '{\n  "prompt": "größer"\n}'


@pytest.mark.parametrize(
    "name",
    [
        "accessSecret",
        "secretAccessKey",
        "password",
        "api_key",
        "apiKey",
        "auth_token_comfy_org",
        "token",
        "Authorization",
    ],
)
def test_what_its_name_calls_secret_is_masked_at_any_depth(name: str) -> None:
    assert "S3" not in shown({"a": [{name: "S3"}]})
    assert "S3" not in shown({name: {"inner": ["S3"]}})
    assert "S3" not in shown({"workflow": json.dumps({"1": {name: "S3"}})})


def test_numbers_and_common_node_inputs_are_not_masked() -> None:
    text = shown({"max_tokens": 100, "token_normalization": "none", "seed": 5})
    assert MASK not in text


def test_long_strings_and_long_texts_are_cut() -> None:
    assert "(50,000 characters)" in shown({"image": "A" * 50_000})
    cut = pretty(json.dumps(["x" * 900] * 100).encode(), 90_000)
    assert len(cut["text"]) == SHOWN_CHARS + 1
    assert "the first 20,000 characters" in cut["note"]


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_said(raw: bytes) -> None:
    assert "not JSON" in pretty(raw, len(raw))["note"]


def test_lone_surrogates_and_nan_can_be_encoded_for_the_page() -> None:
    assert pretty(b'["\\ud800", NaN]', 15)["text"].encode()


def test_a_webhooks_query_is_masked() -> None:
    assert address("https://a:b@example.com/hook?token=abc&x=#f") == f"https://example.com/hook?token={MASK}&x={MASK}"
    assert address("") == ""


@pytest.mark.parametrize(
    ("ms", "text"),
    [(None, "-"), (0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (65_000, "1 min 05 s"), (7_500_000, "2 h 05 min")],
)
def test_durations_are_short(ms: int | None, text: str) -> None:
    assert duration(ms).replace("\u00a0", " ") == text
