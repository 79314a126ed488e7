"""A job, or a tenant, is deleted: unreadable at once, gone from every table and from S3 in the end, with a receipt."""

import io
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.apps import apps
from django.utils import timezone

from accounts import sql
from accounts.errors import Refused
from accounts.models import ApiKey, Member, Owned, Tenant, User, uuid7
from accounts.sealed import Sealed
from jobs import history, news, uploads
from jobs.deletion import delete_job, delete_tenant, go_on
from jobs.ids import JobId
from jobs.models import Attempt, Deletion, Delivery, Job, Metadata, Payload, Receipt, Usage, Webhook, WebhookSecret
from jobs.news import Done
from jobs.queue import Claimed
from jobs.uploads import discard
from jobs.webhooks.receive import receive
from jobs.workers import release
from storage import assets, objects
from storage.models import Asset, Blob, Bucket, Gone, Hold
from storage.places import client, operators_place, put_object
from tests.cast import WORKFLOW, Client, attempt_of, attempt_row, new_client, new_place, unique
from tests.jobs.test_retention import ALL_AT_ONCE, at_once, ended, is_there, output_of, put
from worker.wire import Slot, Upload

STAYS = {Deletion, Usage, ApiKey}
FILE = Upload(name="a.png", bytes=3, sha256="0" * 64, content_type="image/png", node="1", kind="image")


