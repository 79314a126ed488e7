"""Payloads, files and timelines go when their days are over: all of them, once, and nothing else."""

import hashlib
import io
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts import sql
from accounts.errors import Refused
from accounts.models import Tenant, uuid7
from accounts.sealed import Sealed
from jobs import history, news, retention, uploads
from jobs.ids import JobId
from jobs.models import Attempt, Chunk, Deletion, Event, Job, Payload, Receipt, Usage
from jobs.news import Done
from jobs.queue import Claimed
from jobs.sweep import forget_words, sweep
from jobs.sweep import retain as ask_to_retain
from jobs.uploads import discard
from storage import assets
from storage.models import Asset, Blob, Bucket, Gone, Hold
from storage.places import client, operators_place, put_object
from tests.cast import Client, attempt_of, kinds, new_client, new_place, row

ALL_AT_ONCE = -timedelta(days=1)  # as SLACK: no upload URL is waited for


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)


def end(client: Client, claimed: Claimed, output: Any = 1) -> None:
    done = Done(output=orjson.dumps(output), output_value=output)
    assert news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), done)


def ended(client: Client, days_ago: float = 0) -> JobId:
    job = client.submit({"a": 1})
    end(client, client.place.worker("w1").take_one())
    age("jobs_job", "finished_at", job.uuid, days_ago)
    return job


def age(table: str, column: str, id: Any, days: float) -> None:
    sql.run(f"UPDATE {table} SET {column} = {column} - %s * interval '1 day' WHERE id = %s", [days, id])


def keeps(client: Client, **days: int | None) -> None:
    Tenant.objects.filter(pk=client.tenant.pk).update(**days)


def put(tenant: Tenant, content: bytes = b"abc", days_ago: float = 0, lives: timedelta | None = None) -> Asset:
    sha256 = hashlib.sha256(content).hexdigest()
    new = assets.New(name="a.png", content_type="image/png", bytes=len(content), sha256=sha256, lives=lives)
    made = assets.put(tenant.pk, new, io.BytesIO(content))
    age("storage_asset", "created_at", made.pk, days_ago)
    return made


def is_there(blob: Blob) -> bool:
    place = operators_place(public=False)
    return bool(client(place).list_objects_v2(Bucket=place.s3_bucket, Prefix=blob.key).get("KeyCount"))


def receipt(client: Client) -> Deletion:
    found: Deletion = Deletion.objects.of(client.tenant).get(what="retention")
    return found


DAYS = [(7, 0, True), (None, 7, True), (0, 7, False), (None, 0, False), (30, 7, False)]
by_days = pytest.mark.parametrize(("own", "instances", "goes"), DAYS)


@by_days
def test_payloads_go_after_the_tenants_days_else_the_instances(
    acme: Client, globex: Client, monkeypatch: pytest.MonkeyPatch, own: int | None, instances: int, goes: bool
) -> None:
    monkeypatch.setattr(settings, "PAYLOAD_DAYS", instances)
    keeps(acme, payload_days=own)
    keeps(globex, payload_days=0)
    old, young, theirs = ended(acme, 8), ended(acme, 6), ended(globex, 8)
    Chunk.objects.create(job_id=old.uuid, attempt=1, body=b"1")
    Receipt.objects.create(job_id=old.uuid, attempt=1, bytes=9, said="a cat", outcome="applied")
    retention.retain()
    assert Payload.objects.filter(job=old.uuid).exists() is not goes
    assert Chunk.objects.filter(job=old.uuid).exists() is not goes
    assert Receipt.objects.filter(job=old.uuid).exists() is not goes
    assert Payload.objects.filter(job__in=[young.uuid, theirs.uuid]).count() == 2
    job = Job.all_tenants.get(pk=old.uuid)
    assert (job.state, job.payload_gone_at is not None) == ("COMPLETED", goes)
    assert Attempt.objects.filter(job=old.uuid).exists()
    assert kinds_of(old) == ["created", "handed", "completed"]


def kinds_of(job: JobId) -> list[str]:
    return list(Event.objects.filter(job_id=job.uuid).order_by("id").values_list("kind", flat=True))


