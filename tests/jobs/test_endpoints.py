"""The operator's hand on an endpoint: by command, and what claims make of it."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.errors import Refused
from jobs.depth import Holder
from jobs.endpoints import set_mode
from jobs.models import Endpoint
from jobs.queue import claim
from tests.cast import Client, new_place


def said(*argv: str) -> str:
    out = StringIO()
    call_command("endpoint", *argv, stdout=out)
    return out.getvalue()


def test_a_paused_endpoint_goes_on_when_it_is_opened(acme: Client) -> None:
    acme.submit()
    name, endpoint_id = acme.place.name, acme.place.endpoint.pk
    assert said(name, "paused", "--message", "New disks.").endswith("hands out none. New disks.\n")
    assert claim(endpoint_id, Holder(name="h"), 1).jobs == []
    assert said(name, "open", "--message", "") == f"{name} is open.\n"
    assert len(claim(endpoint_id, Holder(name="h"), 1).jobs) == 1


def test_a_message_stays_until_another_is_given() -> None:
    place = new_place()
    set_mode(place.name, Endpoint.Mode.PAUSED, "why")
    assert set_mode(place.name, Endpoint.Mode.CLOSED).message == "why"
    assert set_mode(place.name, Endpoint.Mode.OPEN, "").message == ""


def test_what_cannot_be_set_is_refused() -> None:
    place = new_place()
    with pytest.raises(CommandError, match="There is no endpoint 'nowhere'"):
        said("nowhere", "open")
    with pytest.raises(CommandError, match="301 characters"):
        said(place.name, "paused", "--message", "x" * 301)
    with pytest.raises(CommandError, match="invalid choice"):
        said(place.name, "asleep")
    with pytest.raises(Refused):
        set_mode("nowhere", Endpoint.Mode.OPEN)


def test_a_mode_can_be_set_while_jobs_are_claimed(acme: Client) -> None:
    for n in range(20):
        acme.submit({"n": n})

    def one(number: int) -> int:
        from django.db import connection

        try:
            if number % 2:
                set_mode(acme.place.name, Endpoint.Mode.OPEN)
                return 0
            return claimed(acme.place.endpoint.pk, f"h{number}", 2)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(16))) == 16


def claimed(endpoint_id: int, holder: str, n: int) -> int:
    """As a worker polls, again when it got nothing: all claims meet at one grant, and wait for it a second at most."""
    for _ in range(30):
        if jobs := claim(endpoint_id, Holder(name=holder), n).jobs:
            return len(jobs)
    return 0
