"""POST /hooks/runpod/<token>: a webhook counts once, for its own attempt, and what it says is kept."""

import socket
import threading

import orjson
import pytest
from django.conf import settings
from django.core import signing
from django.db import connection

from accounts import sql
from jobs import news, remote, stream
from jobs.ids import AttemptId
from jobs.loss import lose
from jobs.models import Receipt
from jobs.webhooks.receive import receive
from tests.cast import Client
from tests.conftest import Web
from tests.fleet.wire import Answer, call, status
from tests.runpod.cloud import Cloud
from tests.runpod.pushed import Pushed, error, kinds, new_pushed, row, state


def url_of(acme: Pushed, n: int = 0) -> str:
    """What RunPod was told, of the nth job."""
    return str(acme.there.asked("run")[n].json["webhook"])


def post(acme: Pushed, body: bytes) -> Answer:
    return call("POST", url_of(acme), body, {"Content-Type": "application/json"})


def test_a_result_comes_home(web: Web, acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    body = acme.there.becomes(acme.remote(job), "COMPLETED", output={"x": [1]}, executionTime=1500, delayTime=40)
    answer = post(acme, body)
    assert (answer.status, answer.json) == (200, {})
    seen = status(web.url, acme.client, job)
    assert (seen["status"], seen["output"]) == ("COMPLETED", {"x": [1]})
    assert kinds(job) == ["created", "handed", "completed"]
    assert acme.attempt(job).released_at is not None


def test_it_is_answered_in_milliseconds(web: Web, acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    body = acme.there.becomes(acme.remote(job), "IN_PROGRESS")
    assert min(post(acme, body).seconds for _ in range(5)) < 0.1


def test_a_failed_run_has_its_error(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "FAILED", error="CUDA out of memory")
    assert (state(job), error(job)) == ("FAILED", "CUDA out of memory")


def test_a_failed_run_without_a_reason_says_so(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "FAILED", error=None)
    assert error(job) == "RunPod says FAILED and no reason."


def test_what_runpod_says_that_it_ran_is_billed_however_late_the_news(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.passes(600)
    acme.hears(job, "COMPLETED", output=1, executionTime=2500)
    found = acme.attempt(job)
    assert found.gpu_ms is not None
    assert 2500 <= found.gpu_ms < 2700
    assert 2500 <= (row(job).execution_ms or 0) < 2700
    assert 597_000 < (row(job).delay_ms or 0) < 598_000


def test_without_a_time_it_ran_from_the_hand_over(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.passes(3)
    acme.hears(job, "COMPLETED", output=1)
    assert 3000 <= (acme.attempt(job).gpu_ms or 0) < 3300


def test_our_own_worker_that_never_started_is_not_billed(own: Pushed) -> None:
    job = own.pushed()
    own.hears(job, "FAILED", error="bad input", executionTime=50)
    assert own.attempt(job).gpu_ms == 0


def test_duplicates_change_nothing(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    for _ in range(3):
        acme.hears(job, "COMPLETED", output=1, executionTime=10)
    acme.hears(job, "FAILED", error="later")
    assert (state(job), kinds(job)) == ("COMPLETED", ["created", "handed", "completed"])
    assert acme.receipts(job) == ["applied: COMPLETED", *["ignored: the attempt had ended"] * 3]


def test_duplicates_at_the_same_moment_end_the_job_once(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    body = acme.there.becomes(acme.remote(job), "COMPLETED", output=1)

    def hear() -> None:
        acme.hears_body(job, body)
        connection.close()

    threads = [threading.Thread(target=hear) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(job).count("completed") == 1
    assert sorted(acme.receipts(job))[0] == "applied: COMPLETED"


def test_completed_before_in_progress(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears(job, "COMPLETED", output=1)
    acme.hears(job, "IN_PROGRESS", output="half")
    assert (state(job), row(job).payload.progress) == ("COMPLETED", None)


def test_news_before_the_answer_to_run_tells_the_name(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    name = acme.remote(job)
    sql.run("UPDATE jobs_attempt SET remote_id = '' WHERE job_id = %s", [job.uuid])
    acme.hears_body(job, orjson.dumps({"id": name, "status": "IN_PROGRESS"}))
    assert acme.remote(job) == name
    remote.taken(AttemptId(job.uuid, 1), "another")
    assert acme.remote(job) == name


def test_news_of_an_earlier_attempt_is_ignored(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    lose(job.uuid, 1, "it was lost")
    assert acme.dispatch() == 1
    acme.hears(job, "COMPLETED", output="old")
    assert state(job) == "IN_PROGRESS"
    acme.hears(job, "COMPLETED", attempt=2, output="new")
    assert bytes(row(job).payload.output) == b'"new"'


@pytest.mark.parametrize("other", ["rp-other", "", None, 5])
def test_the_body_must_name_the_attempts_job_at_runpod(acme: Pushed, other: object) -> None:
    job = acme.pushed({"n": 1})
    acme.hears_body(job, orjson.dumps({"id": other, "status": "COMPLETED", "output": 1}))
    assert state(job) == "IN_PROGRESS"
    assert acme.receipts(job)[0].startswith("ignored: it is of another job")


def test_unknown_fields_and_words_are_harmless(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears_body(job, orjson.dumps({"id": acme.remote(job), "status": "PONDERING", "new": {"a": [None]}}))
    assert state(job) == "IN_PROGRESS"
    acme.hears(job, "COMPLETED", output=1, retries=[{"x": 1}], delayTime="soon", executionTime=True)
    assert state(job) == "COMPLETED"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"id": "x"}'])
def test_a_body_that_cannot_be_read_has_runpod_asked_at_once(acme: Pushed, body: bytes) -> None:
    job = acme.pushed({"n": 1})
    acme.there.becomes(acme.remote(job), "COMPLETED", output="paid for")
    acme.hears_body(job, body)
    assert "RunPod is asked" in acme.receipts(job)[0]
    acme.dispatch()
    assert bytes(row(job).payload.output) == b'"paid for"'


def test_a_body_that_is_too_large_has_runpod_asked_and_fails_the_job_with_the_reason(
    acme: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = acme.pushed({"n": 1})
    acme.there.becomes(acme.remote(job), "COMPLETED", output="x" * 5000)
    receive(AttemptId(job.uuid, 1), b"{}", "it is larger than 1000 bytes")
    monkeypatch.setattr(settings, "OUTPUT_MAX_BYTES", 1000)
    acme.dispatch()
    assert state(job) == "FAILED"
    assert "larger than 1000 bytes" in error(job)


def test_the_aggregate_of_a_stream_comes_as_the_output(acme: Pushed) -> None:
    """As RunPod has it from a handler with return_aggregate_stream; its /stream is not asked."""
    job = acme.pushed({"n": 1})
    acme.hears(job, "COMPLETED", output=["a", "b"])
    piece = stream.read(acme.client.key, acme.client.place.name, job)
    assert (piece.ended, orjson.loads(piece.json)["stream"]) == (True, [])
    assert orjson.loads(piece.json)["output"] == ["a", "b"]
    assert acme.there.asked("stream") == []


def test_nan_in_a_result_is_made_null(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    acme.hears_body(job, b'{"id": "%s", "status": "COMPLETED", "output": [NaN]}' % acme.remote(job).encode())
    assert bytes(row(job).payload.output) == b"[null]"
    assert kinds(job) == ["created", "handed", "noted", "completed"]


def test_a_result_that_hearth_cannot_keep_fails_the_job_instead_of_coming_for_ever(
    own: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = own.pushed()
    monkeypatch.setattr(news, "_hearth_output", lambda *_: 1 / 0)
    own.hears(job, "COMPLETED", output={"files": []})
    assert state(job) == "FAILED"
    assert "ZeroDivisionError" in error(job)


def test_a_token_that_is_not_ours_learns_nothing(web: Web, acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    good = url_of(acme)
    worker = signing.dumps([job.uuid.hex, 1], salt="hearth.worker")
    other_salt = signing.Signer(salt="other").sign_object([job.uuid.hex, 1])
    answers = [
        call("POST", f"{web.url}/hooks/runpod/{token}", acme.there.becomes(acme.remote(job), "COMPLETED"))
        for token in (good.rsplit("/", 1)[1][:-1], "x", worker, other_salt, f"{'a' * 3000}:b")
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert state(job) == "IN_PROGRESS"


def test_another_tenants_token_opens_its_own_job_only(cloud: Cloud, acme: Pushed, globex: Client) -> None:
    theirs = Pushed(globex, acme.there)
    job, other = acme.pushed({"n": 1}), theirs.pushed({"n": 2})
    theirs.hears_body(other, acme.there.becomes(acme.remote(job), "COMPLETED", output=1))
    assert (state(job), state(other)) == ("IN_PROGRESS", "IN_PROGRESS")


def test_tokens_of_an_old_signing_key_still_open(acme: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    job = acme.pushed({"n": 1})
    token = url_of(acme).rsplit("/", 1)[1]
    monkeypatch.setattr(settings, "SECRET_KEY_FALLBACKS", [settings.SECRET_KEY])
    monkeypatch.setattr(settings, "SECRET_KEY", "a new key")
    assert remote.read_token(token) == AttemptId(job.uuid, 1)
    monkeypatch.setattr(settings, "SECRET_KEY_FALLBACKS", [])
    assert remote.read_token(token) is None


def test_what_came_is_kept_without_its_copy_of_the_request(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    sent = acme.there.asked("run")[0].json
    acme.hears(
        job, "COMPLETED", output="x" * 10_000, input=sent["input"], webhook=sent["webhook"], policy=sent["policy"]
    )
    (receipt,) = Receipt.objects.filter(job=job.uuid)
    assert receipt.bytes > 10_000
    assert len(receipt.said) < 5_000
    assert "/hooks/" not in receipt.said
    assert orjson.loads(receipt.said)["also"] == ["input", "policy", "webhook"]


def test_no_more_than_twenty_are_kept_of_an_attempt(acme: Pushed) -> None:
    job = acme.pushed({"n": 1})
    for _ in range(25):
        acme.hears(job, "IN_PROGRESS")
    assert len(acme.receipts(job)) == 20


def test_the_token_is_in_no_log(web: Web, acme: Pushed) -> None:
    acme.pushed({"n": 1})
    token = url_of(acme).rsplit("/", 1)[1]
    assert post(acme, b"{").status == 200
    with socket.create_connection((web.url.split("/")[2].split(":")[0], int(web.url.rsplit(":", 1)[1]))) as sock:
        sock.sendall(f"POST /hooks/runpod/{token} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert token not in web.log


def test_where_the_name_is_not_known_a_lost_body_ends_the_job(cloud: Cloud) -> None:
    acme = new_pushed(cloud)
    job = acme.pushed({"n": 1})
    sql.run("UPDATE jobs_attempt SET remote_id = '' WHERE job_id = %s", [job.uuid])
    acme.hears_body(job, b"{")
    assert state(job) == "FAILED"
