"""Output files (rules 11, 12, 22): put by presigned URLs of exact length and type, kept by the attempt that wins."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.fernet import Fernet
from django.conf import settings

from accounts import sql
from accounts.sealed import Sealed
from jobs.loss import lose
from jobs.models import Payload
from jobs.uploads import discard
from storage.models import Asset, Blob, Bucket
from storage.places import client as s3_client
from storage.places import operators_place
from tests.cast import WORKFLOW, Client, Place, new_client, row, unique
from tests.fleet.hooks import Running, asset, file, put
from tests.fleet.wire import WireWorker, call, status


@pytest.fixture
def named(own: Client) -> dict[str, str]:
    """A request's own `tobucket`: an S3 bucket of this test's on the same S3."""
    place = operators_place(public=False)
    name = unique("theirs")
    s3_client(place).create_bucket(Bucket=name)
    secrets = {"accessId": place.access_key_id, "accessSecret": place.secret_access_key}
    return {"endpointUrl": place.endpoint_url, "bucketName": f"{name}", **secrets}


def get(url: str) -> tuple[int, bytes, str]:
    answer = call("GET", url)
    return answer.status, answer.body, answer.headers.get("content-type", "")


def lifetime_s(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])


def test_a_file_is_put_by_its_url_and_read_by_the_status(running: Running) -> None:
    contents = {"b.png": b"first", "a.png": b"second!", "ü/../c d.txt": b""}
    files = [file(name, content) for name, content in contents.items()]
    slots = running.slots(*files)
    assert [put(slot, content).status for slot, content in zip(slots, contents.values(), strict=True)] == [200] * 3
    assets = [asset(file, slot) for file, slot in zip(files, slots, strict=True)]
    output = running.done(files=[a["key"] for a in assets], assets=assets, datas=["text"])["output"]
    assert [get(url) for url in output["files"]] == [(200, content, "image/png") for content in contents.values()]
    assert [a["url"] for a in output["assets"]] == output["files"]
    assert [a["name"] for a in output["assets"]] == list(contents)
    assert output["datas"] == ["text"]


def test_the_answer_names_no_key_and_its_urls_live_as_long_as_set(running: Running) -> None:
    assets = running.stored(file())
    output = running.done(files=[assets[0]["key"]], assets=assets)["output"]
    assert "key" not in output["assets"][0]
    assert lifetime_s(output["files"][0]) == settings.OUTPUT_URL_LIFETIME.total_seconds()
    assert get(output["files"][0].replace("Signature=", "Signature=0"))[0] == 403


def test_what_is_stored_are_keys_and_rows(running: Running) -> None:
    assets = running.stored(file("x.png", node="12"), file("y.png"))
    running.done(files=[a["key"] for a in assets], assets=assets)
    assert b"Signature" not in bytes(row(running.job).payload.output or b"Signature")
    rows = Asset.all_tenants.filter(job_id=running.job.uuid).order_by("position")
    assert [(a.name, a.node, str(a.id), a.tenant) for a in rows] == [
        ("x.png", "12", assets[0]["id"], running.client.tenant),
        ("y.png", "9", assets[1]["id"], running.client.tenant),
    ]
    assert {blob.state for blob in running.blobs()} == {"kept"}


def test_keys_tell_tenant_job_and_attempt_and_cannot_be_guessed(running: Running) -> None:
    keys = [slot["key"] for slot in running.slots(*[file("../../etc/pass wd")] * 3)]
    start = f"{running.client.tenant.pk}/{running.job.uuid}/a1/"
    assert all(key.startswith(start) and key.endswith("-pass_wd") and ".." not in key for key in keys)
    assert len(set(keys)) == 3
    assert {slot["trusted"] for slot in running.slots(file())} == {True}


@pytest.mark.parametrize("content", [b"ab", b"abcd", b""])
def test_a_put_of_another_length_is_refused(running: Running, content: bytes) -> None:
    slot = running.slots(file(content=b"abc"))[0]
    assert put(slot, content).status == 403
    assert put(slot, b"abc").status == 200


def test_a_put_of_another_type_or_to_another_key_is_refused(running: Running) -> None:
    slot, other = running.slots(file(), file())
    assert put(slot, b"abc", **{"Content-Type": "text/html"}).status == 403
    moved = slot | {"url": slot["url"].replace(slot["key"].rpartition("/")[2], other["key"].rpartition("/")[2])}
    assert put(moved, b"abc").status == 403
    assert lifetime_s(slot["url"]) == 900


def test_a_slot_cannot_read(running: Running) -> None:
    slot = running.slots(file())[0]
    put(slot, b"abc")
    assert get(slot["url"])[0] == 403


def test_only_files_that_went_through_hearth_are_kept_by_key(quick: str, own: Client, running: Running) -> None:
    """Another tenant's key, another job's, a made-up one: left out. A file without a key (base64) stays."""
    globex = new_client(own.place, "globex")
    theirs = Running(globex, globex.submit(), WireWorker(quick, own.place, "w2")).stored(file("secret.png"))[0]
    mine = running.stored(file("mine.png"))[0]
    made_up = mine | {"key": mine["key"] + "x"}
    inline = {**file("inline.png"), "id": "x", "key": None}
    odd = [theirs, made_up, inline, mine, {**mine, "key": 7}]
    output = running.done(files=[theirs["key"], made_up["key"], "YWJj", mine["key"], 7], assets=odd)["output"]
    assert output["files"][0] == "YWJj"
    assert get(output["files"][1])[1] == b"abc"
    assert [a["name"] for a in output["assets"]] == ["inline.png", "mine.png"]
    assert Blob.all_tenants.get(key=theirs["key"]).state == "pending"


def test_a_key_of_an_earlier_attempt_is_left_out(quick: str, running: Running) -> None:
    earlier = running.stored(file("early.png"))[0]
    lose(running.job.uuid, 1, "test")
    second = Running(running.client, running.job, WireWorker(quick, running.client.place, "w2"))
    output = second.done(files=[earlier["key"]], assets=[earlier])["output"]
    assert (output["files"], output["assets"]) == ([], [])


ODD_ASSETS: list[Any] = [7, "x", {"key": "x"}, [7, None, [], "x"], [{}], [{"key": ["x"]}], [{"name": {"a": 1}}]]


@pytest.mark.parametrize("assets", ODD_ASSETS, ids=repr)
def test_assets_of_any_shape_are_taken(running: Running, assets: Any) -> None:
    ended = running.done(files=["YWJj"], assets=assets)
    assert ended["status"] == "COMPLETED"


def test_a_key_reported_twice_is_one_asset(running: Running) -> None:
    mine = running.stored(file())[0]
    output = running.done(files=[mine["key"]] * 2, assets=[mine, mine])["output"]
    assert len(set(output["files"])) == 1
    assert Asset.all_tenants.filter(job_id=running.job.uuid).count() == 1


def test_odd_texts_of_an_asset_do_not_lose_the_result(running: Running) -> None:
    mine = running.stored(file())[0] | {"name": "nul \0 " + "x" * 400, "node": 7, "kind": None}
    assert running.done(files=[mine["key"]], assets=[mine])["status"] == "COMPLETED"


def test_files_beside_an_error_are_kept_too(running: Running) -> None:
    mine = running.stored(file())[0]
    running.worker.done(running.attempt, output={"files": [mine["key"]], "assets": [mine]}, error="node 7 failed")
    ended = status(running.worker.url, running.client, running.job)
    assert (ended["status"], ended["error"], ended["output"]["error"]) == ("FAILED", "node 7 failed", "node 7 failed")
    assert get(ended["output"]["files"][0])[0] == 200


def test_a_tenants_own_bucket_takes_its_files(quick: str, own_place: Place, named: dict[str, str]) -> None:
    client = new_client(own_place)
    where = {"endpoint_url": named["endpointUrl"], "s3_bucket": named["bucketName"], "prefix": "out/put"}
    who = {"access_key_id": named["accessId"], "secret_access_key": Sealed.seal(named["accessSecret"])}
    Bucket.all_tenants.create(tenant=client.tenant, name="main", is_default=True, **where, **who)
    running = Running(client, client.submit(), WireWorker(quick, own_place))
    mine = running.stored(file())[0]
    assert mine["key"].startswith(f"out/put/{client.tenant.pk}/")
    assert running.slots(file())[0]["trusted"] is False
    url = running.done(files=[mine["key"]], assets=[mine])["output"]["files"][0]
    assert f"/{named['bucketName']}/out/put/" in url
    assert get(url)[1] == b"abc"


def test_a_bucket_whose_secret_is_lost_takes_no_file_and_nothing_goes_elsewhere(
    quick: str, own: Client, named: dict[str, str]
) -> None:
    running = in_their_bucket(quick, own, named)
    lost = Sealed(Fernet(Fernet.generate_key()).encrypt(b"x"))
    Payload.objects.filter(job_id=running.job.uuid).update(request_bucket=lost)
    answer = running.ask("uploads", {"files": [file()]})
    assert (answer.status, answer.json["code"]) == (503, "bucket_unusable")
    assert "HEARTH_SEAL_KEYS" in answer.json["error"]
    assert running.blobs() == []


def in_their_bucket(quick: str, client: Client, named: dict[str, str]) -> Running:
    given = {"workflow": WORKFLOW, "tobucket": named}
    return Running(client, client.submit(given), WireWorker(quick, client.place))


def test_a_requests_own_bucket_takes_the_files_and_is_told_to_nobody(
    quick: str, own: Client, named: dict[str, str]
) -> None:
    job = own.submit({"workflow": WORKFLOW, "tobucket": named})
    worker = WireWorker(quick, own.place)
    sent = worker.take()
    assert named["accessSecret"].encode() not in sent.body
    assert "tobucket" not in sent.json["input"]
    assert named["accessSecret"].encode() not in bytes(row(job).payload.input)
    assert row(job).payload.request_bucket is not None


def test_files_in_a_requests_own_bucket_are_signed_once_for_seven_days(
    quick: str, own: Client, named: dict[str, str]
) -> None:
    running = in_their_bucket(quick, own, named)
    mine = running.stored(file())[0]
    assert running.slots(file())[0]["trusted"] is False
    output = running.done(files=[mine["key"]], assets=[mine])["output"]
    url = output["files"][0]
    assert f"/{named['bucketName']}/" in url
    assert (get(url)[1], lifetime_s(url)) == (b"abc", timedelta(days=7).total_seconds())
    assert status(quick, own, running.job)["output"]["files"] == [url]
    assert Asset.all_tenants.get(job_id=running.job.uuid).url == url


def test_the_secret_of_a_request_goes_when_the_job_is_completed(quick: str, own: Client, named: dict[str, str]) -> None:
    running = in_their_bucket(quick, own, named)
    running.done(files=[])
    payload = row(running.job).payload
    assert (payload.request_bucket, payload.request_bucket_wiped) == (None, True)


def test_the_secret_of_a_request_stays_while_a_retry_is_possible(
    quick: str, own: Client, named: dict[str, str]
) -> None:
    running = in_their_bucket(quick, own, named)
    running.worker.done(running.attempt, error="boom")
    assert own.retry(running.job) == "IN_QUEUE"
    again = Running(own, running.job, WireWorker(quick, own.place, "w2"))
    mine = again.stored(file())[0]
    assert f"/{named['bucketName']}/" in again.done(files=[mine["key"]], assets=[mine])["output"]["files"][0]


def test_the_secret_of_a_request_goes_with_a_cancel(quick: str, own: Client, named: dict[str, str]) -> None:
    running = in_their_bucket(quick, own, named)
    running.client.cancel(running.job)
    assert row(running.job).payload.request_bucket is None


def age_blobs(running: Running, seconds: int = 3600) -> None:
    sql.run(
        "UPDATE storage_blob SET created_at = created_at - %s * interval '1 s' WHERE job_id = %s",
        [seconds, running.job.uuid],
    )


def exists(key: str, bucket: str | None = None) -> bool:
    place = operators_place(public=False)
    listed = s3_client(place).list_objects_v2(Bucket=bucket or place.s3_bucket, Prefix=key)
    return bool(listed.get("KeyCount"))


def test_files_of_a_lost_attempt_go_and_those_of_the_winner_stay(quick: str, running: Running) -> None:
    lost = running.stored(file("lost.png"))[0]
    lose(running.job.uuid, 1, "test")
    second = Running(running.client, running.job, WireWorker(quick, running.client.place, "w2"))
    won, unreported = second.stored(file("won.png"), file("unreported.png"))
    url = second.done(files=[won["key"]], assets=[won])["output"]["files"][0]
    age_blobs(running)
    assert discard(1000) >= 2
    assert [exists(a["key"]) for a in (lost, won, unreported)] == [False, True, False]
    assert get(url)[1] == b"abc"
    assert [blob.key for blob in running.blobs()] == [won["key"]]


def test_files_stay_while_their_upload_urls_live_and_while_their_attempt_runs(running: Running) -> None:
    mine = running.stored(file())[0]
    age_blobs(running)
    discard(1000)
    assert exists(mine["key"]), "the attempt still runs"
    running.client.cancel(running.job)
    sql.run("UPDATE storage_blob SET created_at = clock_timestamp() WHERE job_id = %s", [running.job.uuid])
    discard(1000)
    assert exists(mine["key"]), "its URL could still be used"
    age_blobs(running)
    discard(1000)
    assert not exists(mine["key"])


def test_files_in_a_requests_own_bucket_are_deleted_while_its_secret_is_there(
    quick: str, own: Client, named: dict[str, str]
) -> None:
    running = in_their_bucket(quick, own, named)
    lost = running.stored(file())[0]
    lose(running.job.uuid, 1, "test")
    age_blobs(running)
    discard(1000)
    assert not exists(lost["key"], named["bucketName"])
    assert running.blobs() == []


def test_what_cannot_be_deleted_stays_for_the_next_time(
    quick: str, own: Client, named: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    running = in_their_bucket(quick, own, named | {"accessSecret": "wrong"})
    running.slots(file())
    lose(running.job.uuid, 1, "test")
    age_blobs(running)
    discard(1000)
    assert "The secret access key is not the one of this access key" in caplog.text
    assert len(running.blobs()) == 1


def test_the_sweep_asks_for_the_deleting(running: Running) -> None:
    from jobs.sweep import discard_uploads

    running.stored(file())
    running.client.cancel(running.job)
    age_blobs(running)
    tasks = "SELECT count(*) FROM django_q_ormq"
    before = sql.one(tasks)[0]
    assert discard_uploads() == 1
    assert sql.one(tasks)[0] == before + 1
