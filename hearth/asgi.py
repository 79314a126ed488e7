"""The web process: Starlette outside (wire protocols, waiting), Django inside as WSGI (admin), one pool of threads.

`python -m hearth.asgi` serves HOST:PORT, or the listening socket that HEARTH_LISTEN_FD names: whoever owns that socket
keeps connections waiting, instead of refused, while this process is restarted (rules.md 18).
"""

import gc
import os
import re
import resource
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hearth.settings")
django.setup()

import uvicorn
from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from accounts.models import uuid7
from accounts.rotation import keys_fault
from hearth.health import healthz
from jobs import catalogue, history
from jobs.live import Hub
from jobs.wire import again, export, fleet, hooks, news, runpod
from jobs.wire.answers import json_app
from jobs.wire.call import POOL, verb
from jobs.wire.rates import ApiLimited
from jobs.wire.whole import AtMost, WholeBody


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    process = uuid7()

    def beat() -> None:
        history.beat(process)
        catalogue.refresh()

    async with Hub(lambda keys: verb(history.have_news, keys), lambda: verb(beat)).running():
        yield


FORM_BYTES = 64 * 1024  # of a form around an uploaded file


S3_WAIT_S = 10


def django_app() -> Any:
    wsgi = WSGIMiddleware(cast(Any, get_wsgi_application()))
    wsgi.executor = POOL  # every thread that runs Django or a verb is of the one pool
    few, some = max(1, settings.WEB_THREADS // 4), max(1, settings.WEB_THREADS // 2)
    calm = AtMost(wsgi, looks_at_bucket, few, S3_WAIT_S, "Other buckets have kept their S3 busy")
    bounded = AtMost(calm, speaks_to_s3, some, S3_WAIT_S)
    return ApiLimited(WholeBody(bounded, settings.UPLOAD_MAX_BYTES + FORM_BYTES))


def speaks_to_s3(scope: Mapping[str, Any]) -> bool:
    """Whether Django, in a thread of the pool, will."""
    return scope["method"] == "POST" and str(scope["path"]).startswith("/api/v1/assets")


def looks_at_bucket(scope: Mapping[str, Any]) -> bool:
    """Whether Django verifies a bucket, which a tenant's S3 may draw out, or looks whether anything names it."""
    path, changes = str(scope["path"]), scope["method"] in ("POST", "DELETE")
    if path.startswith("/admin/storage/bucket/"):
        return path.endswith("/delete/") or (changes and path.endswith("/verify_now/"))
    return changes and path.startswith("/api/v1/buckets/")


class Prefix(Mount):
    """A Mount that takes every path under it, one with a newline too."""

    def __init__(self, path: str, app: Any) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


app = Starlette(
    routes=[
        Prefix("/v2", json_app([*runpod.ROUTES, *fleet.ROUTES])),
        Prefix("/hooks", json_app([*hooks.ROUTES])),
        Route(news.PATH, json_app([*news.ROUTES])),  # these paths alone: what else is under /api/v1 is Django's
        Route(again.PATH, json_app([*again.ROUTES])),
        Route(export.PATH, json_app([*export.ROUTES])),
        Route(news.ADMIN_PATH, json_app([*news.ADMIN_ROUTES])),  # the same of /admin
        Route(export.ADMIN_PATH, json_app([*export.ADMIN_ROUTES])),
        Route("/healthz", healthz, methods=["GET"]),
        Prefix("/", django_app()),
    ],
    lifespan=lifespan,
)


class Server(uvicorn.Server):
    """On SIGTERM the waiting requests are answered at once; then uvicorn's graceful shutdown has an end to wait for."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if Hub.current is not None:
            Hub.current.drain()
        super().handle_exit(sig, frame)


def listening_socket() -> socket.socket | None:
    fd = os.environ.get("HEARTH_LISTEN_FD")
    return socket.socket(fileno=int(fd)) if fd else None


MANY_FILES = 65_536


def open_many_files() -> None:
    """Each client that waits is an open file. Most systems allow 1,024 at first, and many more to who asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def refuse_wrong_keys() -> None:
    """Before anything is served: a web with the wrong keys would fail each job that has a bucket of its own."""
    if fault := keys_fault():
        sys.exit(f"hearth: {fault}")
    connection.close()  # of this thread, which runs no verb


def main() -> None:
    open_many_files()
    refuse_wrong_keys()
    import boto3  # noqa: F401  now, rather than in the first answer that has a file

    gc.freeze()  # what is loaded by now stays: going through it again and again took a tenth of a busy process
    config = uvicorn.Config(
        app,
        host=settings.HOST,
        port=settings.PORT,
        backlog=2048,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.WEB_GRACE_S,
        timeout_keep_alive=30,
    )
    given = listening_socket()
    Server(config).run(sockets=[given] if given else None)


if __name__ == "__main__":
    main()
