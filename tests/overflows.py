"""Overflow in tests: its step looks at all endpoints of the database, so each test cleans up behind itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from accounts import sql
from accounts.models import uuid7
from jobs import history
from jobs.models import Overflow
from jobs.overflow import overflow


@contextmanager
def swept() -> Iterator[None]:
    """Web has been up for a while; afterwards nothing overflows, and whatever still waits is where it was addressed."""
    process = uuid7()
    history.beat(process)
    sql.run("UPDATE jobs_webprocess SET up_since = up_since - interval '1 hour' WHERE id = %s", [process])
    yield
    Overflow.objects.all().delete()
    overflow()
    sql.run("DELETE FROM jobs_webprocess WHERE id = %s", [process])
