"""What the sweeper does for webhooks: mails, forgetting, saying that nobody sends."""

import logging
from datetime import timedelta
from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from django.core import mail
from django.db.models import F
from django_q.models import OrmQ

from accounts.models import Member, User
from jobs import sweep, tasks
from jobs.models import Delivery, DeliveryTry, Webhook, WebhookSecret
from jobs.webhooks.deliver import Answer, disable, finish
from jobs.webhooks.mail import recipients
from jobs.webhooks.register import change, first_secret, forget_secrets, register, roll_secret
from tests.cast import Client, unique
from tests.webhooks.sending import claimed, ended, states, tries

URL = "https://hooks.example.com/x?token=T0KEN"


@pytest.fixture(autouse=True)
def outbox(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Mails as Django's tests keep them; those of others' webhooks are told before."""
    monkeypatch.setattr("django.conf.settings.EMAIL_BACKEND", "django.core.mail.backends.locmem.EmailBackend")
    monkeypatch.setattr("django.conf.settings.ADMINS", [("ops", "ops@hearth.example")])
    mail.outbox = []
    tasks.tell_disabled()
    mail.outbox.clear()
    return mail.outbox


def owner(client: Client, role: Member.Role = Member.Role.OWNER, **fields: Any) -> str:
    address = f"{unique('o')}@acme.example"
    user = User.objects.create_user(unique("user"), email=address, **fields)
    Member.all_tenants.create(tenant=client.tenant, user=user, role=role)
    return address


def disabled(client: Client, why: str = "It answered 410 (Gone).") -> Webhook:
    webhook = register(client.tenant, URL, ["completed"]).webhook
    disable(webhook.pk, why)
    return webhook


def test_the_owners_are_mailed_once_that_a_webhook_is_disabled(acme: Client, outbox: list[Any]) -> None:
    address = owner(acme)
    owner(acme, Member.Role.VIEWER)
    owner(acme, is_active=False)
    webhook = disabled(acme)
    assert tasks.tell_disabled() == 1
    (sent,) = outbox
    assert sent.to == [address]
    assert "hooks.example.com" in sent.subject
    for said in (str(webhook.pk), acme.tenant.name, "It answered 410 (Gone)."):
        assert said in sent.body
    assert "T0KEN" not in sent.subject + sent.body
    assert tasks.tell_disabled() == 0
    assert len(outbox) == 1


def test_without_owners_the_operator_is_mailed(acme: Client, globex: Client, outbox: list[Any]) -> None:
    owner(globex)
    disabled(acme)
    tasks.tell_disabled()
    assert outbox[0].to == ["ops@hearth.example"]


def test_without_anybody_it_is_in_the_log(
    acme: Client, outbox: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("django.conf.settings.ADMINS", [])
    assert recipients(acme.tenant) == []
    disabled(acme)
    tasks.tell_disabled()
    assert outbox == []
    assert "there is nobody to tell it" in caplog.text


def test_a_mail_that_could_not_be_sent_is_tried_again(
    acme: Client, outbox: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any) -> None:
        raise SMTPServerDisconnected("no mail server")

    disabled(acme)
    with monkeypatch.context() as broken:
        broken.setattr("jobs.webhooks.mail.send_mail", away)
        assert tasks.tell_disabled() == 0
    assert tasks.tell_disabled() == 1
    assert len(outbox) == 1


def test_the_sweeper_has_a_task_send_them(acme: Client) -> None:
    assert sweep.tell_disabled() == 0
    disabled(acme)
    before = OrmQ.objects.filter(key="slow").count()
    assert sweep.tell_disabled() == 1
    assert OrmQ.objects.filter(key="slow").count() == before + 1


def test_one_that_fails_anew_after_it_was_enabled_is_mailed_again(acme: Client, outbox: list[Any]) -> None:
    webhook = disabled(acme)
    tasks.tell_disabled()
    change(acme.tenant, webhook.pk, enabled=True)
    disable(webhook.pk, "It answered 410 (Gone).")
    tasks.tell_disabled()
    assert len(outbox) == 2


def test_one_that_its_tenant_has_switched_off_is_nobodys_news(acme: Client, outbox: list[Any]) -> None:
    webhook = register(acme.tenant, URL, ["completed"]).webhook
    change(acme.tenant, webhook.pk, enabled=False)
    assert tasks.tell_disabled() == 0


def test_deliveries_and_their_tries_are_deleted_a_month_after_their_end(acme: Client) -> None:
    for _ in range(3):
        ended(acme, webhook=URL)
    old, young, _waiting = claimed(acme)
    finish(old, Answer(ms=1, status=200))
    finish(young, Answer(ms=1, status=200))
    month = timedelta(days=30, minutes=1)
    Delivery.all_tenants.filter(pk=old.id).update(ended_at=F("ended_at") - month)
    Delivery.objects.of(acme.tenant).update(created_at=F("created_at") - month)
    assert sweep.forget_deliveries() >= 1
    assert states(acme) == ["delivered", "pending"]
    assert not DeliveryTry.all_tenants.filter(delivery_id=old.id).exists()
    assert len(tries(acme)) == 1


def test_a_rolled_secret_is_deleted_when_its_overlap_is_over_and_the_others_stay(acme: Client, globex: Client) -> None:
    for client in (acme, globex):
        first_secret(client.tenant)
        roll_secret(client.tenant)
    over = WebhookSecret.objects.of(acme.tenant).exclude(expires_at=None)
    over.update(expires_at=F("expires_at") - timedelta(hours=25))
    assert sweep.forget_secrets() >= 1
    assert [each.expires_at for each in WebhookSecret.objects.of(acme.tenant)] == [None]
    assert WebhookSecret.objects.of(globex.tenant).count() == 2


def test_secrets_are_deleted_a_batch_at_a_time(acme: Client) -> None:
    sweep.forget_secrets()  # those of other tests
    for _ in range(4):
        roll_secret(acme.tenant, timedelta(0))
    assert [forget_secrets(2), forget_secrets(2)] == [2, 1]


def test_the_sweeper_says_that_nobody_sends(acme: Client, caplog: pytest.LogCaptureFixture) -> None:
    ended(acme, webhook=URL)
    Delivery.objects.of(acme.tenant).update(next_at=F("next_at") - timedelta(minutes=2))
    with caplog.at_level(logging.WARNING):
        assert sweep.say_overdue() >= 1
    assert "nobody sends deliveries" in caplog.text
