"""/api/v1/webhooks: a key with the scope `manage` registers, changes, tests and forgets its tenant's webhooks."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from standardwebhooks import Webhook as Verifier

from accounts.errors import Refused
from accounts.models import Tenant
from jobs.models import Delivery, Webhook, WebhookSecret
from jobs.webhooks import register
from jobs.webhooks.deliver import disable
from tests.api.v1 import V1
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import ended, until
from tests.wire.api import Api, aside

URL = "https://hooks.example.com/hearth?token=T0KEN"
NO_ID = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
def v1(manager: V1) -> V1:
    return manager


@pytest.fixture
def stranger(strange_manager: V1) -> V1:
    return strange_manager


def made(v1: V1, **fields: Any) -> Any:
    answered = v1.call("POST", "webhooks", json={"url": URL} | fields)
    assert answered.status_code == 201, answered.text
    return answered.json()


def test_the_first_comes_with_the_secret_and_none_is_told_again(v1: V1) -> None:
    first, second = made(v1), made(v1, kinds=["started", "completed", "started"])
    assert first["secret"].startswith("whsec_")
    assert second["secret"] is None
    assert first["kinds"] == ["completed", "failed", "cancelled", "timed_out"]
    assert second["kinds"] == ["started", "completed"]
    assert (first["url"], first["state"], first["enabled"]) == (URL.replace("T0KEN", "…"), "enabled", True)
    listed = v1.call("GET", "webhooks")
    assert [one["id"] for one in listed.json()["results"]] == [second["id"], first["id"]]
    for text in (listed.text, v1.call("GET", f"webhooks/{first['id']}").text, v1.call("GET", "webhooks/secrets").text):
        assert first["secret"] not in text
        assert "T0KEN" not in text


def test_it_is_paused_resumed_and_changed(acme: Api, v1: V1) -> None:
    webhook = made(v1)["id"]
    paused = v1.call("PATCH", f"webhooks/{webhook}", json={"enabled": False}).json()
    assert (paused["enabled"], paused["state"]) == (False, "switched off")
    ended(acme.client)
    assert not Delivery.objects.of(acme.client.tenant).exists()
    changed = v1.call("PATCH", f"webhooks/{webhook}", json={"enabled": True, "kinds": ["failed"], "url": URL[:20]})
    assert changed.json() == v1.get(f"webhooks/{webhook}")
    assert (changed.json()["kinds"], changed.json()["url"], changed.json()["enabled"]) == (["failed"], URL[:20], True)


def test_one_that_hearth_disabled_says_why_and_begins_anew(v1: V1) -> None:
    webhook = made(v1)["id"]
    Webhook.all_tenants.filter(pk=webhook).update(failing_since=timezone.now())
    assert v1.get(f"webhooks/{webhook}")["state"] == "failing"
    disable(webhook, "It answered 410 (Gone).")
    found = v1.get(f"webhooks/{webhook}")
    assert (found["state"], found["disabled_why"]) == ("disabled", "It answered 410 (Gone).")
    again = v1.call("PATCH", f"webhooks/{webhook}", json={"enabled": True}).json()
    assert (again["state"], again["failing_since"], again["disabled_why"]) == ("enabled", None, None)


def test_a_test_is_signed_and_the_answer_is_told(v1: V1, receiver: Receiver, deliver: Callable[..., None]) -> None:
    webhook = made(v1, url=receiver.url)
    v1.call("PATCH", f"webhooks/{webhook['id']}", json={"enabled": False})
    deliver()
    sent = v1.call("POST", f"webhooks/{webhook['id']}/test")
    assert (sent.status_code, sent.json()["kind"], sent.json()["webhook"]) == (202, "test", webhook["id"])
    told = until(lambda: _ended(v1, sent.json()["id"]))
    assert (told["state"], told["tries"][0]["status"], told["tries"][0]["answer"]) == ("delivered", 200, "thanks")
    (got,) = receiver.got
    assert got.id == told["id"]
    Verifier(webhook["secret"]).verify(got.body, got.headers)


def _ended(v1: V1, delivery: str) -> Any:
    told = v1.get(f"deliveries/{delivery}")
    return told if told["ended_at"] else None


def test_a_rolled_secret_holds_beside_the_new_one_for_the_overlap(v1: V1) -> None:
    first = made(v1)["secret"]
    rolled = v1.call("POST", "webhooks/secrets", json={"overlap_s": 600})
    assert (rolled.status_code, rolled.json()["secret"] == first) == (201, False)
    new, old = v1.get("webhooks/secrets")["results"]
    assert new["expires_at"] is None
    left = datetime.fromisoformat(old["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=300) < left <= timedelta(seconds=601)
    v1.call("POST", "webhooks/secrets", json={"overlap_s": 0})
    assert len(v1.get("webhooks/secrets")["results"]) == 1
    stored = WebhookSecret.objects.of(v1.client.tenant).order_by("pk").first()
    assert stored
    assert stored.secret.unseal() == first


def test_not_too_many_secrets_sign_at_a_time(v1: V1) -> None:
    made(v1)
    for _ in range(register.MOST_SECRETS - 1):
        assert v1.call("POST", "webhooks/secrets", json={}).status_code == 201
    before = v1.get("webhooks/secrets")
    assert "5 secrets sign now" in v1.refused(409, "too_many_secrets", "POST", "webhooks/secrets", json={})
    assert v1.get("webhooks/secrets") == before
    assert v1.call("POST", "webhooks/secrets", json={"overlap_s": 0}).status_code == 201


def test_of_secrets_that_are_rolled_at_once_one_is_the_newest(v1: V1) -> None:
    answers = [aside(v1.call, "POST", "webhooks/secrets", json={}) for _ in range(4)]
    assert [answer.result(60).status_code for answer in answers] == [201] * 4
    found = v1.get("webhooks/secrets")["results"]
    assert [secret["expires_at"] is None for secret in found] == [True, False, False, False]


def test_a_webhook_is_forgotten_with_its_deliveries(acme: Api, v1: V1) -> None:
    webhook = made(v1)["id"]
    ended(acme.client)
    assert v1.call("DELETE", f"webhooks/{webhook}").status_code == 204
    assert v1.get("deliveries")["results"] == []
    v1.refused(404, "not_found", "GET", f"webhooks/{webhook}")
    v1.refused(404, "not_found", "DELETE", f"webhooks/{webhook}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://hooks.example.com"},
        {"url": "https://10.0.0.1/"},
        {"url": "https://user:pass@example.com/"},
        {"url": "x" * 2049},
        {"url": ""},
        {"url": None},
        {"url": 5.5},
        {"url": "a\x00"},
        {"kinds": []},
        {"kinds": ["test"]},
        {"kinds": "completed"},
        {"kinds": None},
        {"kinds": [["completed"]]},
    ],
    ids=str,
)
def test_what_cannot_be_a_webhook_is_refused_by_name(v1: V1, wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    assert f"`{name}`" in _refused(v1, "POST", "webhooks", {"url": URL} | wrong)
    webhook = made(v1)
    assert f"`{name}`" in _refused(v1, "PATCH", f"webhooks/{webhook['id']}", wrong)
    assert v1.get(f"webhooks/{webhook['id']}")["url"] == webhook["url"]


def _refused(v1: V1, method: str, path: str, body: Any) -> str:
    answered = v1.call(method, path, json=body)
    assert answered.status_code == 400, answered.text
    return str(answered.json()["error"])


@pytest.mark.parametrize("overlap_s", [-1, 31 * 24 * 3600, "long", None])
def test_an_overlap_is_of_at_most_thirty_days(v1: V1, overlap_s: Any) -> None:
    assert "`overlap_s`" in _refused(v1, "POST", "webhooks/secrets", {"overlap_s": overlap_s})


def test_there_are_not_too_many(v1: V1) -> None:
    for _ in range(register.MOST_WEBHOOKS):
        made(v1)
    v1.refused(409, "too_many_webhooks", "POST", "webhooks", json={"url": URL})


def test_a_deleted_tenant_gets_no_webhook_and_no_secret(acme: Api) -> None:
    tenant = acme.client.tenant
    webhook = register.register(tenant, URL, ["completed"]).webhook
    Tenant.objects.filter(pk=tenant.pk).update(deleted_at=timezone.now())
    for verb in (
        lambda: register.register(tenant, URL, ["completed"]),
        lambda: register.first_secret(tenant),
        lambda: register.roll_secret(tenant),
        lambda: register.change(tenant, webhook.pk, enabled=True),
    ):
        with pytest.raises(Refused) as caught:
            verb()
        assert (caught.value.status, tenant.name in caught.value.error) == (410, True)
    assert WebhookSecret.objects.of(tenant).count() == 1


def test_globex_finds_none_of_acmes(v1: V1, stranger: V1) -> None:
    webhook = made(v1)["id"]
    for id in (webhook, NO_ID):
        stranger.refused(404, "not_found", "GET", f"webhooks/{id}")
        stranger.refused(404, "not_found", "PATCH", f"webhooks/{id}", json={"enabled": False})
        stranger.refused(404, "not_found", "DELETE", f"webhooks/{id}")
        stranger.refused(404, "not_found", "POST", f"webhooks/{id}/test")
    assert stranger.get("webhooks")["results"] == stranger.get("webhooks/secrets")["results"] == []
    assert made(stranger)["secret"], "its own"
    assert v1.get(f"webhooks/{webhook}")["enabled"]
    assert len(v1.get("webhooks/secrets")["results"]) == 1
