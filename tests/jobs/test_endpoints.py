"""The operator's hand on an endpoint: by command, and what claims make of it."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.errors import Refused
from jobs.depth import Holder
from jobs.endpoints import set_mode
from jobs.models import Endpoint, Overflow
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


def test_a_budget_of_the_month_is_set_and_lifted(acme: Client) -> None:
    name = acme.place.name
    assert said(name, "--cost-a-month", "12.50") == f"{name} is open.\nIts cost a month: 12.50.\n"
    assert Endpoint.objects.get(name=name).cost_a_month == Decimal("12.50")
    assert said(name, "--cost-a-month", "none", "--gpu-seconds-a-month", "3600").endswith(
        "gpu-seconds a month: 3600.\n"
    )
    assert said(name, "--gpu-seconds-a-month", "none") == f"{name} is open.\n"
    for wrong in ("much", "-1", "1.5", "nan"):
        with pytest.raises(CommandError):
            said(name, "--gpu-seconds-a-month", wrong)
    assert Endpoint.objects.get(name=name).gpu_s_a_month is None


def ways(*argv: str) -> str:
    out = StringIO()
    call_command("overflow", *argv, stdout=out)
    return out.getvalue()


def test_where_jobs_overflow_to_is_said_changed_and_taken_away() -> None:
    own, other, third = (new_place().name for _ in range(3))
    assert ways(own) == f"{own} overflows nowhere.\n"
    said_of_it = f"1. {own} to {other}: when it is unhealthy, when it is throttled, when its budget is used up"
    assert ways(own, "--to", other, "--wait", "60") == f"{said_of_it}, what waited for 60 s\n"
    never = ("--no-unhealthy", "--no-throttled", "--no-over-budget")
    assert ways(own, "--to", third, "--position", "0", *never, "--share", "5").splitlines() == [
        f"0. {own} to {third}: 5 of 100 jobs in any case",
        f"{said_of_it}, what waited for 60 s",
    ]
    assert ways(own, "--to", other, "--wait", "none").splitlines()[1] == said_of_it
    assert ways(own, "--to", third, "--drop") == f"{said_of_it}\n"
    ways(own, "--to", other, "--drop")


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["no-such"], "There is no endpoint 'no-such'."),
        (["{own}", "--to", "no-such"], "There is no endpoint 'no-such'."),
        (["{own}", "--to", "{own}"], "cannot overflow to itself"),
        (["{own}", "--to", "{raw}"], "only raw can stand for raw"),
        (["{own}", "--to", "{other}", "--share", "101"], "0 to 100 %"),
        (["{own}", "--to", "{other}", "--wait", "soon"], "a number of seconds or none, not 'soon'"),
        (["{own}", "--wait", "5"], "by --to"),
        (["{own}", "--to", "{other}", "--drop"], "does not overflow to"),
    ],
)
def test_an_overflow_that_cannot_be_is_refused(argv: list[str], fault: str) -> None:
    names = {"own": new_place("hearth").name, "other": new_place("hearth").name, "raw": new_place().name}
    with pytest.raises(CommandError, match=fault):
        ways(*(each.format(**names) for each in argv))
    assert not Overflow.objects.filter(endpoint__name=names["own"]).exists()


def test_no_more_than_all_jobs_are_shared_out() -> None:
    own, other, third = (new_place().name for _ in range(3))
    ways(own, "--to", other, "--share", "60")
    with pytest.raises(CommandError, match="60 of 100 jobs already"):
        ways(own, "--to", third, "--share", "41")
    ways(own, "--to", other, "--drop")
