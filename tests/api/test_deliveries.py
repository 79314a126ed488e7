"""/api/v1/deliveries: what a tenant's receivers were sent, and to be sent again; for the scope `manage`."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jobs.ids import public_id
from jobs.models import Delivery
from jobs.webhooks.deliver import Answer, finish
from jobs.webhooks.register import change, register
from tests.api.v1 import V1
from tests.webhooks.sending import claimed, deliveries, ended
from tests.wire.api import Api, aside

URL = "https://hooks.example.com/hearth?token=T0KEN"
NO_ID = "msg_01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
def v1(manager: V1) -> V1:
    return manager


@pytest.fixture
def stranger(strange_manager: V1) -> V1:
    return strange_manager


def sent(api: Api, status: int | None = 200, **fields: Any) -> Delivery:
    """A delivery of an ended job's that was answered so; None: there was no answer."""
    known = {each.pk for each in deliveries(api.client)}
    ended(api.client, webhook=URL, **fields)
    (made,) = [each for each in deliveries(api.client) if each.pk not in known]
    (each,) = [each for each in claimed(api.client) if each.id == made.pk]
    error = "" if status else "connection refused"
    finish(each, Answer(ms=12, status=status, answer="<b>oops</b>" if status else "", error=error))
    return Delivery.all_tenants.get(pk=made.pk)


def ids(v1: V1, **params: Any) -> list[str]:
    return [one["id"] for one in v1.get("deliveries", **params)["results"]]


def test_they_are_listed_newest_first_with_their_last_try(acme: Api, v1: V1) -> None:
    first, second = sent(acme, 500), sent(acme, None)
    newest, oldest = v1.get("deliveries")["results"]
    assert (newest["id"], oldest["id"]) == (second.message_id, first.message_id)
    assert oldest["last_try"] == {"status": 500, "ms": 12, "answer": "<b>oops</b>", "error": ""}
    assert (newest["last_try"]["status"], newest["last_try"]["error"]) == (None, "connection refused")
    assert (newest["state"], newest["try_count"], newest["kind"]) == ("pending", 1, "completed")
    assert newest["url"] == URL.replace("T0KEN", "…")
    assert (newest["next_at"] is None, newest["ended_at"]) == (False, None)


def test_they_come_in_pages(acme: Api, v1: V1) -> None:
    made = [sent(acme).message_id for _ in range(3)]
    page = v1.get("deliveries", limit=2)
    assert [one["id"] for one in page["results"]] == made[:0:-1]
    rest = v1.http.get(page["next"], headers={"Authorization": v1.authorization}).json()
    assert ([one["id"] for one in rest["results"]], rest["next"]) == ([made[0]], None)


