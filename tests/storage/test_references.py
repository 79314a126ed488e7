"""Rule 25: bytes stay while an asset names them or a job holds them, and go when nothing does, whoever acts at once."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from accounts.errors import Refused
from accounts.models import Tenant, uuid7
from jobs import uploads
from jobs.uploads import discard
from storage import assets
from storage.models import Asset, Blob, Gone, Hold
from storage.places import client, operators_place
from tests.cast import unique

ALL_AT_ONCE = -timedelta(days=1)  # as SLACK: no upload URL is waited for


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name=unique("acme"))


def put(tenant: Tenant, content: bytes = b"abc", name: str = "a.png") -> Asset:
    new = assets.New(
        name=name, content_type="image/png", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    return assets.put(tenant.pk, new, io.BytesIO(content))


def content(blob: Blob) -> bytes | None:
    """What S3 has under its key."""
    s3, place = client(operators_place()), operators_place()
    try:
        body: bytes = s3.get_object(Bucket=place.s3_bucket, Key=blob.key)["Body"].read()
        return body
    except s3.exceptions.NoSuchKey:
        return None


def hold(job: UUID, asset: Asset) -> None:
    with transaction.atomic():
        Blob.all_tenants.select_for_update().get(pk=asset.blob_id)
        Hold.objects.create(job_id=job, blob_id=asset.blob_id)


def test_the_same_bytes_are_stored_once_a_tenant(tenant: Tenant) -> None:
    globex = Tenant.objects.create(name=unique("globex"))
    first, again, other, theirs = put(tenant), put(tenant, name="b.png"), put(tenant, b"abd"), put(globex)
    assert first.blob_id == again.blob_id
    assert len({first.blob_id, other.blob_id, theirs.blob_id}) == 3
    assert Blob.objects.of(tenant).count() == 2
    assert [content(each.blob) for each in (first, other, theirs)] == [b"abc", b"abd", b"abc"]


def test_bytes_go_with_the_last_asset_that_names_them(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)
    first, again = put(tenant), put(tenant)
    assets.delete(tenant.pk, first.pk)
    discard(1000)
    assert content(again.blob) == b"abc"
    assets.delete(tenant.pk, again.pk)
    assert Blob.objects.of(tenant).get().state == "dying"
    discard(1000)
    assert content(again.blob) is None
    assert not Blob.objects.of(tenant).exists()


def test_new_bytes_of_a_dying_hash_take_a_new_key(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put(tenant)
    assets.delete(tenant.pk, first.pk)
    again = put(tenant)
    assert again.blob.key != first.blob.key
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)
    discard(1000)
    assert (content(first.blob), content(again.blob)) == (None, b"abc")


def test_a_blob_waits_for_the_end_of_its_upload_url(tenant: Tenant) -> None:
    asset = put(tenant)
    assets.delete(tenant.pk, asset.pk)
    discard(1000)
    assert Blob.objects.of(tenant).get().state == "dying"


def test_a_held_blob_outlives_its_assets(tenant: Tenant) -> None:
    asset, job = put(tenant), uuid7()
    hold(job, asset)
    assets.delete(tenant.pk, asset.pk)
    assert Blob.objects.of(tenant).get().state == "kept"
    with transaction.atomic():
        Hold.objects.filter(job_id=job).delete()
        assert assets.let_go([asset.blob_id]) == 1
    assert Blob.objects.of(tenant).get().state == "dying"


def test_what_was_deleted_says_so_and_what_never_was_does_not(tenant: Tenant) -> None:
    globex, asset = Tenant.objects.create(name=unique("globex")), put(tenant)
    for stranger, id, status in ((globex, asset.pk, 404), (tenant, uuid7(), 404)):
        with pytest.raises(Refused) as refused:
            assets.delete(stranger.pk, id)
        assert refused.value.status == status
    assets.delete(tenant.pk, asset.pk)
    with pytest.raises(Refused, match="was deleted at 20") as refused:
        assets.delete(tenant.pk, asset.pk)
    assert (refused.value.status, refused.value.code) == (410, "gone")
    with pytest.raises(Refused) as refused:
        assets.delete(globex.pk, asset.pk)
    assert refused.value.status == 404


def test_the_database_keeps_uploaded_bytes_once(tenant: Tenant) -> None:
    kept = put(tenant).blob
    with pytest.raises(IntegrityError, match="blob_uploaded_bytes_once"), transaction.atomic():
        Blob.all_tenants.create(tenant=tenant, key="x", bytes=3, sha256=kept.sha256, state="kept")


def test_what_cannot_be_deleted_lets_others_go_first(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)
    stuck, well = put(tenant, b"stuck"), put(tenant, b"well")
    for asset in (stuck, well):
        assets.delete(tenant.pk, asset.pk)
    assets.failed([stuck.blob_id])
    order = [blob.pk for blob in assets.dying(1000)]
    assert order.index(well.blob_id) < order.index(stuck.blob_id)


def test_threads_that_put_the_same_bytes_at_once_share_one_blob(tenant: Tenant) -> None:
    start = threading.Barrier(4)

    def one(_: int) -> Asset:
        start.wait()
        try:
            return put(tenant, b"the same")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(one, range(4)))
    assert len({asset.blob_id for asset in made}) == 1
    assert content(made[0].blob) == b"the same"
    assert set(Blob.objects.of(tenant).values_list("state", flat=True)) <= {"kept", "dying"}


# Each thread's plan: what it does, to which of three contents.
Step = tuple[str, int]
STEPS = st.tuples(st.sampled_from(["put", "put", "delete", "hold", "release", "discard"]), st.integers(0, 2))
PLANS = st.lists(st.lists(STEPS, min_size=1, max_size=6), min_size=2, max_size=3)


class Actor:
    """One thread: it deletes and holds what it has put itself."""

    def __init__(self, tenant: Tenant, plan: list[Step]) -> None:
        self.tenant, self.plan = tenant, plan
        self.mine: list[tuple[int, Asset]] = []
        self.holds: list[tuple[UUID, int, UUID]] = []

    def run(self) -> None:
        try:
            for what, number in self.plan:
                getattr(self, what)(number)
        finally:
            connection.close()

    def put(self, number: int) -> None:
        self.mine.append((number, put(self.tenant, CONTENTS[number])))

    def delete(self, number: int) -> None:
        if self.mine:
            _, asset = self.mine.pop(number % len(self.mine))
            assets.delete(self.tenant.pk, asset.pk)

    def hold(self, number: int) -> None:
        if self.mine:
            what, asset = self.mine[number % len(self.mine)]
            hold(job := uuid7(), asset)
            self.holds.append((job, what, asset.blob_id))

    def release(self, number: int) -> None:
        if self.holds:
            job, _, blob = self.holds.pop(number % len(self.holds))
            with transaction.atomic():
                Hold.objects.filter(job_id=job).delete()
                assets.let_go([blob])

    def discard(self, number: int) -> None:
        discard(1000)


CONTENTS = (b"red", b"green", b"blue")


def needed(actors: list[Actor]) -> Iterator[tuple[int, UUID]]:
    for actor in actors:
        yield from ((number, Asset.all_tenants.get(pk=asset.pk).blob_id) for number, asset in actor.mine)
        yield from ((number, blob) for _, number, blob in actor.holds)


@given(plans=PLANS)
@settings(max_examples=15, deadline=None, phases=[Phase.generate])  # no run of threads is like another
def test_whatever_is_done_at_once_bytes_stay_while_they_are_needed_and_no_longer(plans: list[list[Step]]) -> None:
    tenant = Tenant.objects.create(name=unique("acme"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "SLACK", ALL_AT_ONCE)
        patch.setattr(uploads, "doom_unwon", lambda batch: None)  # it comes long after an upload's end
        actors = [Actor(tenant, plan) for plan in plans]
        run_at_once([actor.run for actor in actors])
        discard(1000)
        wanted = set(needed(actors))
        blobs = {blob.pk: blob for blob in Blob.objects.of(tenant)}
        assert set(blobs) == {pk for _, pk in wanted}
        assert {blob.state for blob in blobs.values()} <= {"kept"}
        assert all(content(blobs[pk]) == CONTENTS[number] for number, pk in wanted)
        place = operators_place()
        listed = client(place).list_objects_v2(Bucket=place.s3_bucket, Prefix=f"{tenant.pk}/")
        assert {found["Key"] for found in listed.get("Contents", [])} == {blob.key for blob in blobs.values()}


def run_at_once(calls: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


def test_word_of_the_deleted_is_one_row(tenant: Tenant) -> None:
    asset = put(tenant)
    assets.delete(tenant.pk, asset.pk)
    assert Gone.objects.of(tenant).get().pk == asset.pk
