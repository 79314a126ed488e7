"""Large files go into S3 in parts: by the worker's own code, through a real web, into a real S3 that may be killed."""

import asyncio
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from accounts.sealed import Sealed
from hearth.local import seaweed
from hearth.local.home import Home
from hearth.local.process import Child, stop
from jobs.loss import lose
from jobs.uploads import discard
from storage.models import Blob, Bucket
from storage.places import client as s3_client
from storage.places import operators_place, tenants_place
from tests.cast import Client, Place, new_client
from tests.fleet.hooks import Running, file, put
from tests.fleet.test_outputs import age_blobs, exists, get
from tests.fleet.wire import WireWorker, aside, until
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.put import Putter, Signed
from worker.upload import through_hearth
from worker.wire import networks

MIB = 1024**2
SIZE = 21 * MIB + 123
NUMBERS = [1, 2, 3, 4, 5]


def content() -> bytes:
    return b"".join(bytes([number]) * MIB for number in range(21)) + b"x" * 123


def described(**fields: Any) -> dict[str, Any]:
    return file("film.mp4", content(), content_type="video/mp4") | fields


class Watched(Putter):
    """Counts the PUTs of each part, and does before each what the test says."""

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        super().__init__(networks(["127.0.0.0/8"]), 60)
        self.puts: list[int] = []
        self.before = before

    async def _send(self, piece: Any, to: Signed) -> str:
        number = 1 + piece.offset // (5 * MIB)
        self.puts.append(number)
        await asyncio.to_thread(self.before, number)
        return await super()._send(piece, to)


def shipped(running: Running, before: Callable[[int], None] = lambda number: None) -> tuple[Any, list[int]]:
    async def go() -> tuple[Any, list[int]]:
        film = OutputFile(node="9", name="film.mp4")
        film.write(content())
        putter = Watched(before)
        async with aiohttp.ClientSession() as session:
            hearth = Hearth(running.worker.url, running.token, session, 60)
            [result] = await through_hearth([film], hearth, putter)
        await putter.close()
        return result, putter.puts

    return asyncio.run(go())


def reported(running: Running, result: Any) -> Any:
    assert isinstance(result, Stored), result
    made = described() | {"id": result.asset.id, "key": result.asset.key}
    return running.done(files=[made["key"]], assets=[made])


def test_a_large_file_goes_in_parts_and_is_whole(running: Running) -> None:
    result, puts = shipped(running)
    assert sorted(puts) == NUMBERS
    ended = reported(running, result)
    assert ended["status"] == "COMPLETED"
    status, body, content_type = get(ended["output"]["files"][0])
    assert (status, content_type) == (200, "video/mp4")
    assert hashlib.sha256(body).hexdigest() == result.asset.sha256 == described()["sha256"]


def test_a_small_file_and_an_older_worker_put_the_file_as_a_whole(running: Running) -> None:
    large, small = described(), file()
    slots = running.ask("uploads", {"files": [large, small], "parts": True}).json["uploads"]
    assert [(slot["part_bytes"], bool(slot["url"])) for slot in slots] == [(5 * MIB, False), (0, True)]
    [old] = running.slots(large)
    assert (old["part_bytes"], put(old, content()).status) == (0, 200)


def test_a_part_that_broke_is_sent_again_alone(running: Running) -> None:
    broken = {3, 5}

    def breaks(number: int) -> None:
        if number in broken:
            broken.remove(number)
            raise aiohttp.ClientOSError(104, "Connection reset by peer")

    result, puts = shipped(running, breaks)
    assert sorted(puts) == [1, 2, 3, 3, 4, 5, 5]
    assert reported(running, result)["status"] == "COMPLETED"