@pytest.fixture
def at_once_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No upload URL is waited for."""
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)


@pytest.fixture
def own() -> Client:
    return new_client(new_place("hearth"))


def go_all_the_way(receipt: Deletion) -> Deletion:
    for _ in range(3):
        go_on()
        discard(1000)
    go_on()
    receipt.refresh_from_db()
    return receipt


def in_s3(prefix: str) -> list[str]:
    place = operators_place(public=False)
    where = {"Bucket": place.s3_bucket, "Prefix": prefix}
    found = client(place).list_objects_v2(**where).get("Contents", [])
    return [each["Key"] for each in found + client(place).list_multipart_uploads(**where).get("Uploads", [])]


def rows_of_job(job: JobId) -> dict[str, int]:
    """Of every table that names it, how many."""
    found = {}
    for model in apps.get_models():
        if model is not Deletion and any(field.attname == "job_id" for field in model._meta.concrete_fields):
            found[model.__name__] = model._base_manager.filter(job_id=job.uuid).count()
    return {name: n for name, n in found.items() if n} | ({"Job": 1} if Job.all_tenants.filter(pk=job.uuid) else {})


def why_not(call: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refused:
        call()
    assert (refused.value.status, refused.value.code) == (410, "gone")
    return refused.value.error


@pytest.mark.usefixtures("at_once_gone")
def test_an_ended_job_goes_with_all_that_is_its_own(own: Client) -> None:
    job, (blob,) = output_of(own, "a.png")
    before = list(Usage.objects.of(own.tenant).values())
    receipt = delete_job(job.uuid, "by acme's lawyer")
    assert "was deleted at 20" in why_not(lambda: history.status(own.key, own.place.name, job))
    assert (receipt.what, receipt.asked_by, receipt.done_at) == ("job", "by acme's lawyer", None)
    done = go_all_the_way(receipt)
    assert (done.jobs, done.payloads, done.events, done.assets, done.files, done.bytes) == (1, 1, 3, 1, 1, 3)
    assert (done.done_at is not None, done.fault, done.out_of_reach) == (True, "", 0)
    assert not is_there(blob)
    assert rows_of_job(job) == {}
    assert list(Usage.objects.of(own.tenant).values()) == before
    assert "was deleted at 20" in why_not(lambda: history.status(own.key, own.place.name, job))
    assert "was deleted at 20" in why_not(lambda: assets.delete(own.tenant.pk, blob.pk))


def test_nothing_that_was_sent_is_left_in_the_payloads_row(acme: Client) -> None:
    job = acme.submit(webhook="https://example.com/hook", policy={"ttl": 60_000})
    acme.place.worker("w1").take_one()
    before = Payload.objects.filter(job=job.uuid).values().get()
    assert before["input"]
    delete_job(job.uuid, "test")
    after = Payload.objects.filter(job=job.uuid).values().get()
    numbers = {"job_id", "progress_fraction", "request_bucket_wiped", "moved_bytes"}
    assert {name: value for name, value in after.items() if name not in numbers and value} == {}


def test_asking_twice_gives_the_same_receipt(acme: Client) -> None:
    job = ended(acme)
    first = delete_job(job.uuid, "once")
    assert delete_job(job.uuid, "twice").pk == first.pk
    go_all_the_way(first)
    again = delete_job(job.uuid, "thrice")
    assert (again.pk, again.asked_by, again.done_at is not None) == (first.pk, "once", True)
    with pytest.raises(Refused) as refused:
        delete_job(uuid7(), "of nothing")
    assert refused.value.status == 404


def test_a_queued_job_is_not_run_any_more(acme: Client) -> None:
    job = acme.submit()
    receipt = delete_job(job.uuid, "test")
    assert acme.place.worker("w1").take() == []
    go_on()
    assert rows_of_job(job) == {}
    receipt.refresh_from_db()
    assert receipt.jobs == 1
    assert Usage.objects.of(acme.tenant).get().cancelled == 1


def test_a_running_job_stays_a_row_until_its_worker_has_let_go_of_it(acme: Client) -> None:
    """So that its GPU time is billed (rule 6), and its worker told to stop."""
    job, worker = acme.submit(), acme.place.worker("w1")
    claimed = worker.take_one()
    sql.run("UPDATE jobs_attempt SET started_at = clock_timestamp() - interval '9 s' WHERE job_id = %s", [job.uuid])
    receipt = delete_job(job.uuid, "test")
    assert worker.stops() == [attempt_of(claimed)]
    go_all_the_way(receipt)
    assert (receipt.done_at, rows_of_job(job)) == (None, {"Attempt": 1, "Job": 1, "Payload": 1})
    why_not(lambda: history.status(acme.key, acme.place.name, job))
    release(claimed.job, claimed.number)
    go_all_the_way(receipt)
    assert (receipt.done_at is not None, rows_of_job(job)) == (True, {})
    assert Usage.objects.of(acme.tenant).get().gpu_ms >= 9000


def test_news_that_comes_late_brings_nothing_back(acme: Client) -> None:
    job = acme.submit()
    claimed = acme.place.worker("w1").take_one()
    receipt = delete_job(job.uuid, "test")
    done = Done(output=b'"secret"', output_value="secret")
    assert not news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    receive(attempt_of(claimed), b'{"id": "x", "status": "COMPLETED", "output": "secret"}')
    assert not Receipt.objects.filter(job=job.uuid).exists()
    assert attempt_row(claimed).released_at
    go_all_the_way(receipt)
    assert rows_of_job(job) == {}
    assert not news.done(acme.place.endpoint.pk, "w1", attempt_of(claimed), done)
    assert rows_of_job(job) == {}


def slot_of(own: Client, given: Any = None) -> tuple[JobId, Claimed, Slot]:
    job = own.submit(given)
    claimed = own.place.worker("w1").take_one()
    opened = uploads.slots(attempt_of(claimed), [FILE])
    assert opened
    return job, claimed, opened[0]


def age_blobs(job: JobId) -> None:
    sql.run("UPDATE storage_blob SET created_at = created_at - interval '1 hour' WHERE job_id = %s", [job.uuid])


def test_an_upload_that_ends_while_the_job_is_deleted_leaves_nothing(own: Client) -> None:
    job, claimed, slot = slot_of(own)
    receipt = delete_job(job.uuid, "test")
    release(claimed.job, claimed.number)
    assert uploads.slots(attempt_of(claimed), [FILE]) is None, "no new ones"
    go_all_the_way(receipt)
    assert receipt.done_at is None, "its URL is still good"
    assert httpx.put(slot.url, content=b"abc", headers=slot.headers).status_code == 200
    assert in_s3(slot.key) == [slot.key]
    age_blobs(job)
    go_all_the_way(receipt)
    assert (receipt.done_at is not None, receipt.files, in_s3(slot.key), rows_of_job(job)) == (True, 1, [], {})


@pytest.mark.usefixtures("at_once_gone")
def test_what_nobody_knows_of_in_the_jobs_folder_goes_too(own: Client) -> None:
    job, _ = output_of(own, "a.png")
    place, folder = operators_place(public=False), f"{own.tenant.pk}/{job.uuid}/"
    put_object(place, f"{folder}a2/stray.png", io.BytesIO(b"stray"), content_type="image/png")
    client(place).create_multipart_upload(Bucket=place.s3_bucket, Key=f"{folder}a2/begun.bin")
    assert len(in_s3(folder)) == 3
    assert go_all_the_way(delete_job(job.uuid, "test")).done_at
    assert in_s3(folder) == []


@pytest.mark.usefixtures("at_once_gone")
def test_a_tenants_own_uploads_and_what_other_jobs_hold_stay(own: Client) -> None:
    uploaded, first, second = put(own.tenant), own.submit(), own.submit()
    for job in (first, second):
        Hold.objects.create(job_id=job.uuid, blob_id=uploaded.blob_id)
    assert go_all_the_way(delete_job(first.uuid, "test")).done_at
    assert Asset.all_tenants.filter(pk=uploaded.pk).exists()
    assets.delete(own.tenant.pk, uploaded.pk)
    discard(1000)
    assert is_there(uploaded.blob), "the second needs it"
    assert go_all_the_way(delete_job(second.uuid, "test")).done_at
    assert not is_there(uploaded.blob)


@pytest.mark.usefixtures("at_once_gone")
def test_an_output_that_another_job_has_as_its_input_goes_when_that_has_ended(own: Client) -> None:
    """Rule 25. Until then the receipt waits."""
    made, (blob,) = output_of(own, "a.png")
    job = own.submit()
    Hold.objects.create(job_id=job.uuid, blob_id=blob.pk)
    receipt = go_all_the_way(delete_job(made.uuid, "test"))
    assert (receipt.done_at, is_there(blob)) == (None, True)
    own.cancel(job)
    uploads.release_holds(1000)
    go_all_the_way(receipt)
    assert (receipt.done_at is not None, receipt.files, is_there(blob)) == (True, 1, False)


def bucket_of(client: Client, **fields: Any) -> Bucket:
    real = operators_place(public=False)
    made: Bucket = Bucket.all_tenants.create(
        tenant=client.tenant,
        name="main",
        is_default=True,
        **{"endpoint_url": real.endpoint_url, "prefix": unique("out")} | fields,
        s3_bucket=real.s3_bucket,
        access_key_id=real.access_key_id,
        secret_access_key=Sealed.seal(real.secret_access_key),
    )
    return made


@pytest.mark.usefixtures("at_once_gone")
def test_while_s3_is_away_it_waits_and_says_why(own: Client) -> None:
    bucket = bucket_of(own)
    job, _, slot = slot_of(own)
    sql.run("UPDATE storage_bucket SET endpoint_url = 'http://127.0.0.1:9' WHERE id = %s", [bucket.pk])
    receipt = delete_job(job.uuid, "test")
    sql.run("UPDATE jobs_attempt SET released_at = clock_timestamp() WHERE job_id = %s", [job.uuid])
    go_all_the_way(receipt)
    assert (receipt.done_at, rows_of_job(job)) == (None, {"Attempt": 1, "Blob": 1, "Job": 1, "Payload": 1})
    assert receipt.fault.startswith("No connection to 127.0.0.1:9")
    Bucket.all_tenants.filter(pk=bucket.pk).update(endpoint_url=operators_place(public=False).endpoint_url)
    go_all_the_way(receipt)
    assert (receipt.done_at is not None, receipt.fault, receipt.files) == (True, "", 1)
    assert in_s3(slot.key) == []


@pytest.mark.parametrize(("error", "counts"), [(b'"boom"', (1, 3, 0)), (None, (0, 0, 1))], ids=["failed", "completed"])
def test_files_in_a_requests_own_bucket_go_while_hearth_has_its_secret(
    own: Client, error: bytes | None, counts: tuple[int, int, int]
) -> None:
    """Of a job that may be retried; else it was wiped (rule 22), and the receipt says that they stay."""
    real = operators_place(public=False)
    theirs = {"endpointUrl": f"{real.endpoint_url}/{real.s3_bucket}", "bucketName": "theirs"}
    named = theirs | {"accessId": real.access_key_id, "accessSecret": real.secret_access_key}
    job, claimed, slot = slot_of(own, {"workflow": WORKFLOW, "tobucket": named})
    assert httpx.put(slot.url, content=b"abc", headers=slot.headers).status_code == 200
    uploads.mark_stored([UUID(slot.id)])
    value = {"files": [slot.key], "assets": [{"id": slot.id, "key": slot.key, "name": "a.png"}]}
    done = Done(output=b"x", output_value=value, error=error, error_value="boom")
    assert news.done(own.place.endpoint.pk, "w1", attempt_of(claimed), done)
    age_blobs(job)
    found = go_all_the_way(delete_job(job.uuid, "test"))
    assert (found.files, found.bytes, found.out_of_reach) == counts
    assert (found.done_at is not None, rows_of_job(job)) == (True, {})
    assert bool(in_s3(slot.key)) is (error is None)


def full(own: Client) -> list[JobId]:
    """A tenant with something in every table."""
    bucket = bucket_of(own)
    for user in (User.objects.create_user(unique("member")), User.objects.create_superuser(unique("operator"))):
        Member.all_tenants.create(tenant=own.tenant, user=user)
    webhook = Webhook.all_tenants.create(tenant=own.tenant, url="https://example.com", kinds=["completed"])
    WebhookSecret.all_tenants.create(tenant=own.tenant, secret=Sealed.seal(unique("whsec")))
    Delivery.all_tenants.create(tenant=own.tenant, webhook=webhook, lane=webhook.pk, kind="test")
    made = [output_of(own, "a.png")[0], own.submit(metadata={"a": 1}), own.submit(metadata={"a": "b"})]
    own.place.worker("w2").take_one()
    uploaded = [put(own.tenant, b"one"), put(own.tenant, b"two")]
    assets.delete(own.tenant.pk, put(own.tenant, b"three").pk)
    Hold.objects.create(job_id=made[1].uuid, blob_id=uploaded[0].blob_id)
    sql.run(
        "INSERT INTO jobs_idempotencykey (tenant_id, endpoint_id, key, body_sha256, job_id, created_at)"
        " VALUES (%s, %s, 'k', 'x', %s, clock_timestamp())",
        [own.tenant.pk, own.place.endpoint.pk, made[0].uuid],
    )
    place = operators_place(public=False)
    put_object(place, f"{own.tenant.pk}/stray", io.BytesIO(b"x"), content_type="x/y")
    put_object(place, f"{bucket.prefix}/{own.tenant.pk}/stray", io.BytesIO(b"x"), content_type="x/y")
    client(place).create_multipart_upload(Bucket=place.s3_bucket, Key=f"{own.tenant.pk}/uploads/begun")
    return made


def rows_of_tenant(tenant: Tenant) -> set[type[Owned]]:
    owned = [model for model in apps.get_models() if issubclass(model, Owned)]
    return {model for model in owned if model.all_tenants.filter(tenant=tenant).exists()}


def let_go_of_all(own: Client) -> None:
    for job, number in Attempt.objects.filter(job__tenant=own.tenant, released_at=None).values_list("job", "number"):
        release(job, number)


def is_old(receipt: Deletion) -> None:
    Deletion.all_tenants.filter(pk=receipt.pk).update(asked_at=timezone.now() - timedelta(hours=1))


@pytest.mark.usefixtures("at_once_gone")
def test_a_tenant_goes_with_all_that_is_its_own(own: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    globex = new_client(own.place, "globex")
    theirs, (their_blob,) = output_of(globex, "b.png")
    jobs_of_acme = full(own)
    prefix = Bucket.objects.of(own.tenant).get().prefix
    own_kinds = {Job, Metadata, Asset, Blob, Bucket, Webhook, WebhookSecret, Delivery, Member, Gone}
    assert rows_of_tenant(own.tenant) >= own_kinds
    used = Usage.objects.of(own.tenant).get().completed
    receipt = delete_tenant(own.tenant.pk, "by acme's lawyer")
    for job in jobs_of_acme:
        told = why_not(partial(history.status, own.key, own.place.name, job))
        assert "The tenant of this API key was deleted at 20" in told
    go_all_the_way(receipt)
    assert receipt.done_at is None, "a worker holds one of its jobs"
    let_go_of_all(own)
    done = go_all_the_way(receipt)
    assert (done.done_at is not None, done.jobs, done.payloads, done.assets) == (True, 3, 3, 3)
    assert (done.files, done.bytes, done.fault) == (3, 9, "")
    assert rows_of_tenant(own.tenant) == STAYS
    assert [rows_of_job(job) for job in jobs_of_acme] == [{}] * 3
    assert in_s3(f"{own.tenant.pk}/") + in_s3(f"{prefix}/") == []
    assert (Usage.objects.of(own.tenant).get().completed, used) == (1, 1)
    assert history.status(globex.key, own.place.name, theirs).state == "COMPLETED"
    assert is_there(their_blob)
    assert delete_tenant(own.tenant.pk, "twice").pk == receipt.pk


@pytest.mark.usefixtures("at_once_gone")
def test_members_go_who_are_of_no_other_tenant_nor_the_operators(own: Client) -> None:
    globex = new_client(own.place, "globex")
    only, both = (User.objects.create_user(unique(name)) for name in ("only", "both"))
    operator = User.objects.create_user(unique("operator"), is_staff=True)
    for user in (only, both, operator):
        Member.all_tenants.create(tenant=own.tenant, user=user)
    Member.all_tenants.create(tenant=globex.tenant, user=both)
    receipt = delete_tenant(own.tenant.pk, "test")
    is_old(receipt)
    assert go_all_the_way(receipt).done_at
    assert set(User.objects.filter(pk__in=[only.pk, both.pk, operator.pk])) == {both, operator}
    assert [member.tenant for member in both.memberships.all()] == [globex.tenant]


@pytest.mark.usefixtures("at_once_gone")
def test_an_s3_that_is_away_is_asked_once_in_a_pass_and_keeps_nobody_waiting(
    own: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = bucket_of(own, endpoint_url="http://127.0.0.1:9")
    stuck = [delete_job(own.submit().uuid, "test") for _ in range(3)]
    Bucket.all_tenants.filter(pk=bucket.pk).update(is_default=False)
    free, asked = delete_job(own.submit().uuid, "test"), []
    clear = objects.clear
    monkeypatch.setattr(
        objects, "clear", lambda place, prefix: asked.append(place.endpoint_url) or clear(place, prefix)
    )
    go_on()
    for receipt in (*stuck, free):
        receipt.refresh_from_db()
    assert [receipt.fault[:27] for receipt in stuck] == ["No connection to 127.0.0.1:"] * 3
    assert (free.done_at is not None, asked.count(bucket.endpoint_url)) == (True, 1)
    Bucket.all_tenants.filter(pk=bucket.pk).update(endpoint_url=operators_place(public=False).endpoint_url)
    assert all(go_all_the_way(receipt).done_at for receipt in stuck)


@pytest.mark.usefixtures("at_once_gone")
def test_two_at_once_do_no_harm(own: Client) -> None:
    for _ in range(6):
        output_of(own, "a.png", "b.png")
    full(own)
    receipt = delete_tenant(own.tenant.pk, "test")
    let_go_of_all(own)
    for _ in range(3):
        at_once(4, go_on)
        at_once(3, lambda: discard(1000))
    done = go_all_the_way(receipt)
    let_go_of_all(own)
    done = go_all_the_way(receipt)
    assert (done.done_at is not None, done.jobs, done.payloads, done.assets) == (True, 9, 9, 15)
    assert rows_of_tenant(own.tenant) == STAYS


def test_a_tenant_is_done_only_when_nothing_can_come_any_more(acme: Client) -> None:
    receipt = delete_tenant(acme.tenant.pk, "test")
    go_all_the_way(receipt)
    assert receipt.done_at is None
    is_old(receipt)
    assert go_all_the_way(receipt).done_at
