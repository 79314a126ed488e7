"""/hooks/worker/<token>/… (rules 4, 12): the right of one attempt, and of nothing else."""

import time
from datetime import timedelta
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest

from accounts import sql
from jobs.loss import lose
from jobs.uploads import TOKEN_LIFE_S, worker_token
from tests.cast import Client, kinds, row
from tests.fleet.hooks import Running, file
from tests.fleet.wire import WireWorker, aside, call, public, status

ALL: list[tuple[str, dict[str, Any]]] = [
    ("started", {}),
    ("uploads", {"files": [file()]}),
    ("alive", {}),
    ("outputs", {"assets": []}),
    ("preview", {"content_type": "image/png", "data": "iVBORw0KGgo="}),
    ("hand-back", {}),
]
REFUSED = [409] * 5 + [200]


def untouched(job: Running) -> bool:
    return kinds(job.job) == ["created", "handed"] and job.blobs() == []


def test_started_ends_the_delay_and_begins_the_execution(running: Running) -> None:
    before = status(running.worker.url, running.client, running.job)
    assert "delayTime" not in before
    answer = running.ask("started")
    assert (answer.status, answer.json) == (200, {})
    assert "delayTime" in status(running.worker.url, running.client, running.job)
    assert kinds(running.job) == ["created", "handed", "started"]


def test_started_twice_is_as_good_as_once(running: Running) -> None:
    answers = [aside(running.ask, "started") for _ in range(5)]
    assert {answer.result().status for answer in answers} == {200}
    assert kinds(running.job).count("started") == 1


def test_the_time_out_counts_from_the_start(running: Running) -> None:
    assert row(running.job).deadline_at is None
    running.ask("started")
    found = row(running.job)
    assert found.started_at
    assert found.deadline_at == found.started_at + timedelta(milliseconds=found.execution_timeout_ms)


def test_after_a_cancel_all_but_a_hand_back_is_refused(running: Running) -> None:
    running.client.cancel(running.job)
    assert [running.ask(what, body).status for what, body in ALL] == REFUSED
    refused = running.ask("started").json
    assert (refused["code"], "do not run it" in refused["error"]) == ("not_current", True)
    assert (row(running.job).state, running.blobs()) == ("CANCELLED", [])


def test_an_attempt_that_was_lost_has_no_rights_left(running: Running) -> None:
    lose(running.job.uuid, 1, "test")
    second = Running(running.client, running.job, WireWorker(running.worker.url, running.client.place, "w2"))
    assert [running.ask(what, body).status for what, body in ALL] == REFUSED
    assert (second.attempt, second.ask("started").status) == (f"{public(running.job)}-a2", 200)
    assert kinds(running.job) == ["created", "handed", "lost", "handed", "started"]


def test_a_result_ends_the_rights_of_its_attempt(running: Running) -> None:
    running.ask("started")
    running.done(files=[])
    assert [running.ask(what, body).status for what, body in ALL] == REFUSED
    assert row(running.job).state == "COMPLETED"


def test_a_token_that_is_none_is_404_and_teaches_nothing(running: Running) -> None:
    good = running.token
    cut, turned = good[:-1], good[:-2] + ("AB" if good[-2:] != "AB" else "BA")
    answers = [running.ask("started", token=bad) for bad in ("x", cut, turned, good.replace(":", ";"), "%00", "%C3%A9")]
    assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert answers[0].json == {"error": "There is nothing here.", "code": "not_found"}
    assert untouched(running)


def test_an_expired_token_is_404(running: Running) -> None:
    with mock.patch("django.core.signing.time.time", return_value=time.time() - TOKEN_LIFE_S - 60):
        old = worker_token(running.job.uuid, 1)
    assert [running.ask(what, body, old).status for what, body in ALL] == [404] * len(ALL)
    assert untouched(running)


def test_a_token_of_another_use_is_404(running: Running) -> None:
    from django.core import signing

    for forged in (signing.dumps([running.job.uuid.hex, 1]), signing.dumps("x", salt="hearth.worker")):
        assert running.ask("started", token=forged).status == 404
    assert untouched(running)


def test_a_token_of_a_job_that_is_not_there_changes_nothing(running: Running) -> None:
    stranger = worker_token(uuid4(), 1)
    assert [running.ask(what, body, stranger).status for what, body in ALL] == REFUSED
    assert running.ask("started", token=worker_token(running.job.uuid, 2)).status == 409
    assert untouched(running)


