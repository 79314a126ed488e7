"""The admin in a real browser, over a real web process: its scripts and styles arrive, and its buttons work."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from PIL import Image, ImageColor
from playwright.sync_api import Browser, Page, sync_playwright

from accounts.models import ApiKey, Member, User
from jobs.admin.usage import COLOURS, today
from jobs.models import Delivery, Job, Usage, Webhook, WebhookSecret
from jobs.states import State
from tests.admin.chromium import NoChromium, launch
from tests.admin.rows import Rows, list_url, page_url
from tests.admin.walk import member
from tests.cast import Client, Place, new_client, new_place, row

PASSWORD = "an operator's password"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all tests of a module: it takes longest to start."""
    with pytest.MonkeyPatch.context() as patched, sync_playwright() as playwright:
        patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright's loop is in this thread, but not under the tests
        try:
            with launch(playwright) as browser:
                yield browser
        except NoChromium as missing:
            pytest.fail(f"The admin was NOT tested in a browser. {missing}")


@pytest.fixture
def page(chromium: Browser, web: Any, operator: User) -> Iterator[Page]:
    """Signed in. What the browser could not load or run fails the test at its end."""
    yield from signed_in(chromium, web, operator)


def signed_in(chromium: Browser, web: Any, user: User) -> Iterator[Page]:
    user.set_password(PASSWORD)
    user.save()
    context = chromium.new_context(base_url=web.url, viewport={"width": 1440, "height": 900})
    made = context.new_page()
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("response", lambda response: faults.append(response.url) if response.status >= 400 else None)
    made.goto("/admin/")
    made.fill("#id_username", user.username)
    made.fill("#id_password", PASSWORD)
    made.click("button[type=submit]")
    made.wait_for_url("/admin/")
    yield made
    context.close()
    assert not faults


def look(page: Page, text: str, to: Path) -> None:
    """Waits for the text and keeps a picture, which must have the many colours of a page with its styles."""
    page.wait_for_selector(f"text={text} >> visible=true")
    page.screenshot(path=to)
    with Image.open(to) as picture:
        assert len(picture.convert("RGB").getcolors(2**24) or ()) > 100, f"{to} looks empty"


def test_a_job_is_found_read_and_cancelled(page: Page, tmp_path: Path, rows: Rows) -> None:
    job = row(rows.submit())
    page.goto(list_url(Job))
    page.fill("#searchbar", job.public_id)
    page.press("#searchbar", "Enter")
    look(page, job.public_id, tmp_path / "jobs.png")
    page.click(f"text={job.public_id}")
    look(page, "Timeline", tmp_path / "job.png")
    page.click("text=Cancel the job")
    page.click("#modal-content button[type=submit]")
    look(page, "The job was cancelled.", tmp_path / "cancelled.png")
    assert Job.all_tenants.get(pk=job.pk).state == State.CANCELLED


def test_jobs_are_filtered_by_a_tenant_that_is_typed(page: Page, rows: Rows) -> None:
    other = Rows()
    other.add(1)
    assert rows.job
    assert other.job
    page.goto(list_url(Job))
    page.click("text=Filters")
    page.locator("[aria-labelledby*=tenant]").click()
    page.fill(".select2-search__field", rows.tenant.name)
    page.click(f".select2-results__option:has-text('{rows.tenant.name}')")
    page.click("text=Apply Filters")
    page.wait_for_url("**tenant__id__exact=*")
    page.wait_for_selector(f"text={rows.job.public_id}")
    assert not page.is_visible(f"text={other.job.public_id}")


def use(client: Client, places: Sequence[Place], days: int) -> None:
    """A tenant uses all these endpoints for so many days, some days more and some less."""
    Usage.all_tenants.bulk_create(
        Usage(
            tenant=client.tenant,
            endpoint=place.endpoint,
            day=today() - timedelta(days=day),
            gpu_ms=400_000 * (1 + (day * (3 + number)) % 7),
        )
        for day in range(days)
        for number, place in enumerate(places)
    )


