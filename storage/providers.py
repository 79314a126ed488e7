"""What S3 providers differ in, told by the endpoint's host, and reading what a person wrote about a bucket.

Each function here gives a setting as it is to be kept, or raises ValidationError by the name of the field of Bucket.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError

from worker.place import BucketPlace, resolve_bucket
from worker.wire import UrlRefused, check_url

PATH, VIRTUAL = "path", "virtual"
URL_HOURS_MOST = 7 * 24  # what Signature Version 4 signs for
S3_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
PREFIX = re.compile(r"[^\x00-\x1f\x7f\\]{0,500}")


@dataclass(frozen=True)
class Provider:
    """endpoint: an example. The region is in the host, or is the one that place.py knows for it."""

    name: str
    endpoint: str
    host: str
    addressing: str = PATH


PROVIDERS = (
    Provider("Amazon S3", "https://s3.eu-central-1.amazonaws.com", r"s3[.-](.*\.)?amazonaws\.com(\.cn)?", VIRTUAL),
    Provider("Cloudflare R2", "https://ACCOUNT.r2.cloudflarestorage.com", r".+\.r2\.cloudflarestorage\.com"),
    Provider("Backblaze B2", "https://s3.us-west-004.backblazeb2.com", r"s3\..+\.backblazeb2\.com"),
    Provider("Google", "https://storage.googleapis.com", r"storage\.googleapis\.com"),
    Provider("MinIO, SeaweedFS, others", "https://s3.example.com", r".*"),
)
EXAMPLES = "; ".join(f"{provider.name}: {provider.endpoint}" for provider in PROVIDERS)


def read_endpoint(endpoint_url: str, s3_bucket: str) -> BucketPlace:
    """The endpoint without the S3 bucket, which its host or path may name as in the reference; and that S3 bucket."""
    try:
        check_url(endpoint_url, settings.URL_ALLOW)
    except UrlRefused as error:
        raise ValidationError({"endpoint_url": f"{error}."}) from error
    try:
        place = resolve_bucket(endpoint_url)
    except ValueError:  # it names none
        if not s3_bucket:
            raise ValidationError({"s3_bucket": "It is missing, and the endpoint names none."}) from None
        place = resolve_bucket(endpoint_url, s3_bucket)
    else:
        if s3_bucket not in ("", place.bucket):
            why = f"The endpoint names the S3 bucket {place.bucket!r}: write that or nothing here."
            raise ValidationError({"s3_bucket": why})
    if not S3_BUCKET.fullmatch(place.bucket):
        raise ValidationError({"s3_bucket": f"{place.bucket[:80]!r} is no S3 bucket's name."})
    return place


def read_prefix(*parts: str) -> str:
    prefix = "/".join(part for text in parts for part in text.split("/") if part)
    if not PREFIX.fullmatch(prefix) or ".." in prefix.split("/"):
        raise ValidationError({"prefix": "At most 500 plain characters, no backslash and no '..'."})
    return prefix


def read_region(place: BucketPlace, region: str) -> str:
    host = urlsplit(place.endpoint_url).hostname or ""
    if region and region != place.region and place.region in host.split("."):
        raise ValidationError({"region": f"The endpoint is that of {place.region!r}: write that or nothing here."})
    return region or place.region


def read_addressing(place: BucketPlace, addressing: str) -> str:
    dotted = "." in place.bucket and place.endpoint_url.startswith("https:")
    if addressing == VIRTUAL and dotted:
        why = "The S3 bucket's name has a dot: no certificate is good for such a host. Choose path."
        raise ValidationError({"addressing": why})
    return addressing or (PATH if dotted else _provider(place).addressing)


def _provider(place: BucketPlace) -> Provider:
    host = urlsplit(place.endpoint_url).hostname or ""
    return next(provider for provider in PROVIDERS if re.fullmatch(provider.host, host))


def read_public_url(public_url: str, *, signed: bool) -> str:
    if not public_url:
        if not signed:
            why = "URLs that are not signed need a public URL, whose files everybody may read."
            raise ValidationError({"public_url": why})
        return ""
    try:
        check_url(public_url, settings.URL_ALLOW)
    except UrlRefused as error:
        raise ValidationError({"public_url": f"{error}."}) from error
    if "?" in public_url or "#" in public_url:
        raise ValidationError({"public_url": "Without '?' and '#': the key of each file is put behind it."})
    return public_url.rstrip("/")
