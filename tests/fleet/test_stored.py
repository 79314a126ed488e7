"""What a worker reports as uploaded is looked for in S3 before the job counts as completed."""

import asyncio
import socket
import threading
from typing import Any
from uuid import uuid4

import pytest

from jobs.loss import lose
from jobs.wire.stored import AT_ONE_S3, in_s3
from storage.models import Asset, Blob
from storage.places import client as s3_client
from storage.places import operators_place
from tests.cast import WORKFLOW, Client, new_client, unique
from tests.fleet.hooks import Running, asset, file, put
from tests.fleet.wire import WireWorker, call, status


def there(running: Running, *slots: dict[str, Any]) -> list[bool | None]:
    answer = running.ask("stored", {"ids": [slot["id"] for slot in slots]})
    assert answer.status == 200, answer
    assert [one["id"] for one in answer.json["stored"]] == [slot["id"] for slot in slots]
    return [one["there"] for one in answer.json["stored"]]


def marked(running: Running) -> int:
    return sum(blob.stored_at is not None for blob in running.blobs())


def delete(slot: dict[str, Any], content: bytes | None = None) -> None:
    """Somebody else deletes the object, or writes another in its place."""
    place = operators_place(public=False)
    s3, where = s3_client(place), {"Bucket": place.s3_bucket, "Key": slot["key"]}
    s3.delete_object(**where)
    if content is not None:
        s3.put_object(Body=content, **where)


def test_a_file_is_there_once_it_was_put(running: Running) -> None:
    first, second = running.slots(file("a.png"), file("b.png"))
    assert there(running, first, second) == [False, False]
    put(second, b"abc")
    assert there(running, first, second) == [False, True]
    assert marked(running) == 1


def test_a_file_of_another_size_is_not_the_one(running: Running) -> None:
    [slot] = running.slots(file())
    put(slot, b"abc")
    delete(slot, b"abcd")
    assert there(running, slot) == [False]
    assert marked(running) == 0


def test_what_was_looked_for_is_not_looked_for_again_when_the_job_is_done(running: Running) -> None:
    [mine] = running.stored(file())
    assert there(running, mine) == [True]
    delete(mine)
    assert running.done(files=[mine["key"]], assets=[mine])["status"] == "COMPLETED"


def test_a_worker_that_never_asked_has_its_files_looked_for_when_the_job_is_done(running: Running) -> None:
    [mine] = running.stored(file())
    ended = running.done(files=[mine["key"]], assets=[mine])
    assert (ended["status"], len(ended["output"]["files"]), marked(running)) == ("COMPLETED", 1, 1)


def test_a_job_whose_files_are_not_in_s3_fails_and_says_which(running: Running) -> None:
    described = [file("here.png"), file("gone.png"), file("never.png")]
    slots = running.slots(*described)
    for slot in slots[:2]:
        put(slot, b"abc")
    delete(slots[1])
    assets = [asset(one, slot) for one, slot in zip(described, slots, strict=True)]
    ended = running.done(files=[a["key"] for a in assets], assets=assets)
    assert (ended["status"], ended["output"]["code"]) == ("FAILED", "upload_lost")
    assert ended["error"].startswith("gone.png, never.png: the worker reported")
    assert ended["output"]["error"] == ended["error"]
    assert [a["name"] for a in ended["output"]["assets"]] == ["here.png"]
    assert call("GET", ended["output"]["files"][0]).body == b"abc"
    assert Asset.all_tenants.filter(job_id=running.job.uuid).count() == 1


def test_a_workers_own_error_goes_before_that_of_a_lost_file(running: Running) -> None:
    [slot] = running.slots(file())
    report = {"files": [slot["key"]], "assets": [asset(file(), slot)]}
    running.worker.done(running.attempt, output=report, error="node 7 failed")
    ended = status(running.worker.url, running.client, running.job)
    assert (ended["error"], ended["output"]["assets"]) == ("node 7 failed", [])


