"""Which deliveries are written, and when: in the very transaction that makes the news."""

from typing import Any

import orjson
import pytest
from django.db import IntegrityError, transaction

from jobs import lifecycle, loss, news
from jobs.models import Delivery, Webhook
from jobs.news import Done
from jobs.states import News, State, end, lock
from jobs.sweep import time_out_overdue
from jobs.webhooks.register import register
from tests.cast import Client, Place, attempt_of, new_client, row
from tests.webhooks.sending import deliveries, end_now, ended, only

URL = "https://example.com/hook"
ENDS = ["completed", "failed", "cancelled", "timed_out"]


def kinds(client: Client) -> list[str]:
    return [delivery.kind for delivery in deliveries(client)]


@pytest.mark.parametrize("to", [State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT])
def test_each_end_is_told_to_the_url_of_the_request(acme: Client, to: State) -> None:
    job = ended(acme, to, webhook=URL)
    delivery = only(acme)
    assert (delivery.job_id, delivery.kind, delivery.webhook_id) == (job.uuid, to.value.lower(), None)
    assert (delivery.lane, delivery.state, delivery.tries) == (acme.tenant.pk, "pending", 0)
    assert delivery.next_at == delivery.created_at, "it is due at once"


def test_without_any_webhook_nothing_is_written(acme: Client) -> None:
    ended(acme)
    ended(acme, State.FAILED, webhook="")
    assert deliveries(acme) == []


def test_a_registered_webhook_hears_what_it_chose_of_each_job_beside_the_requests_own(acme: Client) -> None:
    webhook = register(acme.tenant, URL, ["failed", "completed"]).webhook
    ended(acme, State.COMPLETED)
    ended(acme, State.CANCELLED)
    ended(acme, State.FAILED, webhook=URL)
    found = [(delivery.kind, delivery.webhook_id) for delivery in deliveries(acme)]
    assert found[0] == ("completed", webhook.pk)
    assert set(found[1:]) == {("failed", webhook.pk), ("failed", None)}
    assert len(found) == 3


def test_a_disabled_webhook_and_another_tenants_hear_nothing(acme: Client, globex: Client) -> None:
    register(globex.tenant, URL, ENDS)
    Webhook.all_tenants.filter(pk=register(acme.tenant, URL, ENDS).webhook.pk).update(enabled=False)
    ended(acme)
    assert deliveries(acme) == deliveries(globex) == []


def test_what_is_rolled_back_is_told_to_nobody(acme: Client) -> None:
    job = acme.submit({}, webhook=URL)
    with transaction.atomic():
        lock(job.uuid)
        assert end(job.uuid, State.CANCELLED, "")
        assert len(deliveries(acme)) == 1
        transaction.set_rollback(True)
    assert deliveries(acme) == []
    assert row(job).state == "IN_QUEUE"


def test_of_two_who_end_a_job_one_writes_the_delivery(acme: Client) -> None:
    job = acme.submit({}, webhook=URL)
    claimed = acme.place.worker().take_one()
    done = Done(output=b'"x"', output_value="x")
    assert news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    assert not news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    acme.cancel(job)
    assert kinds(acme) == ["completed"]


def test_each_end_of_a_retried_job_is_told_once(acme: Client) -> None:
    """Also of one that never got to a worker: its attempt is 0 both times."""
    job = ended(acme, State.TIMED_OUT, webhook=URL)
    acme.retry(job)
    end_now(job, State.TIMED_OUT)
    found = [(delivery.kind, delivery.attempt, delivery.retries) for delivery in deliveries(acme)]
    assert found == [("timed_out", 0, 0), ("timed_out", 0, 1)]


def test_the_sweeper_and_the_purge_tell_too(acme: Client) -> None:
    from jobs.models import Job

    late = acme.submit({}, webhook=URL)
    Job.all_tenants.filter(pk=late.uuid).update(deadline_at=row(late).created_at)
    time_out_overdue()
    acme.submit({}, webhook=URL)
    acme.submit({}, webhook=URL)
    assert lifecycle.purge(acme.key, acme.place.name) == 2
    assert kinds(acme) == ["timed_out", "cancelled", "cancelled"]


def test_a_start_and_each_return_to_the_queue_are_told_to_who_chose_them(own_place: Place) -> None:
    acme = new_client(own_place)
    register(acme.tenant, URL, ["started", "retried"])
    job = acme.submit(webhook=URL)
    worker = own_place.worker()
    first = worker.take_one()
    assert kinds(acme) == [], "Hearth's own worker says when it starts"
    assert news.started(attempt_of(first))
    assert loss.lose(first.job, first.number, "it was killed")
    assert news.started(attempt_of(worker.take_one()))
    end_now(job, State.FAILED)
    acme.retry(job)
    found = [(each.kind, each.attempt, each.retries) for each in deliveries(acme, webhook__isnull=False)]
    assert found == [("started", 1, 0), ("retried", 1, 0), ("started", 2, 0), ("retried", 2, 1)]


def test_a_stock_workers_job_has_started_when_it_is_handed_over(acme: Client) -> None:
    register(acme.tenant, URL, ["started"])
    acme.submit({})
    acme.place.worker().take_one()
    assert kinds(acme) == ["started"]


def test_the_database_takes_no_second_delivery_of_one_end(acme: Client) -> None:
    ended(acme, webhook=URL)
    names = {field.attname for field in Delivery._meta.fields} - {"id", "message"}
    fields = {name: getattr(only(acme), name) for name in names}
    with pytest.raises(IntegrityError, match="delivery_once"), transaction.atomic():
        Delivery.all_tenants.create(**fields)
    Delivery.all_tenants.create(**fields | {"kind": News.STARTED.value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "delivered"},
        {"next_at": None},
        {"state": "failed", "next_at": None},
    ],
)
def test_the_database_takes_no_half_ended_delivery(acme: Client, wrong: dict[str, Any]) -> None:
    ended(acme, webhook=URL)
    with pytest.raises(IntegrityError, match="delivery_pending_or_ended"), transaction.atomic():
        Delivery.objects.of(acme.tenant).update(**wrong)


def test_output_that_is_no_json_text_still_ends_the_job_and_tells_it(acme: Client) -> None:
    acme.submit({}, webhook=URL)
    claimed = acme.place.worker().take_one()
    done = Done(error=orjson.dumps("it broke"), error_value="it broke")
    assert news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    assert kinds(acme) == ["failed"]
