"""Who calls the management API: an API key, with the scope that the view asks of the method."""

import re
from dataclasses import dataclass
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from accounts.keys import given_key
from accounts.models import ApiKey
from jobs.granted import READ, RUN, Holder, holder

MANAGE = ApiKey.Scope.MANAGE.value


@dataclass(frozen=True, kw_only=True)
class Caller(Holder):
    """`request.user`."""

    is_authenticated: bool = True


class ApiKeyAuthentication(BaseAuthentication):  # type: ignore[misc]
    """Raises Refused: 401, 403. A view says which scope it asks for; else to read needs `read`, all else `run`."""

    def authenticate(self, request: Request) -> tuple[Caller, None]:
        key = given_key(request.headers.get("authorization"))
        usual = READ if request.method in ("GET", "HEAD") else RUN
        scope = getattr(request.parser_context["view"], "scope", usual)
        return Caller(**vars(holder(key, scope))), None


MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}", re.ASCII)


def media_type(content_type: str | None) -> str:
    """Without its parameters."""
    return (content_type or "").partition(";")[0].strip().lower()


class AlwaysJson(BaseContentNegotiation):  # type: ignore[misc]
    """Whatever a client says that it accepts, errors among it are JSON."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """None: 415."""
        wanted = media_type(request.content_type)
        known = not wanted or MEDIA_TYPE.fullmatch(wanted)
        return next((parser for parser in parsers if known and parser.media_type in (wanted, "*/*")), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class Json(JSONRenderer):  # type: ignore[misc]
    """As it is written; but what has a lone surrogate, which any client may send, in ASCII: UTF-8 has none."""

    def render(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            rendered: bytes = super().render(*args, **kwargs)
        except UnicodeEncodeError:
            self.ensure_ascii = True
            rendered = super().render(*args, **kwargs)
        return rendered
