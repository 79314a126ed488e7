"""job-take and job-take-batch (runpod.md 1.1-1.3; rules 1, 3, 4, 13)."""

import time
from unittest import mock
from uuid import UUID

import pytest

from accounts import sql
from accounts.models import Tenant
from jobs import uploads
from jobs.ids import AttemptId, parse_attempt_id
from jobs.loss import lose
from jobs.models import Grant
from tests.cast import WORKFLOW, Client, Place, kinds, new_client, new_place
from tests.fleet.conftest import HELD_S, SDK_WAITS_S
from tests.fleet.wire import Answer, WireWorker, aside, call, public, run

WAKE_S = 0.2


def taken(answers: list[Answer]) -> list[str]:
    return [answer.json["id"] for answer in answers if answer.status == 200]


def test_a_job_is_one_object_with_its_id_and_its_input(worker: WireWorker, acme: Client) -> None:
    job = acme.submit({"prompt": "é漢", "n": None})
    answer = worker.take()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"id": public(job), "input": {"prompt": "é漢", "n": None}}


@pytest.mark.parametrize(
    "given", [b'"text"', b"null", b"7", b"false", b"[]", b"{}", b'{"n": 1.10, "big": 9007199254740993 }']
)
def test_any_input_reaches_the_worker_in_the_bytes_that_came(
    worker: WireWorker, acme: Client, quick: str, given: bytes
) -> None:
    url = f"{quick}/v2/{acme.place.name}/run"
    assert call("POST", url, b'{ "input" : ' + given + b"}", acme.headers).status == 200
    assert worker.take().body.endswith(b'"input":' + given + b"}")


def test_an_empty_queue_holds_the_poll_and_then_answers_204(worker: WireWorker) -> None:
    answer = worker.take(idle=True)
    assert (answer.status, answer.body) == (204, b"")
    assert HELD_S <= answer.seconds < SDK_WAITS_S


def test_a_batch_is_a_list_of_at_most_as_many_as_asked_for(worker: WireWorker, acme: Client) -> None:
    jobs = [public(acme.submit({"n": n})) for n in range(4)]
    first, rest = worker.take_batch(3), worker.take_batch(50)
    assert [job["id"] for job in first.json] == jobs[:3]
    assert [job["id"] for job in rest.json] == jobs[3:]
    assert [job["input"] for job in first.json] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_batch_of_an_empty_queue_is_204_after_the_hold(worker: WireWorker) -> None:
    answer = worker.take_batch(2)
    assert (answer.status, answer.seconds > HELD_S) == (204, True)


@pytest.mark.parametrize("size", ["0", "-1", "", "many", "1.5", "٣", "9999999"])
def test_a_batch_of_no_size_is_refused_and_takes_nothing(worker: WireWorker, acme: Client, size: str) -> None:
    job = acme.submit()
    answer = worker.take_batch(size)
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert "batch_size" in answer.json["error"]
    assert kinds(job) == ["created"]


def test_a_batch_has_at_most_a_hundred_jobs(worker: WireWorker, acme: Client) -> None:
    for n in range(103):
        acme.submit({"n": n})
    assert [len(worker.take_batch(1000).json) for _ in range(2)] == [100, 3]


def test_the_next_attempt_has_its_number_in_the_id(worker: WireWorker, other: WireWorker, acme: Client) -> None:
    job = acme.submit({}, sync=True)
    assert worker.take_one() == public(job)
    assert public(job).startswith("sync-")
    lose(job.uuid, 1, "test")
    assert other.take_one() == public(job) + "-a2"


def test_our_own_worker_gets_the_way_back_within_the_input(quick: str, own_place: Place) -> None:
    job = new_client(own_place).submit({"workflow": WORKFLOW, "_hearth": {"url": "http://evil", "token": "x"}})
    given = WireWorker(quick, own_place).take().json["input"]
    way_back = given.pop("_hearth")
    assert given == {"workflow": WORKFLOW}
    assert way_back["url"] == quick
    assert uploads.read_token(way_back["token"]) == AttemptId(job.uuid, 1)


def test_a_stock_worker_gets_the_requests_own_bucket_as_on_runpod(worker: WireWorker, acme: Client) -> None:
    config = {"endpointUrl": "https://s3.example.com", "accessId": "a", "accessSecret": "b", "bucketName": "theirs"}
    acme.submit({"x": 1}, s3Config=config)
    job = worker.take().json
    assert (job["input"], job["s3Config"]) == ({"x": 1}, config)


def test_a_waiting_poll_wakes_within_200_ms_of_a_submit(worker: WireWorker, acme: Client, quick: str) -> None:
    late = []
    for n in range(10):
        poll = worker.polls()
        job = run(quick, acme, {"n": n})
        answered = time.monotonic()
        assert poll.result().json["id"] == job
        late.append(poll.result().at - answered)
    assert sorted(late)[-2] < WAKE_S, late


