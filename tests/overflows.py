"""Overflow in tests: its step looks at all endpoints of the database, so each test cleans up behind itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from accounts import sql
from accounts.models import uuid7
from jobs import history
from jobs.models import Overflow
from jobs.overflow import overflow
from tests.cast import Place


def live(place: Place, workers: int = 1) -> None:
    """It has so many workers, who go on polling."""
    for n in range(workers):
        place.worker(f"w{n}").poll()
    _seen(place, "+ interval '1 hour'")


def die(place: Place) -> None:
    """None has polled for a minute."""
    _seen(place, "- interval '1 minute'")


def _seen(place: Place, when: str) -> None:
    at = f"clock_timestamp() {when}"
    sql.run(
        f"UPDATE jobs_worker SET take_at = {at}, ping_at = {at}, stop_at = {at} WHERE endpoint_id = %s",
        [place.endpoint.pk],
    )


@contextmanager
def swept() -> Iterator[None]:
    """Web has been up for a while, and stays so however long the test takes. Before and afterwards nothing overflows,
    and whatever still waits is where it was addressed."""
    process, hour = uuid7(), "interval '1 hour'"
    history.beat(process)
    sql.run(
        f"UPDATE jobs_webprocess SET up_since = up_since - {hour}, seen_at = seen_at + {hour} WHERE id = %s", [process]
    )
    _come_home()
    yield
    _come_home()
    sql.run("DELETE FROM jobs_webprocess WHERE id = %s", [process])


def _come_home() -> None:
    Overflow.objects.all().delete()
    while overflow():
        pass
