"""Shapes that the worker and the backend share. Standard library only: it is imported on both sides.

The worker's calls to Hearth (rules.md 4), for jobs whose input carries `_hearth = {"url": …, "token": …}`:
    POST {url}/hooks/worker/{token}/started     {}                        200 {} run it · 409 do not run it
    POST {url}/hooks/worker/{token}/uploads     {"files": [Upload…],      200 {"uploads": [Slot…]} in that order · 409
                                                 "parts": true}           parts: this worker can send files in parts
    POST {url}/hooks/worker/{token}/parts       {"id", "numbers": [int…]} 200 {"parts": [Part…]} in that order, or
                                                                          {"fault": Found}: S3 let nobody begin · 409
    POST {url}/hooks/worker/{token}/complete    {"id", "parts":           200 {"found": Found}; there false: begin anew
                                                 [{"number", "etag"}…]}   · 409
    POST {url}/hooks/worker/{token}/stored      {"ids": [Slot.id…]}       200 {"stored": [Found…]} in that order · 409
    POST {url}/hooks/worker/{token}/small       {"files": [{"id", "bytes"}]} 200 {"small": [Slot…]} of those of these
                                                                          slots that may have a small picture · 409
    POST {url}/hooks/worker/{token}/outputs     {"assets": [Asset…]}      200 {}; files that are stored, while the job
                                                                          still runs · 409
    POST {url}/hooks/worker/{token}/preview     {"node", "content_type", "data": base64}      200 {} · 409
    POST {url}/hooks/worker/{token}/hand-back   {"reason": str, "code"}   200 {}; code: a word, of worker/errors.py or
                                                                          "shutdown"
    POST {url}/hooks/worker/{token}/alive       {}                        200 {} go on · 409 stop it; during a shutdown,
                                                                          when polls and pings have ended
404: the token is unknown or expired. 5xx and connection errors: try again.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

HEARTH_FIELD = "_hearth"
NOT_RUN = "Not run: "  # begins the error by which RunPod learns that a job of Hearth's ends there without a result


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
    part_bytes: above 0 the file is put in parts of so many bytes, the last of what is left; their URLs are asked for by
    their numbers, from 1 on, and `url` is "".
    """

    id: str
    key: str
    url: str
    headers: dict[str, str]
    trusted: bool
    part_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where to put one part of a slot's file, as a Slot says it."""

    number: int
    url: str
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What Hearth found in S3 of a slot's file. there: None if S3 does not tell, and then status is its answer's (0: it
    gave none) and code its error's word."""

    id: str
    there: bool | None
    status: int = 0
    code: str = ""

    @property
    def untold(self) -> bool:
        """S3 may not tell, as of a bucket to write only: asking again changes nothing."""
        return self.there is None and self.status in (401, 403)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of a job's output as the worker reports it, in the order of `files`. key is None when the file
    did not go through Hearth (base64, or a worker alone on RunPod). subfolder: as its node said it, often "". What is
    None is not known, or makes no sense for such a file. preview: True if a small picture of it is stored beside
    it."""

    id: str
    key: str | None
    node: str
    kind: str
    name: str
    subfolder: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None
    preview: bool | None = None


SMALL_BYTES, SMALL_TYPE = 64 * 1024, "image/webp"  # of a small picture of a stored file
PREVIEW_BYTES = 256 * 1024  # of a picture of a running sampler, at most
PREVIEW_TYPES = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n", "image/webp": b"RIFF"}
"""Of a preview, and how such a file begins."""

CORE = re.compile(r"nodes|comfy_extras\..+|comfy_api_nodes\..+")
# Inputs that offer files of ComfyUI's input folder and do not say so
FILE_INPUTS = {"LoadLatent.latent", "LoadImageSetFromFolderNode.folder", "LoadImageTextSetFromFolderNode.folder"}


def is_core(python_module: Any) -> bool:
    """Whether a node class is ComfyUI's own, by what /object_info says of it."""
    return isinstance(python_module, str) and CORE.fullmatch(python_module) is not None


def lists_files(node_class: str, name: str, options: Mapping[str, Any]) -> bool:
    """Whether the choices that /object_info tells for this input are files that jobs left in ComfyUI's folders: those
    are tenants', and a name that is not among them may be there when the job runs."""
    return takes_files(node_class, name, options) or any(key in ("image_folder", "remote") for key in options)


def takes_files(node_class: str, name: str, options: Mapping[str, Any]) -> bool:
    """Whether this input names a file that was uploaded: so a URL in its place is one to fetch, and no text."""
    told = any(key.endswith("upload") and options[key] for key in options)
    return told or f"{node_class}.{name}" in FILE_INPUTS


REFERENCE = re.compile(
    r"(?P<asset>asset:(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))"
    r"|(?P<s3>s3://(?P<bucket>[^/\s]+)/(?P<key>\S.*))|(?P<web>https?://\S+)",
    re.IGNORECASE | re.DOTALL,
)
"""What may stand for a file: an asset of the tenant's, an object in his own S3 bucket, a URL for the worker."""
MOST_REFERENCES = 100  # of one job