@by_days
def test_timelines_go_after_the_tenants_days_else_the_instances(
    acme: Client, monkeypatch: pytest.MonkeyPatch, own: int | None, instances: int, goes: bool
) -> None:
    monkeypatch.setattr(settings, "EVENT_DAYS", instances)
    keeps(acme, event_days=own)
    old, young = ended(acme, 8), ended(acme, 6)
    retention.retain()
    assert (kinds_of(old) == []) is goes
    assert len(kinds(young)) == 3
    assert Payload.objects.filter(job=old.uuid).exists()
    assert (Job.all_tenants.get(pk=old.uuid).events_gone_at is not None) == goes


@by_days
def test_files_go_after_the_tenants_days_else_the_instances(
    acme: Client, monkeypatch: pytest.MonkeyPatch, own: int | None, instances: int, goes: bool
) -> None:
    monkeypatch.setattr(settings, "ASSET_DAYS", instances)
    keeps(acme, asset_days=own)
    old, young = put(acme.tenant, b"old", 8), put(acme.tenant, b"young", 6)
    retention.retain()
    discard(1000)
    assert is_there(old.blob) is not goes
    assert Asset.all_tenants.filter(pk=old.pk).exists() is not goes
    assert Gone.all_tenants.filter(pk=old.pk).exists() is goes
    assert is_there(young.blob)
    ends = assets.ends_at(young, assets.days_kept(acme.tenant.pk))
    assert ends == (young.created_at + timedelta(days=own or instances) if own != 0 and (own or instances) else None)


def test_what_has_not_ended_is_kept_whatever_its_age(acme: Client) -> None:
    keeps(acme, payload_days=1, event_days=1, asset_days=1)
    queued = acme.submit()
    running = acme.place.worker("w1").take_one() if (waits := acme.submit()) else None
    for job in (queued, waits):
        age("jobs_job", "created_at", job.uuid, 100)
    retention.retain()
    assert running
    assert Payload.objects.filter(job__in=[queued.uuid, waits.uuid]).count() == 2
    assert kinds(queued)[0] == "created"


def test_a_file_that_has_expired_goes_also_where_files_are_kept_for_ever(acme: Client) -> None:
    made, lasting = put(acme.tenant, b"a", lives=timedelta(hours=1)), put(acme.tenant, b"b", lives=timedelta(hours=1))
    age("storage_asset", "expires_at", made.pk, 1)
    retention.retain()
    discard(1000)
    assert (is_there(made.blob), is_there(lasting.blob)) == (False, True)
    with pytest.raises(Refused, match="was deleted at 20") as refused:
        assets.delete(acme.tenant.pk, made.pk)
    assert refused.value.status == 410


def test_bytes_that_a_job_needs_stay_until_it_has_ended(acme: Client) -> None:
    """Rule 25."""
    keeps(acme, asset_days=1)
    made, job = put(acme.tenant, days_ago=2), acme.submit()
    Hold.objects.create(job_id=job.uuid, blob_id=made.blob_id)
    retention.retain()
    discard(1000)
    assert not Asset.all_tenants.filter(pk=made.pk).exists()
    assert is_there(made.blob)
    acme.cancel(job)
    uploads.release_holds(1000)
    discard(1000)
    assert not is_there(made.blob)


def test_one_of_two_assets_of_the_same_bytes_takes_nothing_from_the_other(acme: Client) -> None:
    keeps(acme, asset_days=7)
    old, young = put(acme.tenant, days_ago=8), put(acme.tenant)
    assert old.blob_id == young.blob_id
    retention.retain()
    discard(1000)
    assert is_there(young.blob)


