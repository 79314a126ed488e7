"""Worker keys (design.md, Security): bare or as Bearer; any other key moves nothing, and a poll with it is slow."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.keys import WORKER, new_key
from jobs.models import WorkerKey
from tests.cast import Client, Place, kinds, new_place, row
from tests.fleet.wire import Answer, WireWorker, aside, call

SLOW_S = 1.9
POLLS = ("take", "take_batch", "stop")


def ask(worker: WireWorker, what: str, attempt: str = "00000000-0000-4000-8000-000000000000-e1") -> Answer:
    args = {"take_batch": ("2",), "done": (attempt,), "ping": (attempt,)}.get(what, ())
    answer: Answer = getattr(worker, what)(*args)
    return answer


def keys(place: Place, acme: Client) -> dict[str, tuple[str, int]]:
    """What may stand in a worker's Authorization, and what it is answered with."""
    revoked, revoked_text = WorkerKey.issue(endpoint=place.endpoint)
    revoked.revoke()
    expired = WorkerKey.issue(endpoint=place.endpoint, expires_at=timezone.now() - timedelta(seconds=1))[1]
    return {
        "none": (" ", 401),
        "garbage": ("rpk-secret", 401),
        "an API key": (acme.api_key, 401),
        "unknown": (new_key(WORKER).text, 401),
        "a wrong secret": (place.worker_key[:-1] + ("A" if place.worker_key[-1] != "A" else "B"), 401),
        "revoked": (revoked_text, 401),
        "expired": (expired, 401),
        "another endpoint's": (new_place().worker_key, 404),
    }


def test_a_wrong_key_gets_nothing_and_a_poll_with_it_is_answered_slowly(quick: str, place: Place, acme: Client) -> None:
    job = acme.submit()
    asked = [
        (f"{what} with {name}", what, status, aside(ask, WireWorker(quick, place, "thief", text), what))
        for name, (text, status) in keys(place, acme).items()
        for what in (*POLLS, "done", "ping")
    ]
    for name, what, status, future in asked:
        answer = future.result()
        assert answer.status == status, name
        assert answer.json["code"] == ("not_found" if status == 404 else "unauthorized"), name
        assert answer.seconds > SLOW_S if what in POLLS else answer.seconds < SLOW_S, name
    assert kinds(job) == ["created"]


def test_a_wrong_key_changes_nothing_of_a_job_that_runs(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    attempt = worker.take_one()
    for text, status in keys(worker.place, acme).values():
        thief = WireWorker(worker.url, worker.place, worker.name, text)
        assert thief.done(attempt, output="stolen").status == status
        assert thief.done(attempt, status="IN_PROGRESS", output="stolen").status == status
        assert thief.ping(status="unhealthy", check="c", reason="r").status == status
    found = row(job)
    assert (found.state, found.payload.progress, kinds(job)) == ("IN_PROGRESS", None, ["created", "handed"])


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "  Bearer   {} "])
def test_the_key_is_read_bare_and_as_a_bearer(quick: str, place: Place, acme: Client, form: str) -> None:
    worker = WireWorker(quick, place, "w1", form.format(place.worker_key))
    acme.submit()
    attempt = worker.take_one()
    assert [ask(worker, what, attempt).status for what in ("ping", "done")] == [200, 200]


def test_two_keys_of_an_endpoint_are_good_while_they_are_rotated(quick: str, place: Place, acme: Client) -> None:
    old, new = WorkerKey.issue(endpoint=place.endpoint)
    job = acme.submit()
    attempt = WireWorker(quick, place, "w1").take_one()
    assert WireWorker(quick, place, "w1", new).done(attempt, output=1).status == 200
    assert row(job).state == "COMPLETED"
    old.revoke()
    assert WireWorker(quick, place, "w1", new).ping().status == 401


def test_a_worker_key_opens_nothing_of_clients(quick: str, place: Place, acme: Client) -> None:
    job = acme.submit()
    for method, what in (("GET", "health"), ("GET", "requests"), ("POST", "purge-queue"), ("POST", "run")):
        answer = call(method, f"{quick}/v2/{place.name}/{what}", b"{}", {"Authorization": place.worker_key})
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert kinds(job) == ["created"]


def test_an_endpoint_that_is_not_there_is_404(quick: str, place: Place) -> None:
    nowhere = WireWorker(quick, place)
    url = nowhere.path("ping/w1").replace(place.name, "nowhere")
    assert call("GET", url, headers=nowhere.headers).status == 404
