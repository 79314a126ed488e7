"""Every route of the instance, read from its route tables: Starlette's outside, Django's URLconf inside.

A route that somebody adds is in here without anybody's doing; a part of the tables that cannot be read fails.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admindocs.views import simplify_regex
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from hearth.asgi import app

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class Walked:
    """A route: `path` with its parameters as `{name}`, and the methods that it answers, HEAD and OPTIONS left out."""

    path: str
    methods: tuple[str, ...]
    is_django: bool = False

    @property
    def parameters(self) -> list[str]:
        """Each with the segment before it, as in `keys/{prefix}`: what a `{name}` is depends on where it stands."""
        return re.findall(r"([^/{}]*/\{\w+\})", self.path)

    def url(self, values: dict[str, str]) -> str:
        """`values`: of each of `parameters`."""
        url = self.path
        for parameter, value in values.items():
            segment, _, _ = parameter.partition("/")
            url = url.replace(parameter, f"{segment}/{value}")
        return url

    def __str__(self) -> str:
        return self.path


def every_route() -> list[Walked]:
    return list(_of_starlette(app.routes, ""))


def _of_starlette(routes: Sequence[BaseRoute], prefix: str) -> Iterator[Walked]:
    for route in routes:
        match route:
            case Mount(app=Starlette() as inner, path=path):
                yield from _of_starlette(inner.routes, prefix + path)
            case Mount(path=""):
                yield from _of_django(get_resolver().url_patterns, "/")
            case Route(endpoint=Starlette() as inner):  # its own routes have the whole path
                yield from _of_starlette(inner.routes, prefix)
            case Route(path_format=path, methods=set() as methods):
                yield Walked(prefix + path, _answered(methods))
            case _:
                raise AssertionError(f"{route!r}: say here how the routes in it are read.")


def _of_django(patterns: Sequence[URLPattern | URLResolver], prefix: str) -> Iterator[Walked]:
    for one in patterns:
        text = str(one.pattern) if isinstance(one.pattern, RoutePattern) else simplify_regex(str(one.pattern))[1:]
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text)
        if isinstance(one, URLResolver):
            yield from _of_django(one.url_patterns, path)
        else:
            yield Walked(path, _answered(_methods_of(one.callback)), is_django=True)


def _methods_of(view: Any) -> set[str]:
    """Of a view that is a function, as the admin's are: what browsers send."""
    kind = getattr(view, "view_class", None) or getattr(view, "cls", None)
    return {method for method in METHODS if hasattr(kind, method.lower())} if kind else {"GET", "POST"}


def _answered(methods: set[str]) -> tuple[str, ...]:
    return tuple(method for method in METHODS if method in methods - {"HEAD", "OPTIONS"})
