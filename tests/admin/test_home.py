"""The admin's first page says what is well and what is not, with numbers that are those of the rows."""

import gzip
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import sql
from accounts.models import ApiKey, Member, Tenant, User
from jobs import figures, glance, news
from jobs.admin import verdicts
from jobs.admin.charts import DURATIONS, NUMBERS, Series, Unit, chart
from jobs.admin.home import home
from jobs.admin.verdicts import BAD, OFF, OK, WARN
from jobs.figures import Window
from jobs.glance import Parts
from jobs.models import Catalogue, Delivery, Endpoint, Job, Usage, Webhook, Worker
from jobs.news import Done
from jobs.wire.submission import model_hash
from tests.admin.rows import Rows, get, page_url
from tests.cast import Client, attempt_of, new_client, new_place, row, unique

HOME = "/admin/"


@pytest.fixture
def acme() -> Client:
    return new_client(new_place("raw"))


def line(shown: dict[str, Any], section: str, name: str) -> Any:
    found = [each for part in shown["sections"] if part["title"] == section for each in part["lines"]]
    (one,) = [each for each in found if each.name == name]
    return one


def texts(found: Any) -> list[str]:
    return [str(text).replace("\u00a0", " ") for text, _ in found.cells]


def seen(client: Client, tenants: Any = None, window: Window = Window.HOUR) -> Any:
    """The line of the client's endpoint."""
    return line(home(tenants, window), "Endpoints", client.place.name)


def run(client: Client, delay_ms: int, ran_ms: int, **done: Any) -> Job:
    job = client.submit({})
    claimed = client.place.worker().take_one()
    Job.all_tenants.filter(pk=job.uuid).update(delay_ms=delay_ms)
    for table, column in (("jobs_job", "id"), ("jobs_attempt", "job_id")):
        text = f"UPDATE {table} SET started_at = clock_timestamp() - %s * interval '1 ms' WHERE {column} = %s"
        sql.run(text, [ran_ms, job.uuid])
    assert news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), Done(**(done or {"output": b"{}"})))
    return row(job)


def wait(client: Client, seconds: float) -> Job:
    job = row(client.submit({}))
    Job.all_tenants.filter(pk=job.pk).update(queued_at=timezone.now() - timedelta(seconds=seconds))
    return job


def test_an_endpoints_line_has_its_numbers(acme: Client) -> None:
    for _ in range(3):
        run(acme, 20_000, 2_000)
    run(acme, 20_000, 2_000, error=b'"boom"', error_value="boom")
    acme.submit({})
    acme.place.worker().take_one()
    for seconds in (30, 130, 10):
        wait(acme, seconds)
    found = seen(acme)
    queued, oldest, running, ended, failed, delay, execution, workers = texts(found)
    assert (queued, running, ended, failed, workers) == ("3", "1", "4", "1 (25 %)", "1")
    assert re.fullmatch(r"2 min \d\d s", oldest)
    assert [float(text.split()[0]) for text in delay.split(" / ")] == pytest.approx([20, 20], rel=0.6)
    assert [float(text.split()[0]) for text in execution.split(" / ")] == pytest.approx([2, 2], rel=0.6)
    assert (found.verdict.level, found.verdict.words) == (WARN, "1 of 4 jobs failed or timed out.")


def test_its_numbers_lead_to_the_rows(browser: Browser, acme: Client) -> None:
    failed, queued = run(acme, 0, 0, error=b'"boom"', error_value="boom"), wait(acme, 1)
    cells = seen(acme).cells
    assert page_url(failed) in get(browser, cells[4][1])
    assert page_url(queued) not in get(browser, cells[4][1])
    assert page_url(queued) in get(browser, cells[0][1])
    assert "w1" in get(browser, cells[7][1])


def test_an_old_end_is_in_the_longer_windows_only(acme: Client) -> None:
    run(acme, 0, 0)
    sql.run("UPDATE jobs_figures SET at = at - interval '3 hours' WHERE endpoint_id = %s", [acme.place.endpoint.pk])
    figures.roll_up()
    assert [texts(seen(acme, window=window))[3] for window in Window] == ["0", "1", "1"]