def test_a_bucket_that_may_only_be_written_to_is_believed(quick: str, own: Client) -> None:
    """S3 answers 403 to whoever may not read, whether the file is there or not."""
    s3 = operators_place(public=False)
    s3_client(s3).create_bucket(Bucket=(name := unique("theirs")))
    secrets = {"accessId": s3.access_key_id, "accessSecret": "not this one"}
    bucket = {"endpointUrl": s3.endpoint_url, "bucketName": name, **secrets}
    job = own.submit({"workflow": WORKFLOW, "tobucket": bucket})
    running = Running(own, job, WireWorker(quick, own.place))
    [slot] = running.slots(file())
    assert there(running, slot) == [None]
    assert marked(running) == 1
    assert running.done(files=[slot["key"]], assets=[asset(file(), slot)])["status"] == "COMPLETED"


def test_an_s3_that_does_not_answer_loses_no_result(quick: str, own: Client) -> None:
    """It took the file, or the worker would have reported none."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    bucket = {"endpointUrl": url, "bucketName": "theirs", "accessId": "a", "accessSecret": "b"}
    job = own.submit({"workflow": WORKFLOW, "tobucket": bucket})
    running = Running(own, job, WireWorker(quick, own.place))
    [slot] = running.slots(file())
    assert there(running, slot) == [None]
    assert marked(running) == 0
    ended = running.done(files=[slot["key"]], assets=[asset(file(), slot)])
    assert (ended["status"], len(ended["output"]["files"])) == ("COMPLETED", 1)


def test_slots_of_others_are_not_there(quick: str, own: Client, running: Running) -> None:
    globex = new_client(own.place, "globex")
    theirs = Running(globex, globex.submit(), WireWorker(quick, own.place, "w2"))
    [mine] = running.stored(file())
    assert there(theirs, mine, {"id": str(uuid4())}) == [False, False]
    assert marked(running) == 0


def test_an_attempt_that_has_ended_may_not_ask(running: Running) -> None:
    [mine] = running.stored(file())
    lose(running.job.uuid, 1, "test")
    assert running.ask("stored", {"ids": [mine["id"]]}).status == 409
    assert running.ask("stored", {"ids": []}, token="x").status == 404


@pytest.mark.parametrize("ids", [None, "x", ["x"], [7], [None], [[]], ["0" * 32] * 5001], ids=lambda ids: str(ids)[:20])
def test_ids_that_are_none_are_refused(running: Running, ids: Any) -> None:
    answer = running.ask("stored", {"ids": ids})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


def test_an_asset_tells_its_size_and_length(running: Running) -> None:
    told = {"width": 1920, "height": 1080, "duration_ms": 2500}
    odd = {"width": -1, "height": "1080", "duration_ms": 2**40}
    first, second = (mine | facts for mine, facts in zip(running.stored(file(), file()), (told, odd), strict=True))
    output = running.done(files=[first["key"], second["key"]], assets=[first, second])["output"]
    assert [output["assets"][0][name] for name in told] == list(told.values())
    rows = Asset.all_tenants.filter(job_id=running.job.uuid).order_by("position")
    assert [(row.width, row.height, row.duration_ms) for row in rows] == [(1920, 1080, 2500), (None, None, None)]
    assert Blob.all_tenants.filter(job_id=running.job.uuid, state="kept").count() == 2


def test_an_s3_that_hangs_has_no_more_threads_than_its_share_whoever_has_stopped_waiting() -> None:
    asyncio.run(hang_and_come_back())


async def hang_and_come_back() -> None:
    hangs, begun = threading.Event(), []

    def ask(number: int) -> None:
        begun.append(number)
        hangs.wait(60)

    for _ in range(3):
        asked = [in_s3("http://hangs", 0.05, ask, number) for number in range(AT_ONE_S3 + 1)]
        assert {type(error) for error in await asyncio.gather(*asked, return_exceptions=True)} == {TimeoutError}
    assert len(begun) <= AT_ONE_S3
    assert await in_s3("http://answers", 30, lambda: "here") == "here"
    hangs.set()
    assert await in_s3("http://hangs", 30, lambda: "back") == "back"