def test_a_token_is_of_its_own_job_only(quick: str, own: Client) -> None:
    first = Running(own, own.submit(), WireWorker(quick, own.place))
    second = Running(own, own.submit(), WireWorker(quick, own.place, "w2"))
    first.ask("started")
    assert first.slots(file())[0]["key"].split("/")[-3:-1] == [str(first.job.uuid), "a1"]
    assert untouched(second)


BAD_FILES: list[Any] = [
    None,
    "a.png",
    [7],
    [None],
    [{}],
    [file() | {"bytes": "3"}],
    [file() | {"bytes": -1}],
    [file() | {"bytes": True}],
    [file() | {"bytes": 6 * 1024**3}],
    [file() | {"name": 7}],
    [file() | {"name": "a\nb"}],
    [file() | {"node": "\0"}],
    [file() | {"sha256": "0" * 65}],
    [file() | {"sha256": "nothing"}],
    [file() | {"content_type": "x" * 250}],
    [file() | {"content_type": "bild/ü"}],
    [file(), {"name": "second"}],
    [file()] * 5001,
]


@pytest.mark.parametrize("files", BAD_FILES, ids=lambda files: str(files)[:40])
def test_a_file_that_cannot_be_is_refused_and_nothing_is_opened(running: Running, files: Any) -> None:
    answer = running.ask("uploads", {"files": files})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert untouched(running)


@pytest.mark.parametrize("what", ["uploads", "hand-back"])
@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"7"])
def test_a_body_that_is_no_object_is_refused(running: Running, what: str, body: bytes) -> None:
    answer = running.ask(what, body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_json")
    assert untouched(running)


def test_a_body_that_is_too_large_is_413(running: Running) -> None:
    assert running.ask("uploads", b'{"files": [], "x": "' + b"x" * 4 * 1024**2 + b'"}').status == 413


@pytest.mark.parametrize("reason", ["shutting down", None, {"k": 1}, "nul \0 and more", "x" * 9000], ids=repr)
def test_a_job_handed_back_is_the_next_workers_at_once(running: Running, reason: Any) -> None:
    waiting = WireWorker(running.worker.url, running.client.place, "w2").polls()
    assert running.ask("hand-back", {"reason": reason}).status == 200
    assert waiting.result().json["id"] == f"{public(running.job)}-a2"
    assert kinds(running.job) == ["created", "handed", "handed_back", "handed"]


def test_handing_back_twice_is_as_good_as_once(running: Running) -> None:
    assert [running.ask("hand-back", {"reason": "r"}).status for _ in range(3)] == [200] * 3
    assert kinds(running.job) == ["created", "handed", "handed_back"]


def test_hooks_take_nothing_but_post(running: Running) -> None:
    answer = call("GET", f"{running.worker.url}/hooks/worker/{running.token}/started")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert running.ask("else").status == 404
    assert untouched(running)


def test_a_hand_back_of_a_job_that_had_started_counts_as_a_loss(running: Running) -> None:
    running.ask("started")
    running.ask("hand-back", {"reason": "the GPU is gone"})
    assert (row(running.job).losses, row(running.job).state) == (1, "IN_QUEUE")
    assert sql.one("SELECT text FROM jobs_event WHERE kind = 'handed_back' AND job_id = %s", [running.job.uuid]) == (
        "the GPU is gone",
    )


def test_a_worker_that_shuts_down_says_that_it_still_runs_the_job(running: Running) -> None:
    running.ask("started")
    assert (running.ask("alive").status, running.ask("alive").json) == (200, {})
    assert kinds(running.job) == ["created", "handed", "started"]


@pytest.mark.parametrize("code", [7, None, "two words", "x" * 51, "ü"], ids=repr)
def test_a_code_that_is_no_word_is_refused(running: Running, code: Any) -> None:
    answer = running.ask("hand-back", {"reason": "r", "code": code})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert untouched(running)


def test_a_job_that_is_given_back_each_time_ends_with_the_workers_error_and_code(running: Running) -> None:
    for _ in range(3):
        running.ask("started")
        running.ask("hand-back", {"reason": "ComfyUI crashed", "code": "comfyui_crashed"})
        found = status(running.worker.url, running.client, running.job)
        if found["status"] == "IN_QUEUE":
            running = Running(running.client, running.job, running.worker)
    assert found["status"] == "FAILED"
    assert "ComfyUI crashed" in found["error"]
    assert found["output"] == {"error": found["error"], "code": "comfyui_crashed"}