@pytest.mark.parametrize(
    ("fields", "queued", "level", "words"),
    [
        ({}, 0, OFF, "No worker has served it yet."),
        ({}, 1, BAD, "1 job waits and no worker takes jobs."),
        ({"mode": "paused", "message": "New disks."}, 1, WARN, "It is paused. New disks."),
        ({"spent_at": timezone.now()}, 0, WARN, "It has used its budget of this month."),
        ({"spent_at": timezone.now()}, 2, BAD, "It has used its budget of this month."),
    ],
)
def test_what_keeps_an_endpoint_from_its_jobs_is_said(fields: Any, queued: int, level: str, words: str) -> None:
    client = new_client(new_place("raw", **fields))
    if queued:
        Endpoint.objects.filter(pk=client.place.endpoint.pk).update(mode="open", spent_at=None)
    for _ in range(queued):
        wait(client, 1)
    Endpoint.objects.filter(pk=client.place.endpoint.pk).update(**{"mode": "open"} | fields)
    found = seen(client).verdict
    assert (found.level, found.words) == (level, words)


def test_workers_that_are_gone_are_said(acme: Client) -> None:
    acme.place.worker().poll()
    assert seen(acme).verdict == verdicts.Verdict(OK, "It is ready.")
    Worker.objects.filter(endpoint=acme.place.endpoint).update(take_at=timezone.now() - timedelta(minutes=3))
    assert re.fullmatch(r"No worker takes jobs; one was seen [34].min.\d\d.s ago\.", seen(acme).verdict.words)
    assert seen(acme).verdict.level == WARN
    wait(acme, 1)
    assert seen(acme).verdict.level == BAD


@pytest.mark.parametrize(("seconds", "level"), [(200, OK), (400, WARN), (4000, BAD)])
def test_a_job_that_waits_long_is_said(acme: Client, seconds: float, level: str) -> None:
    acme.place.worker().poll()
    wait(acme, seconds)
    assert seen(acme).verdict.level == level


@pytest.mark.parametrize(("failed", "of", "level"), [(0, 3, OK), (1, 11, OK), (1, 10, WARN), (2, 2, WARN), (3, 6, BAD)])
def test_failures_are_looked_at_by_their_part(failed: int, of: int, level: str) -> None:
    place = glance.Place(1, "e", "open", "", False, False, "", 0, 0, None, 0, 1, 0.0)
    found = figures.Sum(completed=of - failed, failed=failed, cancelled=7)
    assert verdicts.of_place(place, found, all_seen=True).level == level


