"""Where an S3 bucket is, read from what requests carry. Shared with the control plane: standard library only."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class BucketPlace:
    """Where an S3 bucket is. prefix is "" or a key prefix without slashes at its ends."""

    endpoint_url: str
    bucket: str
    prefix: str
    region: str


def resolve_bucket(endpoint_url: str, bucket_name: str | None = None) -> BucketPlace:
    """Read the pair that requests carry as endpointUrl and bucketName (rules.md 22).

    bucketName is the S3 bucket if endpointUrl has none in its host (`bucket.s3.region.amazonaws.com`) or path
    (`https://host/bucket`), else the key prefix. ValueError says what is missing.
    """
    cleaned = endpoint_url.strip(" \t\r\n`'\"/")
    parts = urlsplit(cleaned if "://" in cleaned else f"https://{cleaned}")
    if parts.scheme not in ("https", "http") or not parts.hostname or cleaned.endswith(":"):
        raise ValueError("endpointUrl is not an http(s) URL with a host")
    if parts.username or parts.password or parts.query:
        raise ValueError("endpointUrl must not carry a user name, a password or a query")
    port = f":{parts.port}" if parts.port else ""
    bucket, host, region = _host_parts(parts.hostname)
    rest = _segments(parts.path) + _segments((bucket_name or "").strip(" `"))
    if bucket is None and not rest:
        raise ValueError("bucketName is missing, and endpointUrl names no bucket")
    names = rest if bucket is None else [bucket, *rest]
    return BucketPlace(
        endpoint_url=f"{parts.scheme}://{host}{port}", bucket=names[0], prefix="/".join(names[1:]), region=region
    )


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


_S3_LIKE = r"amazonaws\.com(?:\.cn)?|wasabisys\.com|backblazeb2\.com|scw\.cloud"
# h: the host without the bucket, b: the bucket, r: the region, else the one beside the pattern
_BUCKET_HOSTS: tuple[tuple[str, str], ...] = (
    (rf"(?:(?P<b>.+)\.)?(?P<h>s3(?:[.-](?:dualstack\.)?(?P<r>[a-z0-9-]+))?\.(?:{_S3_LIKE}))", "us-east-1"),
    (r"(?:(?P<b>.+)\.)?(?P<h>(?P<r>[a-z0-9-]+)\.digitaloceanspaces\.com)", "us-east-1"),
    (r"(?:(?P<b>.+)\.)?(?P<h>[0-9a-f]{32}(?:\.(?:eu|fedramp))?\.r2\.cloudflarestorage\.com)(?P<r>)", "auto"),
    (r"(?:(?P<b>.+)\.)?(?P<h>storage\.googleapis\.com)(?P<r>)", "auto"),
)


def _host_parts(host: str) -> tuple[str | None, str, str]:
    """(bucket, host without it, region) of an S3 host; a host of an unknown provider carries no bucket."""
    for pattern, region in _BUCKET_HOSTS:
        if match := re.fullmatch(pattern, host):
            return match["b"], match["h"], match["r"] or region
    return None, f"[{host}]" if ":" in host else host, "us-east-1"
