"""One contract for all backends; and RunPod's answers and failures, each as an error that says whether to try again."""

import threading
from collections.abc import Callable, Iterator

import httpx
import orjson
import pytest
from django.conf import settings

from accounts.sealed import Sealed
from jobs.backends import runpod
from jobs.backends.base import Backend, BackendError, Handover, NotThere, NotUnderstood, OutcomeUnknown, Unwanted
from jobs.backends.dummy import Dummy
from jobs.backends.fleet import Fleet
from jobs.backends.runpod import RunPod, read_report, request_body
from jobs.states import FINAL, State
from jobs.wire.bodies import Unreadable
from tests.runpod.cloud import DROPPED, KEY, NOT_HEARD, Cloud, Fault, There

HANDOVER = Handover(attempt_id="a-e1", input=b'{"n":1}', once_key="a-e1")


@pytest.fixture
def there(cloud: Cloud) -> There:
    return cloud.endpoints.setdefault("conformance", There())


@pytest.fixture
def at_runpod(cloud: Cloud, there: There) -> RunPod:
    there.faults.clear()
    return RunPod(cloud.url, "conformance", Sealed.seal(KEY))


@pytest.fixture(params=["fleet", "dummy", "runpod"])
def backend(request: pytest.FixtureRequest, at_runpod: RunPod) -> Backend:
    return {"fleet": Fleet(), "dummy": Dummy(), "runpod": at_runpod}[request.param]


def calls(backend: Backend) -> Iterator[Callable[[], object]]:
    yield lambda: backend.submit(HANDOVER)
    yield lambda: backend.status("nothing")
    yield lambda: backend.cancel("nothing")
    yield backend.health


def test_what_is_submitted_has_a_name_and_is_done_or_can_be_asked(backend: Backend) -> None:
    if backend.is_pulled:
        return
    submitted = backend.submit(HANDOVER)
    assert submitted.remote_id
    assert backend.ends_at_once == (submitted.report is not None)
    report = submitted.report or backend.status(submitted.remote_id)
    assert report.remote_id == submitted.remote_id
    assert (report.state in FINAL) == backend.ends_at_once


def test_a_pulled_backend_refuses_everything_for_good(backend: Backend) -> None:
    if not backend.is_pulled:
        return
    for call in calls(backend):
        with pytest.raises(BackendError) as caught:
            call()
        assert caught.value.permanent


def test_what_is_not_there_is_told_apart(backend: Backend) -> None:
    if backend.is_pulled:
        return
    for call in (backend.status, backend.cancel):
        with pytest.raises(NotThere):
            call("rp-unknown")


def test_whoever_is_pushed_to_has_a_health(backend: Backend) -> None:
    assert backend.is_pulled or backend.health().workers >= 1


def test_cancel_stops_what_runs_and_leaves_what_has_ended(at_runpod: RunPod, there: There) -> None:
    name = at_runpod.submit(HANDOVER).remote_id
    at_runpod.cancel(name)
    assert at_runpod.status(name).state == State.CANCELLED
    there.becomes(name, "COMPLETED")
    at_runpod.cancel(name)
    assert at_runpod.status(name).state == State.COMPLETED


REFUSED, UNKNOWN = BackendError, OutcomeUnknown
ANSWERS = [
    (400, Unwanted, NotUnderstood, True),
    (401, REFUSED, REFUSED, True),
    (403, REFUSED, REFUSED, True),
    (404, REFUSED, NotThere, True),
    (413, Unwanted, NotUnderstood, True),
    (429, REFUSED, REFUSED, False),
    (500, UNKNOWN, REFUSED, False),
    (502, UNKNOWN, REFUSED, False),
    (503, REFUSED, REFUSED, False),
    (504, UNKNOWN, REFUSED, False),
]


@pytest.mark.parametrize(("status", "submit", "ask", "permanent"), ANSWERS)
def test_each_status_is_an_error_that_says_whether_to_try_again(
    at_runpod: RunPod, there: There, status: int, submit: type[BackendError], ask: type[BackendError], permanent: bool
) -> None:
    there.meets("run", Fault(status=status))
    with pytest.raises(submit) as caught:
        at_runpod.submit(HANDOVER)
    assert type(caught.value) is submit
    assert caught.value.permanent == permanent
    there.meets("status", Fault(status=status))
    with pytest.raises(BackendError) as caught:
        at_runpod.status("rp-1")
    assert type(caught.value) is ask
    assert str(status) in str(caught.value) or status == 404


def test_a_503_by_which_a_hearth_says_that_it_does_not_know_is_an_unknown_outcome(
    at_runpod: RunPod, there: There
) -> None:
    there.meets("run", Fault(status=503, body=b'{"error": "The database is away.", "code": "unavailable"}'))
    with pytest.raises(OutcomeUnknown):
        at_runpod.submit(HANDOVER)