def test_they_are_found_by_webhook_job_state_kind_and_time(acme: Api, v1: V1) -> None:
    old, gone, waits = sent(acme), sent(acme, 410), sent(acme, 500)
    webhook = register(acme.client.tenant, URL, ["failed"]).webhook
    Delivery.all_tenants.filter(pk=waits.pk).update(webhook=webhook, kind="failed")
    Delivery.all_tenants.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=2))
    assert gone.job_id
    assert ids(v1, webhook=str(webhook.pk)) == [waits.message_id]
    assert ids(v1, job=public_id(gone.job_id, False)) == [gone.message_id]
    assert ids(v1, job=public_id(gone.job_id, True)) == []
    assert ids(v1, state="failed,delivered") == [gone.message_id, old.message_id]
    assert ids(v1, kind="failed") == [waits.message_id]
    yesterday = (timezone.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ids(v1, until=yesterday) == [old.message_id]
    assert ids(v1, since=yesterday) == [waits.message_id, gone.message_id]
    assert ids(v1, since=yesterday, state="failed") == [gone.message_id]


@pytest.mark.parametrize(
    "wrong", [{"webhook": "x"}, {"state": "lost"}, {"kind": "done"}, {"since": "long ago"}, {"job": "x" * 101}], ids=str
)
def test_an_odd_filter_is_refused_by_name(v1: V1, wrong: dict[str, str]) -> None:
    assert f"`{next(iter(wrong))}`" in v1.refused(400, "bad_request", "GET", "deliveries", params=wrong)


def test_one_is_told_with_all_its_tries(acme: Api, v1: V1) -> None:
    made = sent(acme, 500)
    job = public_id(made.job_id, False) if made.job_id else ""
    Delivery.all_tenants.filter(pk=made.pk).update(next_at=made.created_at)
    (again,) = claimed(acme.client)
    finish(again, Answer(ms=7, status=200, answer="thanks"))
    told = v1.get(f"deliveries/{made.message_id}")
    assert [(each["status"], each["ms"], each["answer"]) for each in told["tries"]] == [
        (500, 12, "<b>oops</b>"),
        (200, 7, "thanks"),
    ]
    assert (told["state"], told["try_count"], told["job"]) == ("delivered", 2, job)
    for text in (NO_ID, "x", "msg_"):
        v1.refused(404, "not_found", "GET", f"deliveries/{text}")


def test_one_is_sent_again_under_its_id_with_a_day_of_tries(acme: Api, v1: V1) -> None:
    made = sent(acme, 410)
    answered = v1.call("POST", f"deliveries/{made.message_id}/replay")
    told = answered.json()
    assert (answered.status_code, told["id"], told["state"], told["try_count"]) == (202, made.message_id, "pending", 0)
    assert len(told["tries"]) == 1, "what was tried before is kept"
    said = v1.refused(409, "not_replayable", "POST", f"deliveries/{made.message_id}/replay")
    assert said == "It is being sent already."
    assert [each.id for each in claimed(acme.client)] == [made.pk]


def test_of_two_replays_at_once_one_is_refused(acme: Api, v1: V1) -> None:
    made = sent(acme, 410).message_id
    answers = [aside(v1.call, "POST", f"deliveries/{made}/replay") for _ in range(2)]
    assert sorted(answer.result(60).status_code for answer in answers) == [202, 409]


def test_all_that_failed_since_a_time_are_sent_again_of_one_webhook_or_of_all(acme: Api, v1: V1) -> None:
    webhook = register(acme.client.tenant, URL, ["retried"]).webhook
    old, new, own = sent(acme, 410), sent(acme, 410), sent(acme, 410)
    Delivery.all_tenants.filter(pk=old.pk).update(ended_at=timezone.now() - timedelta(days=2))
    Delivery.all_tenants.filter(pk=own.pk).update(webhook=webhook)
    since = {"failed_since": (timezone.now() - timedelta(days=1)).isoformat()}
    change(acme.client.tenant, webhook.pk, enabled=False)
    assert _again(v1, since | {"webhook": str(webhook.pk)}) == 0, "it is paused"
    change(acme.client.tenant, webhook.pk, enabled=True)
    assert _again(v1, since | {"webhook": str(webhook.pk)}) == 1
    assert _again(v1, since) == 1
    assert {each.pk: each.state for each in deliveries(acme.client)} == {
        old.pk: "failed",
        new.pk: "pending",
        own.pk: "pending",
    }


def _again(v1: V1, body: dict[str, Any]) -> int:
    answered = v1.call("POST", "deliveries/replay", json=body)
    assert answered.status_code == 200, answered.text
    return int(answered.json()["sent_again"])


@pytest.mark.parametrize("wrong", [{}, {"failed_since": "then"}, {"failed_since": None}, {"webhook": "x"}], ids=str)
def test_what_says_no_time_is_refused_by_name(v1: V1, wrong: dict[str, Any]) -> None:
    body = ({"failed_since": "2026-11-25"} if "webhook" in wrong else {}) | wrong
    assert f"`{next(iter(wrong), 'failed_since')}`" in v1.refused(
        400, "bad_request", "POST", "deliveries/replay", json=body
    )


def test_globex_finds_none_of_acmes(acme: Api, v1: V1, stranger: V1) -> None:
    made, webhook = sent(acme, 410), register(acme.client.tenant, URL, ["failed"]).webhook
    assert ids(stranger) == ids(stranger, webhook=str(webhook.pk)) == []
    assert ids(stranger, job=public_id(made.job_id, False) if made.job_id else "") == []
    stranger.refused(404, "not_found", "GET", f"deliveries/{made.message_id}")
    stranger.refused(404, "not_found", "POST", f"deliveries/{made.message_id}/replay")
    since = {"failed_since": "2020-01-01T00:00:00Z"}
    assert _again(stranger, since) == 0
    body = since | {"webhook": str(webhook.pk)}
    stranger.refused(404, "not_found", "POST", "deliveries/replay", json=body)
    assert [each.state for each in deliveries(acme.client)] == ["failed"]