def test_more_is_not_counted_than_may_be_shown(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {f"LIMIT {most})": f"LIMIT {few})" for most, few in ((glance.MOST, 3), (glance.HEADS, 2), (glance.HEAD, 2))}
    for most, few in fewer.items():
        monkeypatch.setattr(glance, "PLACES", glance.PLACES.replace(most, few))
    for module in (glance, verdicts):
        monkeypatch.setattr(module, "MOST", 3)
    for _ in range(4):
        wait(acme, 60)
    queued, oldest, *_ = texts(seen(acme))
    assert queued == "3+"
    assert re.fullmatch(r"1 min \d\d s or more", oldest)


def test_a_worker_is_shown_with_what_it_does(browser: Browser, rows: Rows) -> None:
    body = gzip.compress(b'{"A": {"input": {"required": {"m": [["known.safetensors", "other.ckpt"]]}}}}')
    own = Catalogue.objects.create(endpoint=rows.place.endpoint, sha256=unique("s"), body=body)
    hashes = [model_hash("known.safetensors"), model_hash("gone.ckpt")]
    job = rows.submit().uuid
    rows.add_attempt(job, 1)
    Worker.objects.filter(pk=rows.worker.pk).update(
        catalogue=own, model_hashes=hashes, version="1.12.0", ping_at=timezone.now() - timedelta(seconds=7)
    )
    found = line(home(None, Window.HOUR), "Workers", rows.worker.name)
    endpoint, polled, pinged, version, current, models = texts(found)
    assert (endpoint, version, models) == (rows.place.name, "1.12.0", "known.safetensors, 1 of no known name")
    assert re.fullmatch(r"\d+ ms ago|\d+\.\d s ago", polled)
    assert re.fullmatch(r"\d+\.\d s ago", pinged)
    assert current == row_of(job).public_id
    assert found.cells[4][1] == page_url(row_of(job))
    assert found.verdict.words == "It works."
    Worker.objects.filter(pk=rows.worker.pk).update(take_at=timezone.now() - timedelta(days=1), ping_at=None)
    gone = line(home(None, Window.HOUR), "Workers", rows.worker.name)
    assert gone.verdict == verdicts.Verdict(BAD, "It has not been heard for 30 s, and holds 1 job.")
    Worker.objects.filter(pk=rows.worker.pk).update(unhealthy="out of <memory>")
    assert "out of &lt;memory&gt;" in get(browser, HOME)


def row_of(job: Any) -> Job:
    return Job.all_tenants.get(pk=job)


def of_tenant(rows: Rows, name: str = "Deliveries") -> Any:
    return line(home([rows.tenant.pk], Window.HOUR), "Webhooks", name)


def test_deliveries_that_fail_or_that_nobody_sends_are_said(rows: Rows) -> None:
    Delivery.all_tenants.filter(tenant=rows.tenant).delete()
    assert of_tenant(rows).verdict.level == OK
    rows.add_delivery(state="failed", next_at=None, ended_at=timezone.now())
    rows.add_delivery(state="failed", next_at=None, ended_at=timezone.now() - timedelta(days=2))
    rows.add_delivery(state="delivered", next_at=None, ended_at=timezone.now())
    rows.add_delivery()
    assert of_tenant(rows).verdict == verdicts.Verdict(WARN, "1 of 2 failed for good within a day. 1 on their way.")
    rows.add_delivery(next_at=timezone.now() - timedelta(minutes=2))
    late = of_tenant(rows)
    assert late.verdict.level == BAD
    assert late.verdict.words.startswith("1 due for a minute, and nobody sends them")
    assert "overdue=yes" in late.url


def test_webhooks_that_fail_are_listed_without_what_may_be_secret(rows: Rows) -> None:
    hour_ago = timezone.now() - timedelta(hours=1)
    Webhook.all_tenants.filter(pk=rows.webhook.pk).update(failing_since=hour_ago)
    name = f"{rows.tenant.name}: https://hooks.example.com/hearth?token=…"
    assert of_tenant(rows, name).verdict.level == WARN
    Webhook.all_tenants.filter(pk=rows.webhook.pk).update(enabled=False, disabled_at=hour_ago)
    disabled = of_tenant(rows, name)
    assert (disabled.verdict.level, disabled.url) == (BAD, page_url(rows.webhook))


def use(client: Client, **used: Any) -> None:
    key = ApiKey.all_tenants.filter(tenant=client.tenant).get()
    day = sql.one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")[0]
    own = {"tenant": client.tenant, "endpoint": client.place.endpoint, "api_key": key}
    Usage.all_tenants.update_or_create(**own, day=day, defaults=used)
    Usage.all_tenants.create(**own, day=day.replace(day=1) - timedelta(days=1), gpu_ms=10**9)


def test_budgets_are_told_when_they_are_near_their_end(acme: Client) -> None:
    use(acme, gpu_ms=850_000, cost=5)
    key = ApiKey.all_tenants.get(tenant=acme.tenant)
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(gpu_s_a_month=1100)  # 77 %
    Tenant.objects.filter(pk=acme.tenant.pk).update(gpu_s_a_month=1000)
    ApiKey.all_tenants.filter(pk=key.pk).update(cost_a_month=5, gpu_s_a_month=10_000)
    shown = home(None, Window.HOUR)
    found = line(shown, "Budgets near their end", acme.tenant.name)
    assert found.verdict == verdicts.Verdict(WARN, "85 % of this month's is used: 850 of 1,000 GPU-seconds.")
    spent = line(shown, "Budgets near their end", f"{acme.tenant.name} hth_{key.prefix}")
    assert spent.verdict.level == BAD
    assert spent.verdict.words == "100 % of this month's is used: 850 of 10,000 GPU-seconds and 5.00 of 5.00 cost."
    assert spent.url == page_url(key)
    Endpoint.objects.filter(pk=acme.place.endpoint.pk).update(gpu_s_a_month=1000)
    assert line(home(None, Window.HOUR), "Budgets near their end", acme.place.name).verdict.level == WARN


def test_parts_that_are_not_there_are_said() -> None:
    well = verdicts.of_parts(Parts(2, 0.5, {"fast": 1, "slow": 1}, 0, None, 0))
    assert {each.level for each in well.values()} == {OK}
    ill = verdicts.of_parts(Parts(0, None, {"fast": 0, "slow": 1}, 3, 90.0, 0))
    assert {name for name, each in ill.items() if each.level == BAD} == {"Web", "Sweeper", "Tasks, fast", "Tasks"}
    assert verdicts.of_parts(Parts(1, 300.0, {}, 0, None, 2))["Sweeper"].level == BAD
    assert verdicts.of_parts(Parts(1, 1.0, {}, 0, None, 2))["Tasks"].level == WARN


def test_a_sweeper_is_seen_by_its_session(database: str) -> None:
    import psycopg

    with psycopg.connect(database, autocommit=True, application_name="hearth sweeper") as session:
        session.execute("SELECT pg_try_advisory_lock(1)")
        found = glance.parts().sweeper_s
        assert found is not None
        assert 0 <= found < 60
    with psycopg.connect(database, autocommit=True, application_name="hearth tasks slow"):
        assert glance.parts().clusters["slow"] >= 1


def numbers(client: Client, tenants: Any) -> list[str]:
    """Queued, running, ended, failed."""
    queued, _, *found = texts(seen(client, tenants))
    return [queued, *found[:3]]


def test_a_tenant_sees_what_is_his_and_nothing_else(acme: Client) -> None:
    globex = new_client(acme.place, "globex")
    only_globex = new_client(new_place("raw"), "globex")
    run(acme, 0, 0)
    run(globex, 0, 0, error=b'"boom"', error_value="boom")
    for client in (acme, globex, globex, only_globex):
        wait(client, 5)
    use(globex, gpu_ms=10**9)
    Tenant.objects.filter(pk=globex.tenant.pk).update(gpu_s_a_month=1)
    hook = {"url": "https://globex.example.com/", "kinds": ["failed"], "failing_since": timezone.now()}
    Webhook.all_tenants.create(tenant=globex.tenant, **hook)
    shown = home([acme.tenant.pk], Window.HOUR)
    assert [part["title"] for part in shown["sections"]] == ["Endpoints", "Webhooks"]
    assert [each.name for each in shown["sections"][0]["lines"]] == [acme.place.name]
    assert numbers(acme, [acme.tenant.pk]) == ["1", "0", "1", "0"]
    assert numbers(acme, [globex.tenant.pk]) == ["2", "0", "1", "1 (100 %)"]
    assert numbers(acme, None) == ["3", "0", "2", "1 (50 %)"]
    assert shown["gpu"] == []
    assert "globex" not in repr(shown)
    nothing = home([], Window.HOUR)
    assert [part["title"] for part in nothing["sections"]] == ["Webhooks"]
    assert not any(each["rows"] for each in nothing["charts"])


def test_a_member_is_shown_his_tenants_page(acme: Client) -> None:
    globex = new_client(new_place("raw"), "globex")
    for client in (acme, globex):
        wait(client, 5)
    member, user = Browser(SERVER_NAME="localhost"), User.objects.create_user(unique("member"))
    Member.all_tenants.create(tenant=acme.tenant, user=user, role=Member.Role.VIEWER)
    member.force_login(user)
    text = get(member, HOME)
    assert acme.place.name in text
    for hidden in ("globex", globex.place.name, 'id="workers"', 'id="processes"', "gpu-by-tenant"):
        assert hidden not in text
    queued = next(url for _, url in seen(acme, [acme.tenant.pk]).cells)
    assert page_url(Job.all_tenants.get(tenant=acme.tenant)) in get(member, queued)


def test_staff_without_rights_sees_no_numbers(acme: Client) -> None:
    wait(acme, 5)
    staff = Browser(SERVER_NAME="localhost")
    staff.force_login(User.objects.create_user(unique("staff"), is_staff=True))
    assert acme.place.name not in get(staff, HOME)


def test_a_chart_is_drawn_to_scale_and_says_the_same_as_a_table() -> None:
    made = [Series("completed", "completed", [0, 4, 2]), Series("failed", "failed", [0, 4, 0])]
    drawn = chart("Ends", ["a", "b", "c"], made, Unit("{:g}".format), stacked=True)
    bars = [(bar["kind"], bar["x"], float(bar["y"]), float(bar["height"])) for bar in drawn["bars"]]
    assert bars == [("completed", "1.1", 50, 50), ("failed", "1.1", 0, 50), ("completed", "2.1", 75, 25)]
    assert [line["text"] for line in drawn["grid"]] == ["0", "4", "8"]
    assert drawn["rows"] == [["b", "4", "4"], ["c", "2", "0"]]
    assert drawn["hints"][1]["text"] == "b: completed 4, failed 4"


@pytest.mark.parametrize(
    ("unit", "most", "top"),
    [
        (NUMBERS, 0, "1"),
        (NUMBERS, 7, "8"),
        (NUMBERS, 1_234, "2,000"),
        (DURATIONS, 31, "40 ms"),
        (DURATIONS, 700, "1.0 s"),
        (DURATIONS, 61_000, "2 min 00 s"),
        (DURATIONS, 10**8, "27 h 46 min"),
    ],
)
def test_a_grid_ends_at_a_round_value(unit: Unit, most: float, top: str) -> None:
    assert unit.shown(unit.top(most)).replace("\u00a0", " ") == top


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    made = [Series("p50", "p50", [10, 20, None, 5, None])]
    drawn = chart("Delay", list("abcde"), made, Unit("{:g}".format))
    assert drawn["lines"] == [{"kind": "p50", "pieces": ["0.5,50.000 1.5,0.000", "3.5,75.000 3.5,75.000"]}]
    assert drawn["hints"][2]["text"] == "c: nothing known"


def test_charts_show_what_ended(acme: Client) -> None:
    run(acme, 0, 5_000)
    run(acme, 0, 5_000, error=b'"boom"', error_value="boom")
    ended, _, delay, execution, gpu = home([acme.tenant.pk], Window.DAY)["charts"]
    assert [cells[1:] for cells in ended["rows"]] == [["1", "1", "0", "0"]]
    assert [len(each["rows"]) for each in (delay, execution, gpu)] == [1, 1, 1]
    assert gpu["rows"][0][1].startswith("10.")


def test_one_minute_without_a_look_is_bridged() -> None:
    from jobs.admin.home import _bridged

    assert _bridged([1, None, 3, None, None, 2, None]) == [1, 1, 3, None, None, 2, None]


@pytest.mark.parametrize("since", ["1h", "24h", "30d", "", "x", "\0"])
def test_the_page_answers_for_any_window(browser: Browser, acme: Client, since: str) -> None:
    run(acme, 0, 0)
    text = unescape(browser.get(HOME, {"since": since}).content.decode())
    assert acme.place.name in text
    assert "As a table" in text
    assert text.count('aria-current="page"') == 1


MOST_QUERIES = 20


def test_the_page_asks_as_many_queries_for_many_rows_as_for_few(browser: Browser, rows: Rows) -> None:
    def asked() -> list[str]:
        get(browser, HOME)
        with CaptureQueriesContext(connection) as found:
            get(browser, HOME)
        return [query["sql"] for query in found]

    few = asked()
    rows.add(5)
    for _ in range(5):
        run(new_client(new_place("raw")), 0, 0)
    many = asked()
    assert len(many) == len(few) <= MOST_QUERIES
    assert not [text for text in many if re.search(r"count\(\*\) FROM jobs_job(?! j WHERE)", text, re.I)]
