"""Usage as the operator sees it: a list with a chart, and a month as CSV, from the admin and by command."""

import csv
import json
import re
from datetime import date, timedelta
from decimal import Decimal
from html import unescape
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client as Browser
from django.urls import reverse

from accounts.models import ApiKey
from jobs.admin.usage import COLOURS, chart, today
from jobs.models import Usage
from jobs.report import month_after, month_before
from tests.cast import Client, new_client, new_place

OCTOBER = date(2026, 10, 1)
FULL_WIDTH = "\uff1d\uff0b\uff0d\uff20"  # = + - @


@pytest.fixture
def acme() -> Client:
    return new_client(new_place(), "acme")


def use(client: Client, day: date, **fields: Any) -> Usage:
    key = ApiKey.all_tenants.filter(tenant=client.tenant).first()
    given = {"gpu_ms": 1_500, "cost": Decimal("0.000750"), "completed": 1, "bytes_in": 10, "api_key": key}
    given |= {"endpoint": client.place.endpoint} | fields
    return Usage.all_tenants.create(tenant=client.tenant, day=day, **given)


def printed(*argv: str) -> list[dict[str, str]]:
    out = StringIO(newline="")
    call_command("usage_report", *argv, stdout=out)
    return list(csv.DictReader(StringIO(out.getvalue(), newline="")))


def test_a_months_lines_are_by_tenant_endpoint_and_key(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CURRENCY", "EUR")
    for day in (date(2026, 9, 30), date(2026, 10, 1), date(2026, 10, 31), date(2026, 11, 1)):
        use(acme, day)
    use(acme, date(2026, 10, 2), api_key=None, gpu_ms=7)
    known, unknown = sorted(
        printed("--month", "2026-10", "--tenant", acme.tenant.name), key=lambda line: not line["api_key"]
    )
    assert (known["tenant"], known["endpoint"], known["month"]) == (acme.tenant.name, acme.place.name, "2026-10")
    assert known["api_key"].startswith("hth_")
    assert (known["gpu_seconds"], known["cost"], known["currency"]) == ("3", "0.001500", "EUR")
    assert (known["completed"], known["bytes_in"]) == ("2", "20")
    assert (unknown["api_key"], unknown["gpu_seconds"]) == ("", "0.007")


def test_a_day_has_a_line_if_asked_for(acme: Client) -> None:
    use(acme, date(2026, 10, 1))
    use(acme, date(2026, 10, 2))
    lines = printed("--month", "2026-10", "--tenant", acme.tenant.name, "--daily")
    assert [line["day"] for line in lines] == ["2026-10-01", "2026-10-02"]


def test_without_a_month_it_is_the_last_whole_one(acme: Client) -> None:
    use(acme, month_before(today()))
    use(acme, today())
    (line,) = printed("--tenant", acme.tenant.name)
    assert line["month"] == f"{month_before(today()):%Y-%m}"


@pytest.mark.parametrize("argv", [("--month", "2026-13"), ("--month", "october"), ("--tenant", "nobody-is-called-so")])
def test_what_is_not_there_is_said(argv: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match=argv[1]):
        printed(*argv)


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", *FULL_WIDTH])
def test_a_name_is_no_formula(acme: Client, first: str) -> None:
    ApiKey.all_tenants.filter(tenant=acme.tenant).update(name=f"{first}1+1")
    use(acme, OCTOBER)
    assert printed("--month", "2026-10", "--tenant", acme.tenant.name)[0]["api_key_name"] == f"'{first}1+1"


def test_a_name_stays_in_its_own_column_and_line(acme: Client) -> None:
    """Whatever is in it; and only its beginning makes a formula."""
    name = 'a "b", =1+1;\r\n=2\t' + FULL_WIDTH
    ApiKey.all_tenants.filter(tenant=acme.tenant).update(name=name)
    use(acme, OCTOBER)
    (line,) = printed("--month", "2026-10", "--tenant", acme.tenant.name)
    assert (line["api_key_name"], line["month"], line["gpu_seconds"]) == (name, "2026-10", "1.5")


def test_months_follow_each_other_over_the_year() -> None:
    assert month_before(date(2026, 1, 31)) == date(2025, 12, 1)
    assert month_after(date(2025, 12, 1)) == date(2026, 1, 1)
    assert month_before(date(2026, 12, 5)) == date(2026, 11, 1)
    assert month_after(date(2026, 11, 1)) == date(2026, 12, 1)


def test_the_list_has_a_chart_of_what_is_listed(browser: Browser, acme: Client) -> None:
    globex = new_client(new_place(), "globex")
    use(acme, today(), gpu_ms=90_000)
    use(globex, today())
    url = reverse("admin:jobs_usage_changelist")
    page = browser.get(url, {"tenant__id__exact": acme.tenant.pk}).content.decode()
    found = re.search(r'data-value="([^"]*)"', page)
    assert found
    data = json.loads(unescape(found[1]))
    assert [(one["label"], one["data"][-1]) for one in data["datasets"]] == [(acme.place.name, 90)]
    assert len(data["labels"]) == 31
    assert "1\u00a0min\u00a030\u00a0s" in page


def test_a_chart_has_a_colour_for_each_and_puts_the_smallest_together(acme: Client) -> None:
    places = [new_place().endpoint for _ in range(len(COLOURS) + 2)]
    for number, endpoint in enumerate(places, 1):
        for day in (today(), today() - timedelta(days=40)):
            use(acme, day, endpoint=endpoint, gpu_ms=number * 3_600_000)
    drawn = chart(Usage.objects.of(acme.tenant))
    sets = json.loads(drawn["data"])["datasets"]
    assert [one["label"] for one in sets] == [*sorted(endpoint.name for endpoint in places[3:]), "3 others"]
    assert len({one["backgroundColor"] for one in sets}) == len(sets) == len(COLOURS)
    assert (drawn["unit"], sets[-1]["data"][-1]) == ("hours", 1 + 2 + 3)
    assert drawn["totals"]["3 others"] == "6\u00a0h\u00a000\u00a0min"


def test_nothing_used_is_no_chart(acme: Client) -> None:
    assert chart(Usage.objects.of(acme.tenant))["totals"] == {}


def test_the_tenants_page_has_its_own_chart_and_csv(browser: Browser, acme: Client) -> None:
    use(acme, month_before(today()))
    use(acme, today())
    assert "usage-chart" in browser.get(reverse("admin:accounts_tenant_change", args=[acme.tenant.pk])).content.decode()
    answered = browser.get(reverse("admin:accounts_tenant_last_month", args=[acme.tenant.pk]))
    assert answered["Content-Type"] == "text/csv; charset=utf-8"
    assert f"usage-{acme.tenant.name}-{month_before(today()):%Y-%m}.csv" in answered["Content-Disposition"]
    (line,) = csv.DictReader(StringIO(answered.content.decode()))
    assert line["tenant"] == acme.tenant.name


def test_every_tenants_csv_is_at_the_list(browser: Browser, acme: Client) -> None:
    use(acme, today())
    answered = browser.get(reverse("admin:jobs_usage_this_month"))
    tenants = {line["tenant"] for line in csv.DictReader(StringIO(answered.content.decode()))}
    assert acme.tenant.name in tenants


def test_usage_is_not_written_by_hand(browser: Browser, acme: Client) -> None:
    use(acme, today())
    assert browser.get(reverse("admin:jobs_usage_add")).status_code == 403