def reference(value: Any) -> re.Match[str] | None:
    return REFERENCE.fullmatch(value) if isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a reference's bytes are: `_hearth.inputs` has one for each asset: and s3:// of a job, by its text.

    trusted: the operator's S3; else the address must pass `check_address`. bytes, sha256: what must come, if known.
    fault: why there is no URL.
    """

    url: str
    trusted: bool = False
    name: str = ""
    bytes: int | None = None
    sha256: str = ""
    fault: str = ""


class UrlRefused(ValueError):
    """A URL from a tenant that the guard does not let through; the message says why."""


type_of_network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(listed: Iterable[str]) -> tuple[type_of_network, ...]:
    """Parse CIDRs ("127.0.0.0/8") that tenants' URLs may reach although they are not public."""
    return tuple(ipaddress.ip_network(item, strict=False) for item in listed)


PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
EMBEDDING_IPV6 = tuple(map(ipaddress.ip_network, ("2002::/16", "3fff::/20")))  # 6to4 leads to IPv4; documentation


def check_address(address: str, allowed: Iterable[type_of_network] = ()) -> None:
    """Refuse an IP address that is not public, unless its network is listed. Call it on what is connected to.

    An IPv6 address that stands for an IPv4 one is judged as that, or refused if a gateway would make it one.
    """
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError as error:
        raise UrlRefused(f"{address[:80]!r} is no IP address") from error
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if any(ip in network for network in allowed):
        return
    routed = ip in PUBLIC_IPV6 and not any(ip in network for network in EMBEDDING_IPV6) if ip.version == 6 else True
    if not ip.is_global or ip.is_multicast or not routed:
        raise UrlRefused(f"address {ip} is not public")


def check_url(url: Any, allowed: Iterable[type_of_network] = ()) -> str:
    """Refuse a tenant's URL that is not https (http only to a listed address), has credentials or a private address.

    Names are not looked up here: what they resolve to is checked when the connection is made (worker/guard.py).
    """
    if not isinstance(url, str) or any(ord(c) <= 32 or ord(c) == 127 for c in url) or len(url) > 2048:
        raise UrlRefused("not a URL of at most 2048 characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise UrlRefused(f"not a URL: {error}") from error
    if parts.scheme not in ("https", "http") or not host or port == 0 or "\\" in url:
        raise UrlRefused("not an http(s) URL with a host")
    if "@" in parts.netloc:
        raise UrlRefused("a URL must not carry a user name or password")
    literal = _literal_address(host)
    if literal is not None:
        check_address(literal, allowed)
    elif _is_local(host):
        check_address("127.0.0.1", allowed)
    if parts.scheme == "http" and not _listed(literal, host, allowed):
        raise UrlRefused("only https is allowed")
    return url


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _listed(literal: str | None, host: str, allowed: Iterable[type_of_network]) -> bool:
    address = "127.0.0.1" if _is_local(host) else literal
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


DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def bytes_in(text: str) -> bytes:
    """What base64, or a data URI of it, stands for; b"" for what is neither."""
    prefix = DATA_URI.match(text)
    try:
        return base64.b64decode(text[prefix.end() if prefix else 0 :], validate=True)
    except (binascii.Error, ValueError):
        return b""


FILES, CONTENT = ("files", "images"), ("data", "image", "url")


def file_names(given: Mapping[str, Any]) -> list[str]:
    """The names of a job's own files, from `files` and `images` in both of their shapes; what is odd is left out."""
    return [name for key in FILES for name, _ in named_files(given.get(key)) if isinstance(name, str)]


def named_files(listed: Any) -> Iterator[tuple[Any, Any]]:
    """(name, content) of each: from a list of {"name", "data" or "image" or "url"}, or an object of name to content."""
    if isinstance(listed, dict):
        yield from listed.items()
    elif isinstance(listed, list):
        for item in listed:
            if isinstance(item, dict):
                yield item.get("name"), next((item[key] for key in CONTENT if key in item), None)


OUTPUT_FORMATS = {"png": "png", "webp": "webp", "jpeg": "jpeg", "jpg": "jpeg"}
OUTPUT_QUALITY = 90


def output_fault(given: Mapping[str, Any]) -> str:
    """What is wrong with how a job's input wants its pictures, "" if nothing is."""
    format, quality, strip = (given.get(name) for name in ("output_format", "output_quality", "strip_metadata"))
    if format is not None and (not isinstance(format, str) or format not in OUTPUT_FORMATS):
        return f"output_format is {format!r:.40}; send one of {', '.join(OUTPUT_FORMATS)}"
    if quality is not None and (type(quality) is not int or not 1 <= quality <= 100):
        return f"output_quality is {quality!r:.40}; send 1 to 100"
    if strip is not None and not isinstance(strip, bool):
        return f"strip_metadata is {strip!r:.40}; send true or false"
    return ""