@pytest.mark.parametrize("fault", [DROPPED, NOT_HEARD])
def test_a_connection_that_is_lost_leaves_the_outcome_of_a_submit_open(
    at_runpod: RunPod, there: There, fault: Fault
) -> None:
    there.meets("run", fault)
    with pytest.raises(OutcomeUnknown):
        at_runpod.submit(HANDOVER)


def test_who_does_not_answer_in_time_may_have_taken_it(
    at_runpod: RunPod, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TIMEOUT", "ASK_TIMEOUT"):
        monkeypatch.setattr(runpod, name, httpx.Timeout(30, read=0.3))
    held = threading.Event()
    for op in ("run", "status"):
        there.meets(op, Fault(held=held))
    with pytest.raises(OutcomeUnknown, match="ReadTimeout"):
        at_runpod.submit(HANDOVER)
    with pytest.raises(BackendError, match="ReadTimeout") as caught:
        at_runpod.status("rp-1")
    held.set()
    assert not caught.value.permanent


@pytest.mark.parametrize(("said", "seconds"), [("3", 3), ("100000", 300), ("Fri, 31 Dec 1999 23:59:59 GMT", 60)])
def test_retry_after_is_read(at_runpod: RunPod, there: There, said: str, seconds: float) -> None:
    there.meets("health", Fault(status=429, headers={"Retry-After": said}))
    with pytest.raises(BackendError) as caught:
        at_runpod.health()
    assert caught.value.retry_after_s == seconds


def errors(of: type[Exception]) -> set[type[Exception]]:
    return {of}.union(*(errors(more) for more in of.__subclasses__()))


@pytest.mark.parametrize("error", sorted(errors(httpx.TransportError), key=str), ids=lambda error: error.__name__)
def test_every_failure_of_the_client_is_known(
    at_runpod: RunPod, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("no")

    monkeypatch.setattr(runpod, "client", lambda: httpx.Client(transport=httpx.MockTransport(fail)))
    with pytest.raises(BackendError) as caught:
        at_runpod.submit(HANDOVER)
    assert not caught.value.permanent
    assert isinstance(caught.value, OutcomeUnknown) == (error not in runpod.NOT_SENT)


def test_where_nobody_listens_nothing_was_sent() -> None:
    with pytest.raises(BackendError) as caught:
        RunPod("http://127.0.0.1:9/v2", "x", Sealed.seal(KEY)).submit(HANDOVER)
    assert not isinstance(caught.value, OutcomeUnknown)


def test_connections_are_used_again(at_runpod: RunPod, there: There) -> None:
    there.sent.clear()
    for _ in range(5):
        at_runpod.health()
    assert len({sent.connection for sent in there.sent}) == 1


def test_the_key_shows_in_no_error(cloud: Cloud, there: There) -> None:
    wrong = RunPod(cloud.url, "conformance", Sealed.seal("rpa_WRONG"))
    for call in calls(wrong):
        with pytest.raises(BackendError) as caught:
            call()
        assert "WRONG" not in str(caught.value) + repr(vars(wrong))


def test_a_status_larger_than_a_result_may_be_is_a_fault_and_not_read(
    at_runpod: RunPod, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = at_runpod.submit(HANDOVER).remote_id
    there.becomes(name, "COMPLETED", output="x" * 5000)
    monkeypatch.setattr(settings, "OUTPUT_MAX_BYTES", 1000)
    report = at_runpod.status(name)
    assert (report.state, report.output) == (State.FAILED, None)
    assert "1000 bytes" in report.fault


def test_what_answers_but_not_as_runpod_does_is_said() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runpod, "client", lambda: httpx.Client(transport=page))
        with pytest.raises(BackendError, match="does not answer as RunPod") as caught:
            RunPod("https://example.com/v2", "x", Sealed.seal(KEY)).health()
    assert caught.value.permanent


def test_the_same_handover_is_the_same_bytes() -> None:
    assert request_body(HANDOVER) == request_body(HANDOVER)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b'{"id": "a"}', b'{"id": "a", "status": "DONE"}', b'{"status": ["COMPLETED"]}', b"\xff"],
)
def test_what_is_no_status_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_report(body)


def test_a_report_keeps_the_bytes_of_what_it_says() -> None:
    body = b'{"id":"a","status":"COMPLETED","output":{"n": 1.50,"\\u0000":"\\ud800"},"executionTime":12,"new":[1]}'
    report = read_report(body)
    assert report.output == b'{"n": 1.50,"\\u0000":"\\ud800"}'
    assert (report.remote_id, report.execution_ms, report.error) == ("a", 12, None)


@pytest.mark.parametrize("odd", ["../x", "", 5, None, "a/b", "x" * 201, "é"])
def test_an_odd_id_is_none(odd: object) -> None:
    assert read_report(orjson.dumps({"id": odd, "status": "IN_QUEUE"})).remote_id == ""
