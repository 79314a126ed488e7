"""manage.py webhook: all that an operator does about webhooks, from a shell."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from accounts.models import Tenant
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.webhooks.deliver import Answer, disable, finish
from jobs.webhooks.register import first_secret, register
from tests.cast import Client
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import claimed, deliveries, ended, only, states

URL = "https://example.com/hook?token=T0KEN"


def said(*args: Any) -> str:
    out = StringIO()
    call_command("webhook", *map(str, args), stdout=out)
    return out.getvalue()


def rows(*args: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(*args, "--json").splitlines()]


def refused(*args: Any) -> str:
    with pytest.raises(CommandError) as caught:
        said(*args)
    return str(caught.value)


def tried(client: Client, answer: Answer, **fields: Any) -> Delivery:
    """A delivery of the client's that was tried once, with that answer."""
    ended(client, **fields)
    (each,) = claimed(client)
    finish(each, answer)
    return Delivery.all_tenants.get(pk=each.id)


def test_a_webhook_is_added_and_the_secret_is_said_once(acme: Client) -> None:
    (first,) = rows("add", acme.tenant.name, URL, "failed", "started")
    webhook = Webhook.objects.of(acme.tenant).get()
    assert (webhook.url, webhook.kinds) == (URL, ["started", "failed"])
    secret = first.pop("secret")
    assert secret == WebhookSecret.objects.of(acme.tenant).get().secret.unseal()
    assert first == {
        "webhook": str(webhook.pk),
        "tenant": acme.tenant.name,
        "state": "enabled",
        "kinds": ["started", "failed"],
        "url": "https://example.com/hook?token=…",
        "why": "",
    }
    again = said("add", acme.tenant.name, URL)
    assert "secret" not in again
    assert "kinds: completed,failed,cancelled,timed_out" in again, "the ends, if none is named"
    assert secret not in said("list") + said("deliveries")


def test_what_cannot_be_is_refused_in_words(acme: Client) -> None:
    assert "There is no tenant 'nobody'" in refused("add", "nobody", URL)
    assert "`url`" in refused("add", acme.tenant.name, "ftp://example.com/")
    assert "'done' is none of" in refused("add", acme.tenant.name, URL, "done")
    for verb in ("enable", "disable", "remove", "test"):
        assert "There is no webhook 'x'" in refused(verb, "x")
        assert "There is no webhook" in refused(verb, acme.tenant.pk)
    for verb in ("tries", "replay"):
        assert "There is no delivery 'msg_x'" in refused(verb, "msg_x")
    assert "There is no job 'x'" in refused("deliveries", "--job", "x")
    assert "one of the two" in refused("replay")
    assert "is no time" in refused("replay", "--failed-since", "lately")
    for wrong in ("-1", "soon", "1e99"):
        refused("roll", acme.tenant.name, f"--overlap={wrong}")
    assert not Webhook.objects.of(acme.tenant).exists()
    assert not WebhookSecret.objects.of(acme.tenant).exists()


def test_all_webhooks_are_listed_or_a_tenants(acme: Client, globex: Client) -> None:
    mine, theirs = (register(client.tenant, URL, ["completed"]).webhook for client in (acme, globex))
    disable(mine.pk, "It answered 410 (Gone).")
    Webhook.all_tenants.filter(pk=theirs.pk).update(failing_since=timezone.now())
    found = {row["webhook"]: row for row in rows("list")}
    assert (found[str(mine.pk)]["state"], found[str(mine.pk)]["why"]) == ("disabled", "It answered 410 (Gone).")
    assert found[str(theirs.pk)]["state"] == "failing"
    assert [row["webhook"] for row in rows("list", "--tenant", globex.tenant.name)] == [str(theirs.pk)]
    header, line = said("list", "--tenant", acme.tenant.name).splitlines()
    assert header.split() == ["webhook", "tenant", "state", "kinds", "url", "why"]
    assert line.startswith(f"{mine.pk}  {acme.tenant.name}  disabled")


def test_a_secret_is_rolled_with_the_overlap_that_is_asked_for(acme: Client) -> None:
    first = rows("roll", acme.tenant.name)[0]["secret"]
    second = said("roll", acme.tenant.name, "--overlap", 2).removeprefix("secret: ").strip()
    old, new = WebhookSecret.objects.of(acme.tenant).order_by("id")
    assert (old.secret.unseal(), new.secret.unseal(), new.expires_at) == (first, second, None)
    assert timedelta(minutes=119) < old.expires_at - timezone.now() < timedelta(hours=2)


