"""A bucket's settings: what an endpoint's host tells is filled in, what cannot work is said by the field's name."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.models import Tenant
from accounts.sealed import Sealed
from jobs.models import Grant
from storage.models import Bucket
from storage.outputs import Signer
from storage.places import client, operators_place
from storage.providers import PROVIDERS
from tests.cast import new_client, new_place, unique
from tests.fleet.wire import call

R2 = "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"


def new(**fields: Any) -> Bucket:
    known: dict[str, Any] = {"name": "main", "s3_bucket": "renders", "region": "", "addressing": ""}
    known |= {"access_key_id": "AKIA", "secret_access_key": Sealed.seal("secret")}
    return Bucket(tenant=Tenant(name="acme"), **known | fields)


def cleaned(endpoint_url: str, **fields: Any) -> tuple[str, str, str, str, str]:
    made = new(endpoint_url=endpoint_url, **fields)
    made.clean()
    made.clean()  # a form that is saved again changes nothing
    return made.endpoint_url, made.region, made.addressing, made.s3_bucket, made.prefix


def faults(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as refused:
        new(**{"endpoint_url": "https://s3.example.com"} | fields).clean()
    return dict(refused.value.message_dict)


@pytest.mark.parametrize(
    ("endpoint_url", "region", "addressing"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "eu-central-1", "virtual"),
        ("https://s3.amazonaws.com", "us-east-1", "virtual"),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "eu-west-1", "virtual"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1", "virtual"),
        (R2, "auto", "path"),
        (R2.replace(".r2", ".eu.r2"), "auto", "path"),
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004", "path"),
        ("https://storage.googleapis.com", "auto", "path"),
        ("https://minio.example.com:9000", "us-east-1", "path"),
        ("http://127.0.0.1:8333", "us-east-1", "path"),
    ],
)
def test_a_providers_host_tells_its_region_and_addressing(endpoint_url: str, region: str, addressing: str) -> None:
    assert cleaned(endpoint_url) == (endpoint_url, region, addressing, "renders", "")


def test_each_example_of_the_form_is_read_as_its_provider() -> None:
    assert [provider.name for provider in PROVIDERS][:4] == ["Amazon S3", "Cloudflare R2", "Backblaze B2", "Google"]
    for provider in PROVIDERS:
        endpoint_url = provider.endpoint.replace("ACCOUNT", "0" * 32)
        assert cleaned(endpoint_url)[2] == provider.addressing


@pytest.mark.parametrize(
    ("endpoint_url", "given", "read"),
    [
        ("https://renders.s3.eu-central-1.amazonaws.com", "", ("https://s3.eu-central-1.amazonaws.com", "")),
        ("https://renders.s3.eu-central-1.amazonaws.com", "renders", ("https://s3.eu-central-1.amazonaws.com", "")),
        (f"{R2}/renders/", "", (R2, "")),
        ("https://minio.example.com/renders/2026/up", "", ("https://minio.example.com", "2026/up/")),
        ("https://minio.example.com", "renders/2026", ("https://minio.example.com", "2026/")),
    ],
)
def test_the_s3_bucket_may_be_in_the_endpoints_host_or_path(
    endpoint_url: str, given: str, read: tuple[str, str]
) -> None:
    endpoint, _, _, s3_bucket, prefix = cleaned(endpoint_url, s3_bucket=given, prefix="/a//b/")
    assert (endpoint, s3_bucket, prefix) == (read[0], "renders", f"{read[1]}a/b")


def test_a_dotted_s3_bucket_is_addressed_by_path_since_no_certificate_is_good_for_its_host() -> None:
    assert cleaned("https://s3.eu-west-1.amazonaws.com", s3_bucket="my.renders")[2] == "path"
    wrong = faults(endpoint_url="https://s3.eu-west-1.amazonaws.com", s3_bucket="my.renders", addressing="virtual")
    assert "Choose path" in wrong["addressing"][0]


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"endpoint_url": "http://s3.example.com"}, "endpoint_url", "only https is allowed"),
        ({"endpoint_url": "https://10.0.0.1"}, "endpoint_url", "10.0.0.1 is not public"),
        ({"endpoint_url": "https://me:pw@s3.example.com"}, "endpoint_url", "user name or password"),
        ({"s3_bucket": ""}, "s3_bucket", "is missing"),
        ({"s3_bucket": "_x y"}, "s3_bucket", "is no S3 bucket's name"),
        ({"endpoint_url": f"{R2}/other"}, "s3_bucket", "names the S3 bucket 'other'"),
        ({"endpoint_url": "https://s3.eu-west-1.amazonaws.com", "region": "us-east-1"}, "region", "'eu-west-1'"),
        ({"prefix": "a\\b"}, "prefix", "no backslash"),
        ({"prefix": "a/../../b"}, "prefix", "no '..'"),
        ({"public_url": "http://cdn.example.com"}, "public_url", "only https is allowed"),
        ({"public_url": "https://cdn.example.com?x=1"}, "public_url", "Without '?'"),
        ({"signed_urls": False}, "public_url", "need a public URL"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_told_by_its_field(fields: dict[str, Any], field: str, said: str) -> None:
    assert said in faults(**fields)[field][0]


@pytest.mark.parametrize("hours", [0, 169])
def test_url_hours_are_bounded_by_what_s3_signs_for(hours: int) -> None:
    with pytest.raises(ValidationError, match="url_hours"):
        new(endpoint_url="https://s3.example.com", url_hours=hours).clean_fields(exclude=["tenant"])
    acme = Tenant.objects.create(name=unique("acme"))
    with pytest.raises(IntegrityError, match="bucket_url_hours"), transaction.atomic():
        Bucket.all_tenants.create(tenant=acme, name="b", secret_access_key=Sealed.seal("x"), url_hours=hours)


def test_open_urls_without_a_public_url_are_refused_by_the_database_too() -> None:
    acme = Tenant.objects.create(name=unique("acme"))
    with pytest.raises(IntegrityError, match="bucket_open_urls_are_public"), transaction.atomic():
        Bucket.all_tenants.create(tenant=acme, name="b", secret_access_key=Sealed.seal("x"), signed_urls=False)


def test_a_grants_bucket_is_its_tenants_own_by_the_database() -> None:
    place = new_place()
    acme, globex = new_client(place), new_client(place, "globex")
    theirs = Bucket.all_tenants.create(tenant=globex.tenant, name="b", secret_access_key=Sealed.seal("x"))
    with pytest.raises(IntegrityError, match="grant_bucket_of_tenant"):
        Grant.all_tenants.filter(pk=acme.grant.pk).update(bucket=theirs)


def test_signed_urls_live_as_long_as_their_bucket_says() -> None:
    made = new(pk=1, endpoint_url="https://s3.example.com", url_hours=7, region="us-east-1", addressing="path")
    query = parse_qs(urlsplit(Signer().url(made, "k.png")).query)
    assert query["X-Amz-Expires"] == [str(7 * 3600)]


def test_open_urls_are_the_public_url_and_the_key() -> None:
    made = new(pk=1, endpoint_url="https://s3.example.com", public_url="https://cdn.example.com/r", signed_urls=False)
    assert Signer().url(made, "out/a1/ü x+.png") == "https://cdn.example.com/r/out/a1/%C3%BC%20x%2B.png"


def test_a_url_signed_for_a_public_domain_reads_the_file() -> None:
    """The same S3 by another name, as a proxy before it has: signed for that name, and good there alone."""
    real = operators_place(public=False)
    key = f"{unique('public')}/ü x+.png"
    client(real).put_object(Bucket=real.s3_bucket, Key=key, Body=b"content")
    domain = real.endpoint_url.replace("127.0.0.1", "localhost")
    who = {"access_key_id": real.access_key_id, "secret_access_key": Sealed.seal(real.secret_access_key)}
    made = new(pk=2, endpoint_url=real.endpoint_url, public_url=f"{domain}/{real.s3_bucket}", region="us-east-1", **who)
    url = Signer().url(made, key)
    assert url.startswith(f"{domain}/{real.s3_bucket}/public-")
    assert "X-Amz-Signature" in url
    answer = call("GET", url)
    assert (answer.status, answer.body) == (200, b"content")
    assert call("GET", url.replace("localhost", "127.0.0.1")).status == 403
    assert timedelta(seconds=int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0])) == made.url_lifetime
