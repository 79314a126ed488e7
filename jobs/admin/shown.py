"""How jobs' JSON and times are written on a page: short, and without secrets, those in URLs included."""

import json
import re
from typing import Any

from django.template.defaultfilters import filesizeformat

READ_BYTES = 32 * 1024**2  # what is larger is not parsed here
SHOWN_CHARS = 20_000
STRING_CHARS = 1_000
MASK = "…"
_SECRET = re.compile(
    r"secret|passw|credential|authori[sz]ation|cookie|(api|access|private)_?key|(auth|access|bearer|refresh|hf|civitai)_?token"
    r"|^token$",
    re.IGNORECASE,
)
# What signs a URL, or is a way in by itself: AWS's, Google's, Azure's and CloudFront's queries, tokens, a password.
_SIGNED = re.compile(
    r"([?&](?:[\w-]*(?:signature|credential|token|secret|passw\w*|api-?_?key)|AWSAccessKeyId|sig|key)=)[^&\s\"'<>#]+"
    r"|(?<=://)[^/\s\"'<>@]+(?=@)",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(hth|hwk|rpa|whsec)_[\w+/=-]{12,}|\b(Bearer) [\w.~+/=-]{8,}", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Without what signs the URLs in it, and without keys: whoever has a URL or a key as it was may do as its owner."""
    text = _SIGNED.sub(lambda found: f"{found[1] or ''}{MASK}", text)
    return _KEY.sub(lambda found: f"{found[1]}_{MASK}" if found[1] else f"{found[2]} {MASK}", text)


def pretty(raw: bytes | None, size: int | None) -> dict[str, str]:
    """`text`: the JSON indented, long strings cut, then all of it; `note`: its size and what was cut.

    Values whose names sound secret are masked, and so is what signs a URL: a job of dialect raw keeps its input as it
    came (rules.md 22).
    """
    note = str(filesizeformat(size or 0))
    if raw is None:
        return {"text": "", "note": f"{note}: too large to show here"}
    try:
        text = json.dumps(tidy(json.loads(raw)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return {"text": "", "note": f"{note}: not JSON, or nested too deeply to show"}
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates are legal in JSON
    if len(text) > SHOWN_CHARS:
        return {"text": text[:SHOWN_CHARS] + MASK, "note": f"{note}, the first {SHOWN_CHARS:,} characters"}
    return {"text": text, "note": note}


def tidy(value: Any, most: int = STRING_CHARS, hidden: bool = False) -> Any:
    """Without secrets, and without what is more than `most` characters of a string."""
    if isinstance(value, dict):
        return {key: tidy(inner, most, hidden or bool(_SECRET.search(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [tidy(inner, most, hidden) for inner in value]
    return _string(value, most, hidden) if isinstance(value, str) else value


def _string(text: str, most: int, hidden: bool) -> str:
    if hidden and text:
        return MASK
    if text[:1] in ("{", "["):  # a workflow may come as a string of JSON
        try:
            text = json.dumps(tidy(json.loads(text), most), ensure_ascii=False)
        except ValueError:
            pass
    if len(text) > most:
        return f"{without_secrets(text[:most])}… ({len(text):,} characters)"
    return without_secrets(text)


def duration(ms: float | None) -> str:
    """Two figures that matter, not broken over lines."""
    return "-" if ms is None else _duration(ms).replace(" ", "\u00a0")


def _duration(ms: float) -> str:
    seconds = ms / 1000
    if seconds < 1:
        return f"{ms:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
