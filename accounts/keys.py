"""API keys and worker keys: `hth_<prefix>_<secret>` and `hwk_<prefix>_<secret>`; prefix and SHA-256 are stored."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

CLIENT, WORKER = "hth", "hwk"
_FORM = re.compile(r"(hth|hwk)_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key just made. `text` is shown this once and kept nowhere."""

    text: str
    prefix: str
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class GivenKey:
    """The key a request carries; `kind` is "" when there is none or it cannot be one."""

    kind: str = ""
    prefix: str = ""
    digest: bytes = b""

    def matches(self, digest: bytes) -> bool:
        return hmac.compare_digest(self.digest, bytes(digest))


def new_key(kind: str) -> NewKey:
    prefix = secrets.token_hex(6)
    text = f"{kind}_{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(text=text, prefix=prefix, digest=digest(text))


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def given_key(authorization: str | None) -> GivenKey:
    """Read an Authorization header: `Bearer <key>` as clients send it, or the bare key as workers do."""
    text = (authorization or "").strip()
    if text[:7].lower() == "bearer ":
        text = text[7:].strip()
    form = _FORM.fullmatch(text)
    return GivenKey(kind=form[1], prefix=form[2], digest=digest(text)) if form else GivenKey()
