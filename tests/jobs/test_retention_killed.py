"""kill -9 in the middle of retention: the next run goes on, and the receipt counts each thing once."""

import pytest

from jobs import retention, uploads
from storage import assets
from storage.models import Asset, Blob
from tests.cast import Client
from tests.jobs import killed
from tests.jobs.test_retention import ALL_AT_ONCE, ended, is_there, keeps, put, receipt


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)


def test_between_a_batchs_deletes_and_its_count(acme: Client) -> None:
    keeps(acme, payload_days=1, event_days=1)
    for _ in range(4):
        ended(acme, 2)
    killed.at("jobs.tally.count", 3, "jobs.retention:retain")
    assert receipt(acme).payloads == 2
    retention.retain()
    assert (receipt(acme).payloads, receipt(acme).events) == (4, 12)


def test_between_the_object_and_its_row(acme: Client) -> None:
    keeps(acme, asset_days=1)
    made = [put(acme.tenant, b"%d" % number, 2) for number in range(3)]
    uploads.discard(1000)  # what other tests have left
    retention.retain()
    killed.at("jobs.uploads._forget", 1, "jobs.uploads:discard")
    assert [is_there(asset.blob) for asset in made] == [False] * 3
    assert Blob.objects.of(acme.tenant).count() == 3
    assert receipt(acme).files == 0
    uploads.discard(1000)
    assert (receipt(acme).files, receipt(acme).bytes) == (3, 3)
    assert not Blob.objects.of(acme.tenant).exists()
    assert not Asset.objects.of(acme.tenant).exists()