def test_a_part_whose_url_expired_gets_another(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import put as puts_module

    spoilt: list[str] = []
    real = puts_module.URL

    def url(text: str, **more: Any) -> Any:
        if "partNumber=2" in text and not spoilt:
            spoilt.append(text)
            text = text.replace("X-Amz-Date=2", "X-Amz-Date=1")  # a thousand years ago
        return real(text, **more)

    monkeypatch.setattr(puts_module, "URL", url)
    result, puts = shipped(running)
    assert (sorted(puts), len(spoilt)) == ([1, 2, 2, 3, 4, 5], 1)
    assert reported(running, result)["status"] == "COMPLETED"


def slot_of(running: Running) -> dict[str, Any]:
    [slot] = running.ask("uploads", {"files": [described()], "parts": True}).json["uploads"]
    return slot


def ask_parts(running: Running, slot: dict[str, Any], *numbers: int) -> list[dict[str, Any]]:
    answer = running.ask("parts", {"id": slot["id"], "numbers": numbers})
    assert answer.status == 200, answer
    parts: list[dict[str, Any]] = answer.json["parts"]
    return parts


def put_parts(running: Running, slot: dict[str, Any], *numbers: int) -> list[dict[str, Any]]:
    done = []
    for part in ask_parts(running, slot, *numbers):
        piece = content()[(part["number"] - 1) * 5 * MIB :][: 5 * MIB]
        answer = put(part, piece)
        assert answer.status == 200
        done.append({"number": part["number"], "etag": answer.headers["ETag"]})
    return done


def uploads_in_s3(key: str) -> int:
    place = operators_place(public=False)
    found = s3_client(place).list_multipart_uploads(Bucket=place.s3_bucket).get("Uploads") or []
    return sum(each["Key"] == key for each in found)


def test_a_part_of_another_length_is_refused(running: Running) -> None:
    [part] = ask_parts(running, slot_of(running), 1)
    assert put(part, b"short").status == 403


def test_a_file_lacks_a_part_and_is_not_made(running: Running) -> None:
    slot = slot_of(running)
    done = put_parts(running, slot, 1, 2)
    answer = running.ask("complete", {"id": slot["id"], "parts": [*done, {"number": 3, "etag": done[0]["etag"]}]})
    assert answer.json["found"]["there"] is False
    assert running.ask("stored", {"ids": [slot["id"]]}).json["stored"][0]["there"] is False
    made = described() | {"id": slot["id"], "key": slot["key"]}
    assert running.done(files=[slot["key"]], assets=[made])["output"]["code"] == "upload_lost"


def test_a_file_of_too_few_parts_is_not_whole(running: Running) -> None:
    slot = slot_of(running)
    answer = running.ask("complete", {"id": slot["id"], "parts": put_parts(running, slot, 1, 2)})
    assert answer.json["found"]["there"] is False
    assert Blob.all_tenants.get(pk=slot["id"]).stored_at is None


def test_completing_twice_is_as_good_as_once(running: Running) -> None:
    slot = slot_of(running)
    body = {"id": slot["id"], "parts": put_parts(running, slot, *NUMBERS)}
    assert [running.ask("complete", body).json["found"]["there"] for _ in range(2)] == [True, True]


def test_an_upload_in_parts_that_nobody_completed_is_aborted(quick: str, running: Running) -> None:
    slot = slot_of(running)
    put_parts(running, slot, 1)
    assert uploads_in_s3(slot["key"]) == 1
    lose(running.job.uuid, 1, "test")
    age_blobs(running)
    discard(1000)
    assert uploads_in_s3(slot["key"]) == 0
    assert running.blobs() == []


def test_urls_of_parts_are_of_the_own_attempt_and_its_slots_only(quick: str, own: Client, running: Running) -> None:
    globex = new_client(own.place, "globex")
    theirs = Running(globex, globex.submit(), WireWorker(quick, own.place, "w2"))
    mine, whole = slot_of(running), running.slots(file())[0]
    for what, more in (("parts", {"numbers": [1]}), ("complete", {"parts": [{"number": 1, "etag": "x"}]})):
        assert theirs.ask(what, {"id": mine["id"], **more}).status == 400
        assert running.ask(what, {"id": whole["id"], **more}).status == 400
    lose(running.job.uuid, 1, "test")
    assert running.ask("parts", {"id": mine["id"], "numbers": [1]}).status == 409
    assert running.ask("complete", {"id": mine["id"], "parts": [{"number": 1, "etag": "x"}]}).status == 409
    assert Blob.all_tenants.get(pk=mine["id"]).upload_id == ""


BAD: list[tuple[str, dict[str, Any]]] = [
    *[("parts", {"numbers": numbers}) for numbers in (None, [0], [6], ["1"], [True], [1] * 1001)],
    *[("complete", {"parts": parts}) for parts in (None, [], [7], [{}], [{"number": 1}], [{"number": 1, "etag": 7}])],
]


@pytest.mark.parametrize(("what", "more"), BAD, ids=lambda value: str(value)[:30])
def test_parts_that_cannot_be_are_refused(running: Running, what: str, more: dict[str, Any]) -> None:
    answer = running.ask(what, {"id": slot_of(running)["id"], **more})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


@pytest.fixture(scope="module")
def theirs() -> Iterator[tuple[Home, Callable[[], Child]]]:
    """An S3 of a tenant's own, to be killed and started again."""
    home = Home(Path(tempfile.mkdtemp(prefix="hearth-s3-")))
    started: list[Child] = []

    def start() -> Child:
        started.append(Child(seaweed.part(home, "theirs"), home.folder("logs") / "s3.log"))
        until(started[-1].is_ready, 60)
        return started[-1]

    yield home, start
    stop(started)
    seaweed.clear_sockets(home)
    home.clear_sockets()


def bucket_of(client: Client, home: Home, name: str = "theirs") -> Bucket:
    found = seaweed.credentials(home)
    where = {"endpoint_url": found["endpoint_url"], "s3_bucket": name, "access_key_id": found["access_key_id"]}
    sealed = Sealed.seal(found["secret_access_key"])
    return Bucket.all_tenants.create(
        tenant=client.tenant, name="main", is_default=True, secret_access_key=sealed, **where
    )


def test_an_s3_that_is_killed_in_mid_upload_gets_what_it_lacks_when_it_is_back(
    quick: str, own_place: Place, theirs: tuple[Home, Callable[[], Child]]
) -> None:
    home, start = theirs
    s3, at_five, again = start(), threading.Event(), threading.Event()
    client = new_client(own_place)
    bucket = bucket_of(client, home)
    running = Running(client, client.submit(), WireWorker(quick, own_place))

    def waits(number: int) -> None:
        if number == 5 and not at_five.is_set():
            at_five.set()
            again.wait(60)

    sent = aside(shipped, running, waits)
    assert at_five.wait(60)
    s3.kill()
    stop([s3])
    again.set()
    start()
    result, puts = sent.result(90)
    assert set(puts) == set(NUMBERS)
    assert reported(running, result)["status"] == "COMPLETED"
    place = tenants_place(bucket)
    head = s3_client(place).head_object(Bucket=place.s3_bucket, Key=result.asset.key)
    assert head["ContentLength"] == SIZE


def test_an_s3_that_lets_nobody_begin_fails_the_file_and_says_why(quick: str, own_place: Place) -> None:
    client = new_client(own_place)
    s3 = operators_place(public=False)
    secret = Sealed.seal("not this one")
    where = {"endpoint_url": s3.endpoint_url, "s3_bucket": "theirs", "access_key_id": s3.access_key_id}
    Bucket.all_tenants.create(tenant=client.tenant, name="main", is_default=True, secret_access_key=secret, **where)
    running = Running(client, client.submit(), WireWorker(quick, own_place))
    result, puts = shipped(running)
    assert isinstance(result, JobError)
    assert (result.code, puts) == ("upload_refused", [])
    assert "S3 answered 403 SignatureDoesNotMatch to Hearth" in str(result)


def test_the_object_of_a_large_file_goes_with_its_attempt(running: Running) -> None:
    result, _ = shipped(running)
    running.client.cancel(running.job)
    age_blobs(running)
    discard(1000)
    assert not exists(result.asset.key)
