"""A bucket's secret goes in and never comes out."""

from typing import Any

import pytest
from django.test import Client as Browser

from accounts.models import Tenant
from storage.models import Asset, Blob, Bucket
from tests.admin.rows import Rows, get, list_url, page_url
from tests.cast import unique

SETTINGS = {
    "name": "main",
    "endpoint_url": "https://s3.example.com",
    "s3_bucket": "b",
    "region": "us-east-1",
    "addressing": "path",
    "access_key_id": "AKIA",
    "prefix": "/hearth/",
}


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name=unique("acme"))


def add(browser: Browser, tenant: Tenant, **fields: Any) -> str:
    given = SETTINGS | {"tenant": tenant.pk, "secret": "first secret"} | fields
    return str(browser.post(f"{list_url(Bucket)}add/", given).content.decode())


def test_a_new_buckets_secret_is_sealed(browser: Browser, tenant: Tenant) -> None:
    add(browser, tenant)
    bucket = Bucket.objects.of(tenant).get()
    assert bucket.secret_access_key.unseal() == "first secret"
    assert b"first secret" not in bucket.secret_access_key.token
    assert bucket.prefix == "hearth"


def test_a_new_bucket_needs_a_secret(browser: Browser, tenant: Tenant) -> None:
    assert "This field is required." in add(browser, tenant, secret="")
    assert not Bucket.objects.of(tenant).exists()


@pytest.mark.parametrize(("given", "kept"), [("", "first secret"), ("second secret", "second secret")])
def test_an_empty_secret_keeps_the_old_one(browser: Browser, tenant: Tenant, given: str, kept: str) -> None:
    add(browser, tenant)
    bucket = Bucket.objects.of(tenant).get()
    assert browser.post(page_url(bucket), SETTINGS | {"region": "eu-1", "secret": given}).status_code == 302
    bucket = Bucket.objects.of(tenant).get()
    assert (bucket.region, bucket.secret_access_key.unseal()) == ("eu-1", kept)
    assert "Leave empty to keep" in get(browser, page_url(bucket))


def test_a_refused_form_does_not_say_the_secret_again(browser: Browser, tenant: Tenant) -> None:
    page = add(browser, tenant, endpoint_url="not a URL")
    assert "Enter a valid URL" in page
    assert "first secret" not in page


def test_a_second_default_is_refused_and_the_first_is_named(browser: Browser, tenant: Tenant) -> None:
    add(browser, tenant, is_default="on")
    page = add(browser, tenant, name="other", is_default="on")
    assert "has a default bucket, main: untick it there." in page


def test_an_asset_is_found_by_its_id_and_by_its_jobs(browser: Browser, rows: Rows) -> None:
    assert rows.job
    other = rows.add_job()
    asset = Asset.objects.of(rows.tenant).get(job_id=rows.job.pk)
    for text in (str(asset.pk), rows.job.public_id, f"{rows.job.public_id}-a3"):
        found = browser.get(list_url(Asset), {"q": text}).content.decode()
        assert page_url(asset) in found
        assert page_url(Asset.objects.of(rows.tenant).get(job_id=other.pk)) not in found
    assert page_url(asset.blob) in browser.get(list_url(Blob), {"q": rows.job.public_id}).content.decode()
    assert "<img src=" in get(browser, page_url(asset))
