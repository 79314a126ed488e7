"""A bucket's secret goes in and never comes out."""

import html
from typing import Any

import pytest
from django.test import Client as Browser
from django.urls import reverse

from accounts.audit import Change
from accounts.models import Tenant
from storage.models import Asset, Blob, Bucket
from storage.places import operators_place
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
    "signed_urls": "on",
}
EMPTY = {"region": "", "addressing": "", "s3_bucket": "", "prefix": ""}


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


def test_what_the_endpoint_tells_is_filled_in(browser: Browser, tenant: Tenant) -> None:
    page = get(browser, f"{list_url(Bucket)}add/")
    assert 'value="us-east-1"' not in page
    add(browser, tenant, endpoint_url="https://renders.s3.eu-central-1.amazonaws.com", **EMPTY)
    made = Bucket.objects.of(tenant).get()
    assert (made.endpoint_url, made.s3_bucket) == ("https://s3.eu-central-1.amazonaws.com", "renders")
    assert (made.region, made.addressing) == ("eu-central-1", "virtual")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"endpoint_url": "https://10.0.0.1"}, "address 10.0.0.1 is not public."),
        ({"endpoint_url": "https://b.s3.eu-west-1.amazonaws.com"}, "The endpoint is that of &#x27;eu-west-1&#x27;"),
        ({"s3_bucket": ""}, "It is missing, and the endpoint names none."),
        ({"signed_urls": ""}, "URLs that are not signed need a public URL"),
        ({"url_hours": 169}, "less than or equal to 168"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_told_in_the_form(
    browser: Browser, tenant: Tenant, fields: dict[str, Any], said: str
) -> None:
    assert said in add(browser, tenant, **fields)
    assert not Bucket.objects.of(tenant).exists()


def test_a_bucket_with_files_that_moves_is_told_what_that_means(browser: Browser, rows: Rows) -> None:
    given = SETTINGS | {"name": rows.bucket.name}
    page = browser.post(page_url(rows.bucket), given | {"s3_bucket": "elsewhere"}, follow=True).content.decode()
    assert "Files of earlier jobs are now looked for there" in page
    again = browser.post(page_url(rows.bucket), given | {"s3_bucket": "elsewhere", "secret": "x"}, follow=True)
    assert "Files of earlier jobs" not in again.content.decode()


def test_a_grant_may_have_a_bucket_of_its_tenant_and_of_no_other(browser: Browser, rows: Rows) -> None:
    other = Tenant.objects.create(name=unique("globex"))
    add(browser, other)
    theirs, grant = Bucket.objects.of(other).get(), rows.acme.grant
    page = browser.post(page_url(grant), {"weight": 1, "bucket": theirs.pk}).content.decode()
    assert f"{theirs} is another tenant&#x27;s: choose one of {rows.tenant}." in page
    assert browser.post(page_url(grant), {"weight": 1, "bucket": rows.bucket.pk}).status_code == 302
    grant.refresh_from_db()
    assert grant.bucket == rows.bucket
    assert "would require deleting the following protected related objects" in get(
        browser, page_url(rows.bucket, "delete")
    )


def verify_by_button(browser: Browser, bucket: Bucket) -> str:
    url = reverse("admin:storage_bucket_verify_now", args=[bucket.pk])
    assert "Verify?" in browser.get(url).content.decode()
    return str(browser.post(url, {"_form_submitted": "1"}, follow=True).content.decode())


def test_the_button_verifies_and_the_page_shows_the_last_result(browser: Browser, tenant: Tenant) -> None:
    real = operators_place(public=False)
    where = {"endpoint_url": real.endpoint_url, "s3_bucket": real.s3_bucket, "access_key_id": real.access_key_id}
    add(browser, tenant, **where)
    bucket = Bucket.objects.of(tenant).get()
    assert "not verified" in get(browser, page_url(bucket))
    page = verify_by_button(browser, bucket)
    assert "The secret access key is not the one of this access key" in page
    assert Change.objects.latest("pk").did.startswith("The secret access key is not")
    bucket.refresh_from_db()
    assert bucket.verify_fault in html.unescape(get(browser, page_url(bucket)))
    given = SETTINGS | where | {"prefix": "hearth", "secret": real.secret_access_key}
    assert browser.post(page_url(bucket), given).status_code == 302
    bucket.refresh_from_db()
    assert bucket.verified_at is None, "of other settings than these"
    assert f"{bucket} works." in verify_by_button(browser, bucket)
    bucket.refresh_from_db()
    assert (bucket.verify_fault, bucket.verified_at is None) == ("", False)


def test_looking_at_the_button_verifies_nothing(browser: Browser, rows: Rows) -> None:
    browser.get(reverse("admin:storage_bucket_verify_now", args=[rows.bucket.pk]))
    rows.bucket.refresh_from_db()
    assert rows.bucket.verified_at is None
