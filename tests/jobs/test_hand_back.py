"""Jobs that a worker gives back after they started: to another worker, a bounded number of times."""

import orjson

from jobs import news
from jobs.loss import hand_back
from tests.cast import Place, attempt_of, new_client, row


def given_back(place: Place, n: int, code: str, *, started: bool = True) -> None:
    claimed = place.worker(f"w{n}").take_one()
    if started:
        news.started(attempt_of(claimed))
    assert hand_back(claimed.job, claimed.number, "ComfyUI crashed.", code)


def test_a_job_that_every_worker_gives_back_fails_with_the_last_reason_and_its_code(own_place: Place) -> None:
    job = new_client(own_place).submit()
    for n in range(3):
        assert row(job).state == "IN_QUEUE"
        given_back(own_place, n, "comfyui_crashed")
    found = row(job)
    assert found.state == "FAILED"
    text = "Given back by its worker 3 times, the last time because ComfyUI crashed."
    assert orjson.loads(bytes(found.payload.error)) == text
    assert orjson.loads(bytes(found.payload.output)) == {"error": text, "code": "comfyui_crashed"}


def test_a_job_given_back_keeps_its_place_in_the_queue(own_place: Place) -> None:
    client = new_client(own_place)
    first, _ = client.submit(), client.submit()
    given_back(own_place, 1, "comfyui_crashed")
    assert own_place.worker("w2").take_one().job == first.uuid


def test_a_shutdown_does_not_count_against_a_started_job_three_times(own_place: Place) -> None:
    job = new_client(own_place).submit()
    for n in range(3):
        given_back(own_place, n, "shutdown")
    assert (row(job).losses, row(job).free_losses, row(job).state) == (0, 3, "IN_QUEUE")
    for n in range(3, 6):
        given_back(own_place, n, "shutdown")
    assert row(job).state == "FAILED"


def test_a_job_given_back_before_its_start_is_free_whatever_the_fault(own_place: Place) -> None:
    job = new_client(own_place).submit()
    given_back(own_place, 1, "disk_full", started=False)
    assert (row(job).losses, row(job).free_losses) == (0, 1)