def test_the_chart_of_usage_has_a_colour_for_each_endpoint(page: Page, tmp_path: Path) -> None:
    """Of all tenants, or of the one that the list is narrowed to."""
    places = [new_place() for _ in range(4)]
    acme, globex = new_client(places[0], "acme"), new_client(places[3], "globex")
    use(acme, places[:3], 40)
    use(globex, places[1:], 5)
    page.goto(list_url(Usage))
    look(page, "GPU hours of the last 31 days", tmp_path / "usage.png")
    page.goto(f"{list_url(Usage)}?tenant__id__exact={acme.tenant.pk}")
    page.wait_for_selector(f"#usage-chart >> text={places[2].name}")
    assert not page.is_visible(f"#usage-chart >> text={places[3].name}")
    page.screenshot(path=tmp_path / "acme.png")
    page.locator("#usage-chart canvas").screenshot(path=tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as picture:
        found = {colour: count for count, colour in picture.convert("RGB").getcolors(2**24) or ()}
    drawn = [colour for colour in COLOURS if found.get(ImageColor.getrgb(colour), 0) > 500]
    assert drawn == list(COLOURS[:3])


def test_a_new_key_is_shown_and_copied_and_gone_with_the_page(page: Page, tmp_path: Path, rows: Rows) -> None:
    page.goto(f"{list_url(ApiKey)}add/?tenant={rows.tenant.pk}")
    page.fill("#id_name", "from the browser")
    page.click("button[name=_save]")
    key = page.input_value("#key")
    page.click("button:text-is('Copy')")
    look(page, "Copied", tmp_path / "key.png")
    page.click("text=Go on to")
    page.wait_for_selector("text=Revoke")
    made = ApiKey.objects.of(rows.tenant).latest("pk")
    assert page.url.endswith(page_url(made))
    assert key.startswith(f"hth_{made.prefix}_")
    assert key not in page.content()


def test_a_webhook_is_tested_and_what_failed_is_sent_again(page: Page, tmp_path: Path, rows: Rows) -> None:
    failed = rows.add_delivery(state="failed", next_at=None, ended_at=timezone.now())
    page.goto(list_url(Webhook))
    look(page, "hooks.example.com", tmp_path / "webhooks.png")
    page.goto(page_url(rows.webhook))
    look(page, "Roll the secret", tmp_path / "webhook.png")
    page.click("text=Send again what failed")
    look(page, "Failed since", tmp_path / "since.png")
    page.click("#modal-content button[type=submit]")
    look(page, "1 delivery is sent again.", tmp_path / "again.png")
    assert Delivery.all_tenants.get(pk=failed.pk).state == "pending"
    page.click("text=Send a test")
    page.click("#modal-content button[type=submit]")
    look(page, "A sample is on its way.", tmp_path / "test.png")
    page.goto(page_url(failed))
    look(page, "oops", tmp_path / "delivery.png")
    page.goto(f"{list_url(Delivery)}?tenant__id__exact={rows.tenant.pk}")
    look(page, "500 in 12 ms", tmp_path / "deliveries.png")


def test_a_rolled_secret_is_shown_and_gone_with_the_page(page: Page, tmp_path: Path, rows: Rows) -> None:
    page.goto(f"{list_url(WebhookSecret)}add/?tenant={rows.tenant.pk}")
    look(page, "Overlap in hours", tmp_path / "roll.png")
    page.click("button[name=_save]")
    look(page, "Copy the secret now", tmp_path / "secret.png")
    secret = page.input_value("#key")
    page.click("text=Go on to")
    look(page, "newest", tmp_path / "secrets.png")
    assert secret.startswith("whsec_")
    assert secret not in page.content()


@pytest.fixture
def members_page(chromium: Browser, web: Any, rows: Rows) -> Iterator[Page]:
    yield from signed_in(chromium, web, member(rows.tenant, "owner"))


def test_a_member_sees_his_tenant_alone(members_page: Page, tmp_path: Path, rows: Rows) -> None:
    page, other = members_page, Rows()
    other.add(1)
    assert rows.job
    assert other.job
    page.click("text=Tenants")
    page.click(f"text={rows.tenant.name}")
    look(page, "Kept for", tmp_path / "tenant.png")
    page.click(f"#nav-sidebar-apps a[href='{list_url(Job)}']")
    look(page, rows.job.public_id, tmp_path / "jobs.png")
    assert not page.is_visible(f"text={other.job.public_id}")
    assert not page.is_visible("#nav-sidebar-apps >> text=Workers")
    page.goto(page_url(other.job))
    page.wait_for_url("/admin/")


def test_who_is_invited_sets_a_password(members_page: Page, chromium: Browser, tmp_path: Path, rows: Rows) -> None:
    page = members_page
    page.goto(f"{list_url(Member)}add/")
    page.fill("#id_name", "bob")
    page.select_option("#id_role", "developer")
    page.click("button[name=_save]")
    look(page, "Copy the link now", tmp_path / "link.png")
    with chromium.new_context() as context:
        bob = context.new_page()
        bob.goto(page.input_value("#key"))
        for field in ("#id_new_password1", "#id_new_password2"):
            bob.fill(field, PASSWORD)
        look(bob, f"bob@{rows.tenant.name}", tmp_path / "password.png")
        bob.click("button[type=submit]")
        bob.fill("#id_username", f"bob@{rows.tenant.name}")
        bob.fill("#id_password", PASSWORD)
        bob.click("button[type=submit]")
        bob.wait_for_selector("#nav-sidebar-apps >> text=Jobs")
