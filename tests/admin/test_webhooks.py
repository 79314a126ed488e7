"""The operator's pages on webhooks, their secrets and deliveries."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db.models import F, Model
from django.test import Client as Browser
from django.utils import timezone

from accounts.audit import Change
from accounts.models import Tenant, User
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.webhooks.deliver import Answer, disable, finish
from jobs.webhooks.register import register
from tests.admin.rows import Rows, get, list_url, page_url
from tests.cast import new_client, new_place, unique
from tests.webhooks.sending import claimed, deliveries, ended

URL = "https://hooks.example.com/in?token=T0KEN"
POST = {"_form_submitted": "True"}
ADD, ROLL = f"{list_url(Webhook)}add/", f"{list_url(WebhookSecret)}add/"


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name=unique("acme"))


def button(row: Model, name: str) -> str:
    return page_url(row).replace("change", name)


def press(browser: Browser, row: Model, name: str, **given: Any) -> str:
    """What the page says after it was led to."""
    return str(browser.post(button(row, name), POST | given, follow=True).content.decode())


def now(webhook: Webhook) -> Webhook:
    return Webhook.all_tenants.get(pk=webhook.pk)


def log_of(row: Model) -> list[str]:
    of_row = Change.objects.filter(kind=row._meta.label_lower, row=str(row.pk))
    return list(of_row.order_by("pk").values_list("did", flat=True))


def secret_on(response: Any) -> str:
    """On a page that no cache and no session keeps."""
    (text,) = set(re.findall(r"whsec_[A-Za-z0-9+/]{43}=", response.content.decode()))
    assert (response.status_code, response["Referrer-Policy"]) == (200, "no-referrer")
    assert "no-store" in response["Cache-Control"]
    assert not any(text in str(session.get_decoded()) for session in Session.objects.all())
    return text


def test_the_first_webhook_shows_the_tenants_secret_once(browser: Browser, tenant: Tenant) -> None:
    given = {"tenant": tenant.pk, "given_url": URL, "kinds": ["failed", "completed"]}
    secret = secret_on(browser.post(ADD, given))
    webhook, stored = Webhook.objects.of(tenant).get(), WebhookSecret.objects.of(tenant).get()
    assert (webhook.url, webhook.kinds, stored.secret.unseal()) == (URL, ["completed", "failed"], secret)
    for url in (page_url(webhook), list_url(Webhook), page_url(stored), list_url(WebhookSecret), ROLL):
        assert secret not in get(browser, url)
    assert browser.post(ADD, given).status_code == 302, "the second has nothing to show"
    assert WebhookSecret.objects.of(tenant).count() == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"given_url": "https://10.0.0.1/"}, "address 10.0.0.1 is not public"),
        ({"given_url": ""}, "This field is required."),
        ({"kinds": []}, "This field is required."),
        ({"kinds": ["test"]}, "test is not one of the available choices."),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_in_the_form(browser: Browser, tenant: Tenant, given: Any, said: str) -> None:
    page = browser.post(ADD, {"tenant": tenant.pk, "given_url": URL, "kinds": ["completed"]} | given)
    assert said in page.content.decode()
    assert not Webhook.objects.of(tenant).exists()
    assert not WebhookSecret.objects.of(tenant).exists()


def test_one_too_many_is_refused_in_words(browser: Browser, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.webhooks.register.MOST_WEBHOOKS", 0)
    given = {"tenant": tenant.pk, "given_url": URL, "kinds": ["completed"]}
    assert "which is the most. Remove one first." in browser.post(ADD, given, follow=True).content.decode()
    assert not Webhook.objects.of(tenant).exists()


def test_a_change_keeps_the_url_that_is_not_shown(browser: Browser, rows: Rows) -> None:
    webhook = rows.webhook
    page = get(browser, page_url(webhook))
    assert "T0KEN" not in page
    assert "https://hooks.example.com/hearth?token=…" in page
    assert browser.post(page_url(webhook), {"kinds": ["started"]}).status_code == 302
    assert (now(webhook).url, now(webhook).kinds) == (webhook.url, ["started"])
    browser.post(page_url(webhook), {"given_url": URL, "kinds": ["started"]})
    assert now(webhook).url == URL
    assert "T0KEN" not in "".join(log_of(webhook))


def test_a_webhook_is_disabled_and_enabled_with_a_clean_record(browser: Browser, rows: Rows) -> None:
    webhook = rows.webhook
    assert button(webhook, "enable") not in get(browser, page_url(webhook))
    assert "It is disabled." in press(browser, webhook, "disable")
    assert not now(webhook).enabled
    disable_by_hearth(webhook)
    page = get(browser, page_url(webhook))
    assert "It answered 410 (Gone)." in page
    assert button(webhook, "disable") not in page
    assert "It is enabled." in press(browser, webhook, "enable")
    assert (now(webhook).enabled, now(webhook).disabled_why) == (True, "")
    assert log_of(webhook) == ["Added.", "Changed.", "Changed."]


def disable_by_hearth(webhook: Webhook) -> None:
    Webhook.all_tenants.filter(pk=webhook.pk).update(enabled=True)
    disable(webhook.pk, "It answered 410 (Gone).")


def test_webhooks_are_found_by_state_and_tenant(browser: Browser, tenant: Tenant) -> None:
    rows = {name: register(tenant, URL, ["completed"]).webhook for name in ("enabled", "failing", "off", "disabled")}
    Webhook.all_tenants.filter(pk=rows["failing"].pk).update(failing_since=timezone.now())
    Webhook.all_tenants.filter(pk=rows["off"].pk).update(enabled=False)
    disable(rows["disabled"].pk, "It answered 410 (Gone).")
    for name, state in (("enabled",) * 2, ("failing",) * 2, ("off", "switched off"), ("disabled",) * 2):
        found = browser.get(
            list_url(Webhook), {"webhook_state": state, "tenant__id__exact": tenant.pk}
        ).content.decode()
        assert [each for each, row in rows.items() if page_url(row) in found] == [name]


def test_a_test_is_sent_and_leads_to_its_answer(browser: Browser, rows: Rows) -> None:
    page = press(browser, rows.webhook, "send_test")
    sent = Delivery.objects.of(rows.tenant).latest("pk")
    assert (sent.kind, sent.state, sent.webhook) == ("test", "pending", rows.webhook)
    assert sent.message_id in page
    assert "A sample is on its way." in page
    assert log_of(rows.webhook) == ["Added.", "Sent a test."]


def test_a_removed_webhook_takes_its_deliveries_along(browser: Browser, rows: Rows) -> None:
    other = rows.add_delivery(webhook=None, lane=rows.tenant.pk)
    confirm = get(browser, page_url(rows.webhook, "delete"))
    assert "with its deliveries" in confirm
    assert rows.delivery.message_id not in confirm, "they may be many"
    assert browser.post(page_url(rows.webhook, "delete"), {"post": "yes"}).status_code == 302
    assert not Webhook.objects.of(rows.tenant).exists()
    left = Delivery.objects.of(rows.tenant)
    assert not left.filter(pk=rows.delivery.pk).exists()
    assert left.filter(pk=other.pk).exists()


def test_a_secret_is_rolled_with_overlap_and_shown_once(browser: Browser, rows: Rows) -> None:
    old = WebhookSecret.objects.of(rows.tenant).get()
    to = browser.get(button(rows.webhook, "roll"))["Location"]
    assert str(rows.tenant.pk) in get(browser, to)
    secret = secret_on(browser.post(ROLL, {"tenant": rows.tenant.pk, "overlap_hours": "1.5"}))
    new = WebhookSecret.objects.of(rows.tenant).latest("pk")
    old.refresh_from_db(from_queryset=WebhookSecret.all_tenants.all())
    assert new.secret.unseal() == secret
    assert timedelta(minutes=89) < old.expires_at - timezone.now() <= timedelta(minutes=90)
    page = get(browser, f"{list_url(WebhookSecret)}?tenant__id__exact={rows.tenant.pk}")
    assert "overlapping" in page
    assert "newest" in page
    assert secret not in page + get(browser, page_url(new))
    assert log_of(new) == ["Added."]


@pytest.mark.parametrize("hours", ["", "-1", "x", "1e9"])
def test_an_overlap_that_is_none_is_refused(browser: Browser, rows: Rows, hours: str) -> None:
    assert browser.post(ROLL, {"tenant": rows.tenant.pk, "overlap_hours": hours}).status_code == 200
    assert WebhookSecret.objects.of(rows.tenant).count() == 1


def test_one_secret_too_many_is_refused_in_words(
    browser: Browser, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.webhooks.register.MOST_SECRETS", 1)
    secret_on(browser.post(ROLL, {"tenant": tenant.pk, "overlap_hours": 1}))
    page = browser.post(ROLL, {"tenant": tenant.pk, "overlap_hours": 1}, follow=True).content.decode()
    assert "1 secrets sign now, which is the most." in page
    assert WebhookSecret.objects.of(tenant).count() == 1


def test_secrets_are_never_changed_nor_deleted(browser: Browser, rows: Rows) -> None:
    secret = WebhookSecret.objects.of(rows.tenant).get()
    assert browser.post(page_url(secret), {"tenant": rows.tenant.pk, "overlap_hours": 0}).status_code == 403
    get(browser, page_url(secret, "delete"), 403)
    assert WebhookSecret.objects.of(rows.tenant).get().expires_at is None


def test_a_delivery_shows_its_tries_and_what_is_next(browser: Browser, rows: Rows) -> None:
    rows.add_delivery()
    page = get(browser, page_url(rows.delivery))
    assert "&lt;b&gt;oops&lt;/b&gt;" in page
    assert "https://hooks.example.com/hearth?token=…" in page
    assert re.search(r">\s*500\s*<", page)
    assert rows.delivery.job
    assert rows.delivery.job.public_id in page
    listed = browser.get(list_url(Delivery), {"tenant__id__exact": rows.tenant.pk}).content.decode()
    assert "500 in 12 ms: &lt;b&gt;oops&lt;/b&gt;" in listed


def test_deliveries_are_found_by_state_webhook_tenant_and_that_nobody_sends_them(browser: Browser, rows: Rows) -> None:
    other = Rows()
    other.add(1)
    due, failed = rows.delivery, rows.add_delivery(state="failed", next_at=None, ended_at=timezone.now())
    Delivery.all_tenants.filter(pk=due.pk).update(next_at=F("next_at") - timedelta(minutes=2))

    def found(**query: Any) -> list[str]:
        page = browser.get(list_url(Delivery), query).content.decode()
        return [name for name, row in names.items() if page_url(row) in page]

    names = {"due": due, "failed": failed, "theirs": other.delivery}
    assert found(webhook__id__exact=rows.webhook.pk) == ["due", "failed"]
    assert found(tenant__id__exact=other.tenant.pk) == ["theirs"]
    assert found(state__exact="failed", tenant__id__exact=rows.tenant.pk) == ["failed"]
    assert found(overdue="yes", tenant__id__exact=rows.tenant.pk) == ["due"]
    assert found(q=failed.message_id) == ["failed"]
    assert due.job
    assert found(q=due.job.public_id) == ["due"]


def test_a_job_shows_what_was_told_of_it(browser: Browser, rows: Rows) -> None:
    assert rows.job
    page = get(browser, page_url(rows.job))
    assert rows.delivery.message_id in page
    assert "500 in 12 ms: &lt;b&gt;oops&lt;/b&gt;" in page
    assert "T0KEN" not in page


def failed_delivery() -> Delivery:
    """Of a tenant of its own, to its own URL."""
    client = new_client(new_place())
    ended(client, webhook=URL)
    (each,) = claimed(client)
    finish(each, Answer(ms=1, status=410))
    return deliveries(client)[0]


def state(delivery: Delivery) -> str:
    return Delivery.all_tenants.get(pk=delivery.pk).state


def test_a_delivery_is_sent_again(browser: Browser) -> None:
    failed = failed_delivery()
    assert "It is sent again." in press(browser, failed, "replay")
    assert state(failed) == "pending"
    assert log_of(failed) == ["Sent again."]
    assert button(failed, "replay") not in get(browser, page_url(failed))
    assert "It is being sent already." in press(browser, failed, "replay")


def test_selected_deliveries_are_sent_again_and_what_could_not_be_is_said(browser: Browser, rows: Rows) -> None:
    failed = failed_delivery()
    given = {"action": "replay_selected", "_selected_action": [failed.pk, rows.delivery.pk]}
    page = browser.post(list_url(Delivery), given, follow=True).content.decode()
    assert "1 delivery is sent again." in page
    assert "1 ×: It is being sent already." in page
    assert state(failed) == "pending"


def test_all_that_failed_since_a_time_is_sent_again(browser: Browser) -> None:
    mine, theirs = failed_delivery(), failed_delivery()
    url = f"{list_url(Delivery)}replay_failed/"
    assert "Failed since" in get(browser, url)
    later = f"{timezone.now() + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    before = f"{timezone.now() - timedelta(hours=1):%Y-%m-%dT%H:%M}"

    def asked(since: str, name: str) -> str:
        return str(browser.post(url, POST | {"since": since, "tenant": name}, follow=True).content.decode())

    assert "None has failed since then" in asked(later, "")
    assert "There is no tenant &#x27;nobody&#x27;" in asked(before, "nobody")
    assert "Enter a valid date/time." in asked("lately", "")
    assert "1 delivery is sent again." in asked(before, mine.tenant.name)
    assert (state(mine), state(theirs)) == ("pending", "failed")
    asked(before, "")
    assert state(theirs) == "pending"


def test_all_that_failed_of_one_webhook_is_sent_again(browser: Browser, rows: Rows) -> None:
    ended_at = timezone.now()
    failed = [rows.add_delivery(state="failed", next_at=None, ended_at=ended_at) for _ in range(2)]
    other = rows.add_delivery(webhook=None, lane=rows.tenant.pk, state="failed", next_at=None, ended_at=ended_at)
    since = f"{ended_at - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    assert "2 deliveries are sent again." in press(browser, rows.webhook, "replay_failed", since=since)
    assert [state(each) for each in (*failed, other)] == ["pending", "pending", "failed"]


ACTIONS = ("send_test", "replay_failed", "disable")


def test_staff_who_may_only_look_can_do_nothing(rows: Rows) -> None:
    staff, browser = User.objects.create_user(unique("staff"), is_staff=True), Browser(SERVER_NAME="localhost")
    names = [f"view_{name}" for name in ("webhook", "delivery", "webhooksecret")]
    staff.user_permissions.add(*Permission.objects.filter(codename__in=names))
    browser.force_login(staff)
    failed = failed_delivery()
    page = get(browser, page_url(rows.webhook))
    assert "https://hooks.example.com/hearth?token=…" in page
    for row, actions in ((rows.webhook, ACTIONS), (failed, ("replay",))):
        for name in actions:
            assert button(row, name) not in get(browser, page_url(row))
            assert browser.post(button(row, name), POST).status_code == 403
    assert browser.post(page_url(rows.webhook), {"kinds": ["started"]}).status_code == 403
    assert browser.post(ROLL, {"tenant": rows.tenant.pk, "overlap_hours": 0}).status_code == 403
    assert browser.post(f"{list_url(Delivery)}replay_failed/", POST | {"since": "2026-01-01T00:00"}).status_code == 403
    assert "&lt;b&gt;oops" in get(browser, page_url(rows.delivery)), "the tries are a part of it"
    get(browser, page_url(WebhookSecret.objects.of(rows.tenant).get()))
    assert (state(failed), now(rows.webhook).enabled) == ("failed", True)


@pytest.mark.parametrize("name", ACTIONS)
def test_looking_at_a_dialog_changes_nothing(browser: Browser, rows: Rows, name: str) -> None:
    get(browser, button(rows.webhook, name))
    assert now(rows.webhook).enabled
    assert Delivery.objects.of(rows.tenant).filter(kind="test").count() == 0


def test_what_is_not_there_leads_home(browser: Browser) -> None:
    nothing = "01a2093a-d5ca-7234-b16e-9e33650c0a44"
    for name in (*ACTIONS, "enable"):
        since = {"since": "2026-01-01T00:00"}
        assert browser.post(f"{list_url(Webhook)}{nothing}/{name}/", POST | since)["Location"] == list_url(Webhook)
    assert browser.post(f"{list_url(Delivery)}0/replay/", POST)["Location"] == list_url(Delivery)
