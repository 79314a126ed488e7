"""The verbs on webhooks, as the admin, the commands and the management API call them."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import sql
from accounts.errors import Refused
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.states import State
from jobs.webhooks import register as verbs
from jobs.webhooks.deliver import Answer, Bounds, disable, finish
from jobs.webhooks.register import change, first_secret, register, remove, replay, replay_failed, roll_secret, send_test
from tests.cast import Client, row
from tests.webhooks.sending import claimed, deliveries, end_now, ended, only, states, until
from tests.wire.api import aside

URL = "https://example.com/hook"


def refused(call: Callable[..., Any], *args: Any, **fields: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        call(*args, **fields)
    return caught.value.status, caught.value.code


def failed(client: Client) -> Delivery:
    """A delivery of the client's that was given up."""
    ended(client, webhook=URL)
    (each,) = claimed(client)
    finish(each, Answer(ms=1, status=410))
    return deliveries(client)[-1]


def test_the_first_webhook_makes_the_tenants_secret_and_the_second_uses_it(acme: Client) -> None:
    first, second = (register(acme.tenant, URL, ["failed", "completed", "failed"]) for _ in range(2))
    assert first.webhook.kinds == ["completed", "failed"]
    assert first.secret.startswith("whsec_")
    assert len(base64.b64decode(first.secret.removeprefix("whsec_"))) == 32
    assert second.secret == ""
    stored = WebhookSecret.objects.of(acme.tenant).get()
    assert stored.secret.unseal() == first.secret
    assert first.secret.encode() not in stored.secret.token


@pytest.mark.parametrize("url", ["http://example.com/", "https://10.0.0.1/", "https://localhost./", "ftp://x/", 5])
def test_a_url_that_leads_inside_is_not_registered(acme: Client, monkeypatch: pytest.MonkeyPatch, url: Any) -> None:
    monkeypatch.setattr("django.conf.settings.URL_ALLOW", ())
    assert refused(register, acme.tenant, url, ["completed"]) == (400, "invalid_url")
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    assert refused(change, acme.tenant, webhook.pk, url=url) == (400, "invalid_url")
    assert Webhook.objects.of(acme.tenant).get().url == URL


@pytest.mark.parametrize("kinds", [[], ["done"], ["completed", "test"]])
def test_kinds_are_of_the_vocabulary(acme: Client, kinds: list[str]) -> None:
    assert refused(register, acme.tenant, URL, kinds) == (400, "invalid_kinds")
    with pytest.raises(IntegrityError), transaction.atomic():
        Webhook.all_tenants.create(tenant=acme.tenant, url=URL, kinds=[])


def test_a_tenant_has_ten_at_most(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "MOST_WEBHOOKS", 2)
    for _ in range(2):
        register(acme.tenant, URL, ["completed"])
    assert refused(register, acme.tenant, URL, ["completed"]) == (409, "too_many_webhooks")


def test_what_is_globexs_is_not_there_for_acme(acme: Client, globex: Client) -> None:
    delivery = failed(globex)
    webhook = register(globex.tenant, URL, ["completed"]).webhook
    for call in (change, remove, send_test):
        assert refused(call, acme.tenant, webhook.pk) == (404, "not_found")
        assert refused(call, acme.tenant, uuid4()) == (404, "not_found")
    assert refused(replay, acme.tenant, delivery.pk) == (404, "not_found")
    assert replay_failed(delivery.created_at, acme.tenant) == 0
    assert states(globex) == ["failed"]
    assert Webhook.objects.of(globex.tenant).count() == 1


