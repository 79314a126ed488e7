"""Looking for secrets in texts: as they are, and in the forms in which something may have written them down."""

import base64
import html
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import orjson


def forms(secret: str) -> Iterator[str]:
    """As it is; in JSON, HTML and URLs; as bytes stand in dumps; inside of a text in base64, wherever it begins."""
    yield from (secret, orjson.dumps(secret).decode()[1:-1], secret.replace("/", "\\/"), html.escape(secret))
    yield from (quote(secret, safe=""), quote(secret))
    yield secret.encode().hex()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret.encode()).decode()
        inner = whole[-(-before * 4 // 3) : len(whole) - 4]
        yield from (inner, inner.translate(URLSAFE))


URLSAFE = str.maketrans("+/", "-_")


def found(secrets: Mapping[str, str], text: str) -> list[str]:
    """The names of those that are in it."""
    return [name for name, secret in secrets.items() if any(form in text for form in set(forms(secret)))]
