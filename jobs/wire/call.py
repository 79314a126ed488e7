"""verb(): the only way from async code to a verb, in the one bounded pool whose threads keep their connection."""

import asyncio
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from accounts.errors import database_away

P = ParamSpec("P")
T = TypeVar("T")
POOL = ThreadPoolExecutor(max_workers=settings.WEB_THREADS, thread_name_prefix="verb")


async def verb(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a verb. Raises Refused(503) when the database is away; whether the verb took effect is then unknown."""
    return await asyncio.get_running_loop().run_in_executor(POOL, lambda: _call(fn, *args, **kwargs))


def _call(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    _drop_dead_connection()
    try:
        return fn(*args, **kwargs)
    except (OperationalError, InterfaceError) as error:
        close_old_connections()
        raise database_away() from error


def _drop_dead_connection() -> None:
    """Close this thread's connection if the server has hung up on it, before any statement is sent over it.

    An idle connection has nothing to read; what a server says unasked is its good-bye. So the round trip of Django's
    health check is only made when there is something to read.
    """
    if connection.connection is None:
        return
    if connection.errors_occurred or connection.connection.closed or _readable(connection.connection.fileno()):
        connection.errors_occurred = True
        close_old_connections()


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
