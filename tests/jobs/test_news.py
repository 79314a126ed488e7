"""Rules 1, 4, 9, 10: what a worker reports, once, twice, late, and about what it does not hold."""

import json

import orjson
import pytest

from jobs import history, news
from jobs.ids import AttemptId
from jobs.loss import lose
from jobs.news import Done
from tests.cast import Client, Place, attempt_of, attempt_row, kinds, new_client, row


def done_with(value: object) -> Done:
    return Done(output=orjson.dumps(value), output_value=value)


FAILURE = Done(error=b'"boom"', error_value="boom")


def finish(client: Client, claimed: object, done: Done, worker: str = "w1") -> bool:
    return news.done(client.place.endpoint.pk, worker, attempt_of(claimed), done)


def test_a_result_ends_the_job_and_frees_the_slot(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    assert finish(acme, claimed, done_with({"ok": 1}))
    found, attempt = row(job), attempt_row(claimed)
    assert (found.state, bytes(found.payload.output)) == ("COMPLETED", b'{"ok":1}')
    assert attempt.outcome == "completed"
    assert attempt.released_at is not None
    assert found.execution_ms is not None
    assert kinds(job) == ["created", "handed", "completed"]


def test_an_error_fails_the_job_and_keeps_the_output_beside_it(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    finish(acme, claimed, Done(output=b'{"x":1}', output_value={"x": 1}, error=b'"boom"', error_value="boom"))
    found = row(job)
    assert (found.state, bytes(found.payload.error), bytes(found.payload.output)) == ("FAILED", b'"boom"', b'{"x":1}')


def test_a_doubled_result_changes_nothing_and_is_noted(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    finish(acme, claimed, done_with(1))
    assert not finish(acme, claimed, FAILURE)
    assert row(job).state == "COMPLETED"
    assert kinds(job)[-1] == "ignored"


def test_a_result_of_a_lost_attempt_changes_nothing(acme: Client) -> None:
    job = acme.submit()
    old = acme.place.worker().take_one()
    lose(old.job, old.number, "test")
    new = acme.place.worker("w2").take_one()
    assert not finish(acme, old, done_with("old"))
    assert row(job).state == "IN_PROGRESS"
    assert finish(acme, new, done_with("new"), "w2")
    assert bytes(row(job).payload.output) == b'"new"'


def test_a_result_from_a_worker_that_does_not_hold_it_changes_nothing(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    assert not finish(acme, claimed, done_with(1), "another")
    assert row(job).state == "IN_PROGRESS"


def test_a_result_at_another_endpoint_changes_nothing(acme: Client) -> None:
    from tests.cast import new_place

    job = acme.submit()
    claimed = acme.place.worker().take_one()
    assert not news.done(new_place().endpoint.pk, "w1", attempt_of(claimed), done_with(1))
    assert row(job).state == "IN_PROGRESS"


def test_a_result_for_no_job_is_taken_quietly(acme: Client) -> None:
    from uuid import uuid4

    assert not news.done(acme.place.endpoint.pk, "w1", AttemptId(uuid4(), 1), done_with(1))


def test_a_result_after_a_cancel_frees_the_slot_only(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    acme.cancel(job)
    assert attempt_row(claimed).released_at is None
    assert not finish(acme, claimed, done_with(1))
    assert row(job).state == "CANCELLED"
    assert attempt_row(claimed).released_at is not None


def test_what_cannot_be_read_fails_the_job_with_the_reason(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    finish(acme, claimed, Done(fault="it is not JSON: x"))
    found = row(job)
    assert found.state == "FAILED"
    assert b"it is not JSON" in bytes(found.payload.error)


def test_mended_numbers_leave_a_note(acme: Client) -> None:
    job = acme.submit()
    finish(acme, acme.place.worker().take_one(), Done(output=b"null", mended=True))
    assert "noted" in kinds(job)


@pytest.mark.parametrize("order", [(0.2, 0.6), (0.6, 0.2)])
def test_the_furthest_progress_is_kept_whatever_the_order(acme: Client, order: tuple[float, float]) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    for fraction in order:
        value = {"fraction": fraction}
        news.progress(acme.place.endpoint.pk, "w1", attempt_of(claimed), orjson.dumps(value), value)
    assert orjson.loads(bytes(row(job).payload.progress)) == {"fraction": 0.6}


def test_progress_after_the_end_changes_nothing(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker().take_one()
    finish(acme, claimed, done_with(1))
    news.progress(acme.place.endpoint.pk, "w1", attempt_of(claimed), b'"50%"', "50%")
    found = row(job)
    assert (found.state, found.payload.progress) == ("COMPLETED", None)


def test_started_begins_the_execution_once(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    claimed = own_place.worker().take_one()
    assert row(job).started_at is None
    assert news.started(attempt_of(claimed))
    first = row(job)
    assert first.started_at is not None
    assert first.deadline_at is not None
    assert news.started(attempt_of(claimed)), "asked again, since the first answer may not have arrived"
    assert row(job).started_at == first.started_at
    assert kinds(job) == ["created", "handed", "started"]


def test_started_is_refused_once_the_attempt_has_ended(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    claimed = own_place.worker().take_one()
    client.cancel(job)
    assert not news.started(attempt_of(claimed))
    assert row(job).state == "CANCELLED"


ODD_OUTPUTS = [
    {"files": [], "assets": "x"},
    {"files": 5, "assets": [1, None, {"key": 7}, {"key": "not/a/slot"}, {"key": None}]},
    {"assets": [{}], "datas": {"1": {"n": 2**80, "s": "\ud800"}}},
    {"files": {}, "assets": {}},
    ["assets"],
    "assets",
]


@pytest.mark.parametrize("output", ODD_OUTPUTS)
def test_a_result_of_an_odd_shape_is_kept_and_can_be_read(own_place: Place, output: object) -> None:
    client = new_client(own_place)
    job = client.submit()
    raw = json.dumps(output).encode()
    claimed = own_place.worker().take_one()
    assert finish(client, claimed, Done(output=raw, output_value=json.loads(raw)))
    assert json.loads(history.result(job.uuid).json())["status"] == "COMPLETED"


def test_a_failure_of_our_worker_says_its_error_in_the_output_too(own_place: Place) -> None:
    client = new_client(own_place)
    job = client.submit()
    done = Done(output=b'{"files":[]}', output_value={"files": []}, error=b'"boom"', error_value="boom")
    finish(client, own_place.worker().take_one(), done)
    assert json.loads(history.result(job.uuid).json())["output"] == {"files": [], "error": "boom"}
