"""JSON answers, and the one shape of errors for everything mounted beside Django (design.md, Errors)."""

import logging
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from accounts.errors import Refused
from accounts.keys import GivenKey, given_key
from jobs import absent
from jobs.ids import JobId, parse_job_id

log = logging.getLogger("hearth.web")


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, "application/json")


def key_of(request: Request) -> GivenKey:
    return given_key(request.headers.get("authorization"))


def endpoint_of(request: Request) -> str:
    """The endpoint's name as it was asked for; NUL, which no name has, PostgreSQL would not even look for."""
    name: str = request.path_params["endpoint"]
    return name.replace("\0", "\ufffd")


def job_of(request: Request, where: str = " on this endpoint") -> JobId:
    """The job that the path names. Raises Refused(404) for what can be none."""
    text = request.path_params["job"]
    job = parse_job_id(text)
    if job is None:
        raise absent.no_job(text, where)
    return job


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(error.body(), error.status, error.all_headers())


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        body = {"error": f"{request.method} is not allowed here.", "code": "method_not_allowed"}
    elif error.status_code == 404:
        body = {"error": f"There is nothing at {request.url.path}.", "code": "not_found"}
    else:
        body = {"error": error.detail, "code": "bad_request"}
    return answer(body, error.status_code, dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, _route(request), exc_info=error)
    return answer({"error": "Hearth failed on this request; it is logged.", "code": "internal"}, 500)


def _route(request: Request) -> str:
    """The route's template and what stood in it, but for a token."""
    endpoint = request.scope.get("endpoint")
    routes = (route for route in request.app.routes if isinstance(route, Route))
    template = next((route.path for route in routes if route.endpoint is endpoint), "?")
    given = {name: value for name, value in request.path_params.items() if name not in ("token", "path")}
    return f"{request.scope.get('root_path', '')}{template} {given}"


def json_app(routes: list[BaseRoute]) -> Starlette:
    """A sub-app whose every answer is JSON, its 404, 405 and 500 too."""
    app = Starlette(
        routes=routes, exception_handlers={Refused: refused, HTTPException: _http, 500: _broken, Exception: _broken}
    )
    app.router.redirect_slashes = False
    return app