def test_a_change_leaves_the_rest_as_it_is(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    change(acme.tenant, webhook.pk, kinds=["started"])
    change(acme.tenant, webhook.pk, enabled=False)
    found = change(acme.tenant, webhook.pk, url="https://example.org/")
    assert (found.url, found.kinds, found.enabled) == ("https://example.org/", ["started"], False)


def test_enabled_anew_it_begins_with_a_clean_record(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    Webhook.all_tenants.filter(pk=webhook.pk).update(failing_since=timezone.now() - timedelta(days=9))
    disable(webhook.pk, "It answered 410 (Gone).")
    found = change(acme.tenant, webhook.pk, enabled=True)
    assert (found.enabled, found.failing_since, found.disabled_at, found.disabled_why) == (True, None, None, "")
    ended(acme)
    (each,) = claimed(acme)
    finish(each, Answer(ms=1, status=500))
    assert Webhook.objects.of(acme.tenant).get().enabled


def test_a_removed_webhook_takes_its_deliveries_along(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ended(acme)
    (each,) = claimed(acme)
    finish(each, Answer(ms=1, status=500))
    remove(acme.tenant, webhook.pk)
    assert deliveries(acme) == []


def test_a_removed_webhook_under_way_is_no_error_for_its_sender(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ended(acme)
    (each,) = claimed(acme)
    remove(acme.tenant, webhook.pk)
    finish(each, Answer(ms=1, status=500))


def test_secrets_are_made_and_rolled_for_tenants_without_a_webhook_too(acme: Client) -> None:
    first = first_secret(acme.tenant)
    assert first_secret(acme.tenant) == ""
    second = roll_secret(acme.tenant)
    assert len({first, second}) == 2
    assert WebhookSecret.objects.of(acme.tenant).filter(expires_at=None).count() == 1


@pytest.mark.parametrize("status", [200, 410])
def test_what_has_ended_is_replayed_under_its_id_with_a_day_of_tries(acme: Client, status: int) -> None:
    ended(acme, webhook=URL)
    (each,) = claimed(acme)
    finish(each, Answer(ms=1, status=status))
    before = only(acme)
    replay(acme.tenant, before.pk)
    after = only(acme)
    assert (after.state, after.tries, after.message) == ("pending", 0, before.message)
    assert after.began_at > before.began_at
    (again,) = claimed(acme)
    assert again.waited_s < 60


def test_what_is_pending_outdated_or_of_a_disabled_webhook_is_not_replayed(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ended(acme)
    assert refused(replay, acme.tenant, only(acme).pk) == (409, "not_replayable")
    disable(webhook.pk, "It answered 410 (Gone).")
    assert refused(replay, acme.tenant, only(acme).pk) == (409, "not_replayable")
    change(acme.tenant, webhook.pk, enabled=True)
    replay(acme.tenant, only(acme).pk)
    Delivery.objects.of(acme.tenant).update(state="outdated", next_at=None, ended_at=timezone.now())
    assert refused(replay, acme.tenant, only(acme).pk) == (409, "not_replayable")


def test_all_that_failed_since_a_time_is_replayed(acme: Client, globex: Client) -> None:
    long_ago, lately, others = failed(acme), failed(acme), failed(globex)
    ended(acme, webhook=URL)
    (each,) = claimed(acme)
    finish(each, Answer(ms=1, status=200))
    since = timezone.now() - timedelta(hours=1)
    Delivery.all_tenants.filter(pk=long_ago.pk).update(ended_at=since - timedelta(hours=1))
    assert replay_failed(since, acme.tenant) == 1
    assert states(acme) == ["failed", "pending", "delivered"]
    assert Delivery.all_tenants.get(pk=others.pk).state == "failed"
    assert Delivery.all_tenants.get(pk=lately.pk).state == "pending"


def test_all_that_failed_of_one_webhook_is_replayed(acme: Client) -> None:
    failed(acme)
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ended(acme)
    disable(webhook.pk, "It answered 410 (Gone).")
    since = timezone.now() - timedelta(hours=1)
    assert replay_failed(since, acme.tenant, webhook) == 0, "it is disabled"
    change(acme.tenant, webhook.pk, enabled=True)
    assert replay_failed(since, acme.tenant, webhook) == 1
    assert states(acme) == ["failed", "pending"]


def test_a_test_is_written_and_is_one_more_each_time(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ids = {send_test(acme.tenant, webhook.pk).message for _ in range(2)}
    assert len(ids) == 2
    assert {delivery.kind for delivery in deliveries(acme)} == {"test"}


def test_a_test_waits_behind_nothing(acme: Client) -> None:
    """A receiver that is slow, with much to be told, is the one that somebody wants to test."""
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    for _ in range(5):
        ended(acme)
    made = send_test(acme.tenant, webhook.pk)
    first = claimed(acme, Bounds(at_once=1000, per_lane=1))
    assert made.pk in [each.id for each in first]


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_job_that_ends_while_a_webhook_is_removed_ends_and_tells_nobody(acme: Client, database: str) -> None:
    """Else its transaction would fail at the commit, by the foreign key."""
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    job = acme.submit({})
    acme.place.worker().take_one()
    with psycopg.connect(database) as removing:
        removing.execute("DELETE FROM jobs_webhook WHERE id = %s", [webhook.pk])
        ending = aside(end_now, job, State.COMPLETED)
        until(lambda: sql.one(WAITING)[0] == 1)
    ending.result(20)
    assert row(job).state == State.COMPLETED
    assert deliveries(acme) == []
