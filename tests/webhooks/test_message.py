"""What is posted: /status's own JSON with fresh URLs, signed by all secrets that hold."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from accounts.models import Tenant
from accounts.sealed import SealBroken, Sealed
from jobs import history, loss
from jobs.models import Payload, WebhookSecret
from jobs.states import State
from jobs.webhooks import message as messages
from jobs.webhooks.message import Message, make
from jobs.webhooks.register import first_secret, register, roll_secret, send_test
from storage.models import Asset, Blob
from tests.cast import Client, Place, new_client
from tests.webhooks.sending import end_now, ended, only

URL = "https://example.com/hook"


def made(client: Client) -> Message:
    message = make(only(client).pk)
    assert message is not None
    return message


def holds(secret: str, message: Message) -> bool:
    try:
        Verifier(secret).verify(message.body, message.headers)
        return True
    except WebhookVerificationError:
        return False


@pytest.mark.parametrize("to", [State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT])
def test_the_body_is_what_status_says_of_the_end(acme: Client, to: State) -> None:
    job = ended(acme, to, {"a": [1, "ü", None]}, webhook=URL)
    body = made(acme).body
    assert body == history.status(acme.key, acme.place.name, job).json()
    assert json.loads(body)["status"] == to


def test_a_jobs_metadata_is_told_too(acme: Client) -> None:
    about = {"customer": 42, "kind": "Größe", "trial": True}
    job = ended(acme, State.COMPLETED, 1, webhook=URL, metadata=about)
    status = json.loads(history.status(acme.key, acme.place.name, job).json())
    assert json.loads(made(acme).body) == status | {"metadata": about}


def test_the_headers_are_those_of_standard_webhooks(acme: Client) -> None:
    secret = first_secret(acme.tenant)
    ended(acme, webhook=URL)
    message, delivery = made(acme), only(acme)
    assert message.url == URL
    assert message.headers["webhook-id"] == delivery.message_id == f"msg_{delivery.message}"
    assert message.headers["Content-Type"] == "application/json"
    assert message.headers["User-Agent"] == "Hearth-Webhooks/1"
    assert message.headers["Hearth-Event"] == "completed"
    assert Verifier(secret).verify(message.body, message.headers)["status"] == "COMPLETED"
    assert not holds(secret, Message(url=URL, body=message.body + b" ", headers=message.headers))
    assert not holds(secret, Message(url=URL, body=message.body, headers=message.headers | {"webhook-id": "msg_x"}))


def test_each_try_has_the_same_id_and_a_time_of_its_own(acme: Client) -> None:
    ended(acme, webhook=URL)
    first, second = made(acme).headers, made(acme).headers
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) >= int(first["webhook-timestamp"])


def test_a_tenant_without_a_secret_is_told_unsigned_as_runpod_does(acme: Client) -> None:
    ended(acme, webhook=URL)
    headers = made(acme).headers
    assert "webhook-signature" not in headers
    assert "webhook-id" in headers


def test_a_rolled_secret_and_the_one_before_both_hold_until_the_overlap_is_over(acme: Client) -> None:
    first = first_secret(acme.tenant)
    second = roll_secret(acme.tenant)
    ended(acme, webhook=URL)
    message = made(acme)
    assert len(message.headers["webhook-signature"].split()) == 2
    assert holds(first, message)
    assert holds(second, message)
    past_the_overlap(acme.tenant)
    message = made(acme)
    assert not holds(first, message)
    assert holds(second, message)


def past_the_overlap(tenant: Tenant) -> None:
    old = WebhookSecret.objects.of(tenant).exclude(expires_at=None)
    old.update(expires_at=F("expires_at") - timedelta(hours=25))


def test_a_leaked_secret_is_rolled_without_overlap(acme: Client) -> None:
    leaked, overlapping = first_secret(acme.tenant), roll_secret(acme.tenant)
    new = roll_secret(acme.tenant, timedelta(0))
    ended(acme, webhook=URL)
    assert [holds(secret, made(acme)) for secret in (leaked, overlapping, new)] == [False, False, True]


def test_rolling_again_lengthens_no_old_secrets_life(acme: Client) -> None:
    first_secret(acme.tenant)
    roll_secret(acme.tenant, timedelta(hours=1))
    before = list(WebhookSecret.objects.of(acme.tenant).exclude(expires_at=None).values_list("expires_at", flat=True))
    roll_secret(acme.tenant)
    after = WebhookSecret.objects.of(acme.tenant).exclude(expires_at=None).order_by("id")
    assert list(after.values_list("expires_at", flat=True))[:1] == before
    assert len(after) == 2


def test_one_tenants_secret_does_not_hold_for_anothers_message(acme: Client, globex: Client) -> None:
    secrets = [first_secret(client.tenant) for client in (acme, globex)]
    ended(globex, webhook=URL)
    assert [holds(secret, made(globex)) for secret in secrets] == [False, True]


def test_files_have_urls_signed_at_each_try(own_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = new_client(own_place)
    job = acme.submit(webhook=URL)
    own_place.worker().take_one()
    asset = {"id": "x", "key": f"{acme.tenant.pk}/x.png", "node": "2", "kind": "image", "name": "x.png"}
    own = {"tenant": acme.tenant, "job_id": job.uuid}
    blob = Blob.all_tenants.create(**own, key=asset["key"], bytes=3, content_type="image/png", state="kept")
    Asset.all_tenants.create(**own, blob=blob, name="x.png")
    end_now(job, State.COMPLETED, {"files": [asset["key"]], "datas": {}, "assets": [asset]})
    first = json.loads(made(acme).body)["output"]["files"][0]
    assert "X-Amz-Signature" in first
    history.signer._kept.clear()
    monkeypatch.setattr("django.conf.settings.OUTPUT_URL_LIFETIME", timedelta(hours=1))
    assert json.loads(made(acme).body)["output"]["files"][0] != first


def test_an_output_that_is_too_large_is_left_out_and_the_rest_is_said(
    acme: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BODY_MAX_BYTES", 1000)
    job = ended(acme, output="x" * 2000, webhook=URL)
    said = json.loads(made(acme).body)
    whole = json.loads(history.status(acme.key, acme.place.name, job).json())
    assert whole.pop("output") == "x" * 2000
    assert said == whole | {"outputOmitted": 2002}


def test_news_that_is_no_longer_so_is_not_sent(acme: Client) -> None:
    """A retried job's old end, which its receiver may get after the new one's."""
    job = ended(acme, State.FAILED, webhook=URL)
    assert make(only(acme).pk)
    acme.retry(job)
    assert make(only(acme).pk) is None
    end_now(job, State.FAILED)
    old, new = Payload.objects.get(job=job.uuid).job.deliveries.order_by("id")
    assert make(old.pk) is None
    assert make(new.pk)


def test_a_start_is_told_only_while_that_attempt_runs(acme: Client) -> None:
    register(acme.tenant, URL, ["started"])
    acme.submit({})
    claimed = acme.place.worker().take_one()
    said = json.loads(made(acme).body)
    assert (said["status"], said["workerId"]) == ("IN_PROGRESS", "w1")
    loss.lose(claimed.job, claimed.number, "killed")
    acme.place.worker("w2").take_one()
    first, second = acme.tenant.deliveries(manager="all_tenants").order_by("id")
    assert make(first.pk) is None
    assert make(second.pk)


def test_what_json_allows_and_text_does_not_is_signed_as_it_is_sent(acme: Client) -> None:
    secret = first_secret(acme.tenant)
    ended(acme, output=["\x00", "🔥", "\u2028"], webhook=URL)
    Payload.objects.filter(job=only(acme).job).update(output=b'["\\ud800", 1e400]')
    message = made(acme)
    assert b"\\ud800" in message.body
    assert holds(secret, message)


def test_a_test_says_a_sample(acme: Client) -> None:
    registered = register(acme.tenant, URL, ["completed"])
    send_test(acme.tenant, registered.webhook.pk)
    message = made(acme)
    sample: dict[str, Any] = Verifier(registered.secret).verify(message.body, message.headers)
    assert (sample["status"], message.headers["Hearth-Event"]) == ("COMPLETED", "test")


def test_a_secret_that_was_discarded_with_its_key_makes_no_message(acme: Client) -> None:
    first_secret(acme.tenant)
    WebhookSecret.objects.of(acme.tenant).update(secret=Sealed.seal(""))
    ended(acme, webhook=URL)
    with pytest.raises(SealBroken):
        made(acme)


def test_no_secret_and_no_body_is_in_what_is_printed(acme: Client) -> None:
    registered = register(acme.tenant, URL, ["completed"])
    ended(acme, output="PRIVATE")
    printed = f"{made(acme)} {registered} {list(WebhookSecret.objects.of(acme.tenant).values())}"
    assert registered.secret not in printed
    assert "PRIVATE" not in printed
    assert "v1," not in printed