def test_a_webhook_is_disabled_enabled_and_removed(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    assert rows("disable", webhook.pk)[0]["state"] == "switched off"
    ended(acme)
    assert deliveries(acme) == []
    assert rows("enable", webhook.pk)[0]["state"] == "enabled"
    tried(acme, Answer(ms=1, status=500))
    said("remove", webhook.pk)
    assert not Webhook.objects.of(acme.tenant).exists()
    assert deliveries(acme) == []


def test_a_test_says_what_the_receiver_answered(acme: Client, receiver: Receiver, deliver: Callable[..., None]) -> None:
    secret = first_secret(acme.tenant)
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    receiver.status, receiver.body = 201, b"I see\x1b[2J\nyou"
    deliver()
    found = dict(line.split(": ", 1) for line in said("test", webhook.pk).splitlines())
    assert (found["status"], found["answer"]) == ("201", "I see [2J you"), "nothing that a terminal obeys"
    assert 0 <= int(found["ms"]) < 15_000
    (got,) = receiver.got
    assert got.id == found["delivery"]
    Verifier(secret).verify(got.body, got.headers)


def test_a_test_that_is_not_taken_fails_the_command_and_says_why(
    acme: Client, receiver: Receiver, deliver: Callable[..., None]
) -> None:
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    receiver.status = 500
    deliver()
    out = StringIO()
    with pytest.raises(CommandError, match="has not taken it"):
        call_command("webhook", "test", str(webhook.pk), stdout=out)
    assert "status: 500" in out.getvalue()
    assert states(acme) == ["failed"]


def test_a_test_that_nobody_sends_says_so(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    assert "no deliverer runs" in refused("test", webhook.pk, "--wait", 0)


def test_deliveries_are_shown_with_their_last_try(acme: Client) -> None:
    failing = tried(acme, Answer(ms=12, status=500, answer="oops"), webhook=URL)
    (row,) = rows("deliveries", "--tenant", acme.tenant.name)
    assert row.pop("next_at")[:4].isdigit()
    assert row == {
        "delivery": failing.message_id,
        "tenant": acme.tenant.name,
        "job": failing.job.public_id if failing.job else "",
        "kind": "completed",
        "state": "pending",
        "tries": 1,
        "url": "https://example.com/hook?token=…",
        "last_try": "500 in 12 ms: oops",
    }
    assert "T0KEN" not in said("deliveries")


def test_deliveries_are_found_by_state_tenant_webhook_job_and_that_nobody_sends_them(
    acme: Client, globex: Client
) -> None:
    failed = tried(acme, Answer(ms=1, status=410), webhook=URL)
    ended(globex, webhook=URL)
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    ended(acme)
    due = deliveries(acme)[-1]
    Delivery.all_tenants.filter(pk=due.pk).update(next_at=F("next_at") - timedelta(minutes=2))

    def found(*options: Any) -> list[str]:
        return [row["delivery"] for row in rows("deliveries", "--tenant", acme.tenant.name, *options)]

    assert found() == [due.message_id, failed.message_id]
    assert found("--limit", 1) == [due.message_id]
    assert found("--state", "failed") == [failed.message_id]
    assert found("--overdue") == [due.message_id]
    assert found("--webhook", webhook.pk) == [due.message_id]
    assert failed.job
    assert found("--job", failed.job.public_id) == [failed.message_id]
    assert only(globex).message_id in said("deliveries", "--state", "pending")
    assert said("deliveries", "--tenant", acme.tenant.name, "--state", "delivered") == "none\n"


def test_the_tries_of_a_delivery_are_listed(acme: Client) -> None:
    ended(acme, webhook=URL)
    (each,) = claimed(acme)
    for answer in (Answer(ms=5000, error="No answer within 15 s."), Answer(ms=3, status=200, answer="thanks")):
        finish(each, answer)
    first, second = rows("tries", only(acme).message_id)
    assert (first["status"], first["ms"], first["error"]) == (None, 5000, "No answer within 15 s.")
    assert (second["status"], second["ms"], second["answer"]) == (200, 3, "thanks")
    assert "thanks" in said("tries", only(acme).message_id)


def test_deliveries_are_sent_again_by_their_id(acme: Client) -> None:
    both = [tried(acme, Answer(ms=1, status=status), webhook=URL) for status in (410, 200)]
    assert rows("replay", *(delivery.message_id for delivery in both)) == [{"sent_again": 2}]
    assert states(acme) == ["pending", "pending"]
    assert "It is being sent already" in refused("replay", both[0].message_id)


def test_all_that_failed_since_a_time_is_sent_again(acme: Client, globex: Client) -> None:
    for client in (acme, acme, globex):
        tried(client, Answer(ms=1, status=410), webhook=URL)
    old = deliveries(acme)[0]
    Delivery.all_tenants.filter(pk=old.pk).update(ended_at=F("ended_at") - timedelta(days=3))
    since = f"{timezone.now() - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    assert rows("replay", "--failed-since", since, "--tenant", acme.tenant.name) == [{"sent_again": 1}]
    assert states(acme) == ["failed", "pending"]
    assert states(globex) == ["failed"]
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    assert rows("replay", "--failed-since", "2026-01-01", "--webhook", webhook.pk) == [{"sent_again": 0}]
    rows("replay", "--failed-since", f"{since}+00:00")
    assert states(globex) == ["pending"]


def test_a_deleted_tenant_gets_no_webhook_and_no_secret(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    Tenant.objects.filter(pk=acme.tenant.pk).update(deleted_at=timezone.now())
    for args in (("add", acme.tenant.name, URL), ("roll", acme.tenant.name), ("enable", webhook.pk)):
        assert f"The tenant '{acme.tenant.name}' was deleted at " in refused(*args)
    assert Webhook.objects.of(acme.tenant).count() == WebhookSecret.objects.of(acme.tenant).count() == 1
