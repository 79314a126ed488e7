"""Shapes that the worker and the backend share. Standard library only: it is imported on both sides.

The worker's calls to Hearth (rules.md 4), for jobs whose input carries `_hearth = {"url": …, "token": …}`:
    POST {url}/hooks/worker/{token}/started     {}                        200 {} run it · 409 do not run it
    POST {url}/hooks/worker/{token}/uploads     {"files": [Upload…]}      200 {"uploads": [Slot…]} in that order · 409
    POST {url}/hooks/worker/{token}/hand-back   {"reason": str}           200 {}
404: the token is unknown or expired. 5xx and connection errors: try again.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

HEARTH_FIELD = "_hearth"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that the worker has and wants to put into the job's bucket. sha256 is 64 hex digits."""

    name: str
    content_type: str
    bytes: int
    sha256: str
    node: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where to put an Upload: one PUT of the bytes to `url` with exactly `headers`, within 15 minutes.

    trusted: the bucket is the operator's; else the address came from a tenant and must pass `check_address`.
    """

    id: str
    key: str
    url: str
    headers: dict[str, str]
    trusted: bool


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of a job's output as the worker reports it, in the order of `files`. key is None when the file
    did not go through Hearth (base64, or a worker alone on RunPod)."""

    id: str
    key: str | None
    node: str
    kind: str
    name: str
    content_type: str
    bytes: int
    sha256: str


class UrlRefused(ValueError):
    """A URL from a tenant that the guard does not let through; the message says why."""


type_of_network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(listed: Iterable[str]) -> tuple[type_of_network, ...]:
    """Parse CIDRs ("127.0.0.0/8") that tenants' URLs may reach although they are not public."""
    return tuple(ipaddress.ip_network(item, strict=False) for item in listed)


def check_address(address: str, allowed: Iterable[type_of_network] = ()) -> None:
    """Refuse an IP address that is not public, unless its network is listed. Call it on what is connected to."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if any(ip in network for network in allowed):
        return
    if not ip.is_global or ip.is_multicast:
        raise UrlRefused(f"address {ip} is not public")


def check_url(url: Any, allowed: Iterable[type_of_network] = ()) -> str:
    """Refuse a tenant's URL that is not https (http only to a listed address), has credentials or a private address.

    Names are not looked up here: what they resolve to is checked when the connection is made.
    """
    if not isinstance(url, str) or any(ord(c) <= 32 or ord(c) == 127 for c in url) or len(url) > 2048:
        raise UrlRefused("not a URL of at most 2048 characters without spaces")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UrlRefused(f"not a URL: {error}") from error
    if parts.scheme not in ("https", "http") or not host:
        raise UrlRefused("not an http(s) URL with a host")
    if parts.username or parts.password:
        raise UrlRefused("a URL must not carry a user name or password")
    literal = _literal_address(host)
    if literal is not None:
        check_address(literal, allowed)
    elif host == "localhost" or host.endswith(".localhost"):
        check_address("127.0.0.1", allowed)
    if parts.scheme == "http" and not _listed(literal or host, allowed):
        raise UrlRefused("only https is allowed")
    return url


def _listed(host: str, allowed: Iterable[type_of_network]) -> bool:
    address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else _literal_address(host)
    return address is not None and any(ipaddress.ip_address(address) in network for network in allowed)


def _literal_address(host: str) -> str | None:
    """The address a host that is itself an address stands for: dotted, IPv6, or decimal/hex/octal as inet_aton has."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    import socket

    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


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