def test_a_job_written_by_another_process_wakes_a_poll_too(worker: WireWorker, acme: Client) -> None:
    poll = worker.polls()
    job = acme.submit()
    submitted = time.monotonic()
    assert poll.result().json["id"] == public(job)
    assert poll.result().at - submitted < WAKE_S


def test_of_twenty_polls_and_twenty_submits_each_job_goes_to_exactly_one(
    quick: str, place: Place, acme: Client
) -> None:
    polls = [WireWorker(quick, place, f"w{n}").polls() for n in range(20)]
    jobs = {run(quick, acme, {"n": n}) for n in range(20)}
    answers = [poll.result() for poll in polls]
    given = taken(answers)
    later = [WireWorker(quick, place, "late").take_one() for _ in range(20 - len(given))]
    assert sorted(given + later) == sorted(jobs)
    assert max(answer.seconds for answer in answers) < SDK_WAITS_S


def test_a_tenants_slot_that_frees_at_one_endpoint_goes_to_a_poll_at_another_at_once(
    worker: WireWorker, acme: Client
) -> None:
    """The only job that the tenant may run goes to and fro; by the re-read of held polls it would take a second each
    time."""
    Tenant.objects.filter(pk=acme.tenant.pk).update(max_running=1)
    elsewhere = new_place()
    there = Client(
        acme.tenant, elsewhere, Grant.all_tenants.create(tenant=acme.tenant, endpoint=elsewhere.endpoint), acme.api_key
    )
    acme.submit()
    holds, waits, late = (worker, acme), (WireWorker(worker.url, elsewhere), there), []
    held = worker.take_one()
    for _ in range(4):
        waits[1].submit()
        poll = waits[0].polls()
        freed = time.monotonic()
        holds[0].done(held, output=1)
        held = poll.result().json["id"]
        late.append(poll.result().at - freed)
        holds, waits = waits, holds
    assert sorted(late)[-2] < 2 * WAKE_S, late


def test_one_submit_answers_one_of_many_polls(quick: str, place: Place, acme: Client) -> None:
    polls = [WireWorker(quick, place, f"w{n}").polls() for n in range(5)]
    acme.submit()
    assert sorted(poll.result().status for poll in polls) == [200, 204, 204, 204, 204]


def test_one_wake_is_enough_for_as_many_as_there_are_jobs(quick: str, place: Place, acme: Client) -> None:
    """A NOTIFY wakes one poll of the process; who got a job wakes the next."""
    polls = [WireWorker(quick, place, f"w{n}").polls() for n in range(5)]
    with mock.patch("jobs.lifecycle.announce"):
        for n in range(4):
            acme.submit({"n": n})
    acme.submit()
    submitted = time.monotonic()
    answers = [poll.result() for poll in polls]
    assert [answer.status for answer in answers] == [200] * 5
    assert max(answer.at for answer in answers) - submitted < 2 * WAKE_S


def test_a_full_worker_of_ours_waits_until_it_has_started_what_it_holds(quick: str, own_place: Place) -> None:
    client = new_client(own_place)
    first, second = client.submit(), client.submit()
    worker = WireWorker(quick, own_place)
    token = worker.take().json["input"]["_hearth"]["token"]
    poll = worker.polls()
    assert WireWorker(quick, own_place, "another").take_batch(2).json[0]["id"] == public(second)
    third = client.submit()
    assert not poll.done()
    call("POST", f"{quick}/hooks/worker/{token}/started", b"{}")
    started = time.monotonic()
    assert poll.result().json["id"] == public(third)
    assert poll.result().at - started < WAKE_S
    assert kinds(first) == ["created", "handed", "started"]


def test_a_worker_that_says_it_has_nothing_loses_what_it_was_handed(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    first = worker.take_one()
    sql.run("UPDATE jobs_attempt SET handed_at = handed_at - interval '3 s' WHERE job_id = %s", [job.uuid])
    assert worker.take(idle=True).json["id"] == first + "-a2"
    assert kinds(job) == ["created", "handed", "lost", "handed"]


def test_a_poll_by_a_name_that_no_worker_can_have_is_refused_slowly(quick: str, place: Place) -> None:
    """The SDK polls again at once on 400."""
    workers = [WireWorker(quick, place, name) for name in ("w" * 201, "a%00b", "a%0Ab", "%20%7F")]
    for poll in [aside(ask) for worker in workers for ask in (worker.take, worker.stop)]:
        answer = poll.result()
        assert (answer.status, answer.json["code"]) == (400, "bad_request")
        assert answer.seconds > 1.9


def test_other_methods_and_routes_answer_in_the_one_shape_of_errors(worker: WireWorker) -> None:
    posted = call("POST", worker.path("job-take/w1"), b"", worker.headers)
    unknown = call("GET", worker.path("job-taken/w1"), headers=worker.headers)
    assert (posted.status, posted.json["code"]) == (405, "method_not_allowed")
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")


def test_ids_handed_out_are_those_that_are_understood(worker: WireWorker, acme: Client) -> None:
    job = acme.submit()
    attempt = parse_attempt_id(worker.take_one())
    assert attempt == AttemptId(UUID(str(job.uuid)), 1)