def test_the_days_receipt_counts_all_that_went(acme: Client, globex: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hearth.retention")
    keeps(acme, payload_days=1, event_days=1, asset_days=1)
    keeps(globex, payload_days=1)
    for client_ in (acme, acme, globex):
        ended(client_, 2)
    put(acme.tenant, b"abc", 2)
    put(acme.tenant, b"abcd", 2)
    retention.retain()
    ended(acme, 2)
    retention.retain()
    discard(1000)
    found = receipt(acme)
    assert (found.payloads, found.events, found.assets, found.files, found.bytes) == (3, 9, 2, 2, 7)
    assert (found.asked_by, found.done_at is not None, found.out_of_reach, found.fault) == ("retention", True, 0, "")
    assert receipt(globex).payloads == 1
    assert "retention: 3 payloads deleted" in caplog.text
    retention.retain()
    assert receipt(acme).payloads == 3


def test_what_was_used_stays(acme: Client) -> None:
    keeps(acme, payload_days=1, event_days=1)
    ended(acme, 2)
    before = list(Usage.objects.of(acme.tenant).values())
    assert before
    retention.retain()
    assert list(Usage.objects.of(acme.tenant).values()) == before


def test_more_than_a_batch_goes_in_one_run(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    keeps(acme, payload_days=1)
    for _ in range(5):
        ended(acme, 2)
    assert retention.retain() == 5
    assert not Payload.objects.filter(job__tenant=acme.tenant).exists()
    assert retention.retain() == 0


def test_a_run_ends_with_its_time_and_the_next_goes_on(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    keeps(acme, payload_days=1)
    ended(acme, 2)
    assert retention.retain(within_s=0) == 0
    assert retention.due()
    assert retention.retain() == 1


def test_runs_at_once_share_the_work_and_count_it_once(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    keeps(acme, payload_days=1, event_days=1, asset_days=1)
    for number in range(12):
        ended(acme, 2)
        put(acme.tenant, b"%d" % number, 2)
    at_once(4, retention.retain)
    retention.retain()
    at_once(3, lambda: discard(1000))
    found = receipt(acme)
    assert (found.payloads, found.events, found.assets, found.files) == (12, 36, 12, 12)
    assert not Blob.objects.of(acme.tenant).exists()


def at_once(threads: int, call: Callable[[], Any]) -> None:
    start = threading.Barrier(threads)

    def one() -> None:
        start.wait()
        try:
            call()
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(one) for _ in range(threads)]:
            done.result()


def test_a_retry_comes_before_its_end_or_is_told_that_it_is_too_late(acme: Client) -> None:
    keeps(acme, payload_days=1)
    early, late = failed(acme), failed(acme)
    age("jobs_job", "finished_at", late.uuid, 2)
    acme.retry(early)
    age("jobs_job", "created_at", early.uuid, 2)
    retention.retain()
    assert row(early).payload
    with pytest.raises(Refused, match=f"of the job '{late_id(late)}' was deleted at 20") as refused:
        acme.retry(late)
    assert (refused.value.status, Job.all_tenants.get(pk=late.uuid).state) == (410, "FAILED")


def failed(client: Client) -> JobId:
    job = client.submit()
    claimed = client.place.worker("w1").take_one()
    news.done(client.place.endpoint.pk, "w1", attempt_of(claimed), Done(error=b'"boom"', error_value="boom"))
    return job


def late_id(job: JobId) -> str:
    return f"{job.uuid}-e1"


def test_the_sweep_asks_for_it_only_if_something_is_due(acme: Client) -> None:
    keeps(acme, payload_days=1)
    ended(acme)
    retention.retain()
    assert ask_to_retain() == 0
    ended(acme, 2)
    tasks = "SELECT count(*) FROM django_q_ormq"
    before = sql.one(tasks)[0]
    assert sweep((ask_to_retain,)) == {"retain": 1}
    assert sql.one(tasks)[0] == before + 1
    retention.retain()


def test_word_of_the_deleted_is_kept_for_its_days(acme: Client) -> None:
    made = [put(acme.tenant, b"%d" % number) for number in range(2)]
    for each in made:
        assets.delete(acme.tenant.pk, each.pk)
    sql.run("UPDATE storage_gone SET at = at - interval '91 days' WHERE id = %s", [made[0].pk])
    assert forget_words() == 1
    assert [gone.pk for gone in Gone.objects.of(acme.tenant)] == [made[1].pk]


def output_of(own: Client, *names: str) -> tuple[JobId, list[Blob]]:
    """A job of dialect hearth that has ended with these files."""
    job = own.submit()
    claimed = own.place.worker("w1").take_one()
    place, blobs = operators_place(public=False), []
    for name in names:
        blob = Blob.all_tenants.create(
            tenant=own.tenant,
            job_id=job.uuid,
            attempt=1,
            key=f"{own.tenant.pk}/{job.uuid}/a1/{name}",
            bytes=3,
            content_type="image/png",
            stored_at="2026-01-01T00:00Z",
        )
        put_object(place, blob.key, io.BytesIO(b"abc"), content_type="image/png")
        blobs.append(blob)
    reported = [{"id": str(blob.pk), "key": blob.key, "name": name} for blob, name in zip(blobs, names, strict=True)]
    end(own, claimed, {"files": [blob.key for blob in blobs], "datas": {}, "assets": reported})
    return job, blobs


def test_a_jobs_status_says_which_of_its_files_are_gone() -> None:
    own = new_client(new_place("hearth"))
    keeps(own, asset_days=7)
    job, (old, young) = output_of(own, "old.png", "young.png")
    before = history.result(job.uuid).fields()["output"]
    assert orjson.loads(orjson.dumps(before))["files"].count(None) == 0
    age("storage_asset", "created_at", old.pk, 8)
    retention.retain()
    after = orjson.loads(history.result(job.uuid).json())["output"]
    assert after["files"][0] is None
    assert after["files"][1].startswith("http")
    assert [(asset["url"] is None, asset.get("error")) for asset in after["assets"]] == [
        (True, "The file was deleted."),
        (False, None),
    ]
    discard(1000)
    assert (is_there(old), is_there(young)) == (False, True)


def test_a_file_that_was_deleted_on_request_is_gone_in_its_jobs_status() -> None:
    """Its job is marked first: whoever is killed in between has changed nothing."""
    own = new_client(new_place("hearth"))
    job, (first, _) = output_of(own, "first.png", "second.png")
    with CaptureQueriesContext(connection) as asked:
        history.result(job.uuid).json()
    assert len(asked) == 1, "nobody looks while none was deleted"
    retention.mark([job.uuid, None])
    assert files_of(job).count(None) == 0
    retention.delete_asset(own.tenant.pk, first.pk)
    assert (files_of(job)[0], files_of(job)[1][:4]) == (None, "http")
    with pytest.raises(Refused, match="was deleted at 20"):
        retention.delete_asset(own.tenant.pk, first.pk)


def files_of(job: JobId) -> list[Any]:
    files: list[Any] = orjson.loads(history.result(job.uuid).json())["output"]["files"]
    return files


def test_an_upload_in_parts_whose_id_nobody_noted_is_dropped(acme: Client) -> None:
    place = operators_place(public=False)
    own = {"tenant": acme.tenant, "key": f"{acme.tenant.pk}/parts/a.bin"}
    blob = Blob.all_tenants.create(**own, bytes=9, part_bytes=5, content_type="x/y", state="dying")
    where = {"Bucket": place.s3_bucket, "Key": blob.key}
    client(place).create_multipart_upload(**where)
    other = client(place).create_multipart_upload(**where | {"Key": f"{blob.key}.other"})
    discard(1000)
    listed = client(place).list_multipart_uploads(Bucket=place.s3_bucket, Prefix=blob.key).get("Uploads", [])
    assert [upload["Key"] for upload in listed] == [f"{blob.key}.other"]
    client(place).abort_multipart_upload(**where | {"Key": f"{blob.key}.other"}, UploadId=other["UploadId"])


def away(tenant: Tenant) -> Bucket:
    made: Bucket = Bucket.all_tenants.create(
        tenant=tenant,
        name="away",
        endpoint_url="http://127.0.0.1:9",
        s3_bucket="b",
        access_key_id="AKIAAWAY",
        secret_access_key=Sealed.seal("x"),
    )
    return made


@pytest.fixture
def only_acmes(acme: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests left dying in this database is not looked at."""
    every = assets.dying
    own = lambda n: [blob for blob in every(100_000) if blob.tenant_id == acme.tenant.pk][:n]  # noqa: E731
    monkeypatch.setattr(assets, "dying", own)


@pytest.mark.usefixtures("only_acmes")
def test_an_s3_that_is_away_keeps_no_others_files(acme: Client, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Blob.all_tenants.bulk_create(
        Blob(id=uuid7(), tenant=acme.tenant, bucket=bucket, key=f"k{n}", bytes=1, content_type="x/y", state="dying")
        for bucket in [away(acme.tenant)]
        for n in range(3)
    )
    made = put(acme.tenant)
    with transaction.atomic():
        assets.delete(acme.tenant.pk, made.pk)
    discard(4)
    assert not is_there(made.blob)
    assert "(and left 2 more): No connection to 127.0.0.1:9" in caplog.text
    ids = [blob.pk for blob in stuck]
    assert [blob.pk for blob in assets.dying(10)] == [*ids[1:], ids[0]], "the one that failed goes last"
    Blob.all_tenants.filter(pk__in=ids).delete()
