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
import posixpath
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

MODEL_FILE = re.compile(r".\.(safetensors|sft|ckpt|pt|pt2|pth|bin|gguf|onnx|pkl)$", re.IGNORECASE)
CORE = re.compile(r"nodes|comfy_extras\..+|comfy_api_nodes\..+")
# Inputs that offer files of ComfyUI's input folder and do not say so
FILE_INPUTS = {"LoadLatent.latent", "LoadImageSetFromFolderNode.folder", "LoadImageTextSetFromFolderNode.folder"}


def is_model(value: Any) -> bool:
    """Whether a value is the name of a model file."""
    return isinstance(value, str) and MODEL_FILE.search(value) is not None


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


JOB_FOLDER = re.compile(r"hearth-[0-9a-f]{32}")  # a job's own folder on ComfyUI's disk, a name nobody can guess
SAVE_PREFIX = "filename_prefix"
WRAP = "__value__"  # {"__value__": [1, 2]} is how a list is given that is no link
PATHS = {
    *(SAVE_PREFIX, "subfolder", "folder", "folder_path", "directory", "dir", "path", "save_path", "output_path"),
    *("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "mask", "mask_path"),
    *("audio", "audio_path", "video", "video_path", "latent", "model_file", "recording", "normal", "lineart"),
}
"""Inputs of nodes that ComfyUI or well-known custom nodes join to a folder, most without a look at where it leads."""
LONGEST_PATH, LONGEST_NAME_BYTES = 4096, 255  # of a path and of one part of it, as file systems take them
ANNOTATION = re.compile(r".?\[(input|output|temp)\]$", re.DOTALL)  # ComfyUI cuts one character before it as well
UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^[A-Za-z]:")  # lone surrogates have no UTF-8


def name_fault(name: str) -> str:
    """Why a name of input.files is no relative path without tricks; "" if it is. It becomes a path beside ComfyUI."""
    parts = name.split("/")
    if UNFIT.search(name) or "\\" in name:
        return "has a backslash, a drive or a control character"
    if any(part in ("", ".", "..") for part in parts):
        return "is absolute or leaves its folder; send a plain file name"
    if JOB_FOLDER.search(name):
        return "is like that of a job's own folder; send another"
    if any(len(part.encode()) > LONGEST_NAME_BYTES for part in parts):
        return f"has a part longer than {LONGEST_NAME_BYTES} bytes"
    return ""


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


def paths_fault(workflow: Mapping[str, Any], names: Iterable[str]) -> str:
    """Which input of which node would reach outside of what is this job's, and why; "" if none does.

    ComfyUI opens `../x`, `/x` and `x [output]` for any tenant, so they are refused here. names: those of the job's
    own files, which may be annotated. Text is let through: only inputs known to be paths are judged fully.
    """
    own = {f"{name} [{folder}]" for name in names for folder in ("output", "temp")}
    for node, about in workflow.items():
        inputs = about.get("inputs") if isinstance(about, dict) else None
        for name, value in _texts(inputs if isinstance(inputs, dict) else {}):
            if value not in own and (fault := _path_fault(name, value)):
                return f"node {node[:80]!r}, input {name[:80]!r}: {value[:80]!r} {fault}"
    return ""


def plain_prefix(prefix: str) -> str:
    """A save prefix without the folder of an earlier job, which is in every file that job made with its workflow."""
    return re.sub(rf"^{JOB_FOLDER.pattern}/?", "", prefix)


def unwrapped(value: Any) -> Any:
    """An input's value as ComfyUI takes it: {"__value__": x} is x."""
    return value[WRAP] if isinstance(value, dict) and WRAP in value else value


def _texts(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text at any depth, by the nearest name. Links hold one too, a node's id, which is harmless."""
    waiting: list[tuple[str, Any]] = list(inputs.items())
    while waiting:  # no recursion: a client may nest deeper than Python's stack is
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            waiting += [(name if key == WRAP else key, inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]


def _path_fault(name: str, value: str) -> str:
    value = plain_prefix(value) if name == SAVE_PREFIX else value
    if "hearth-" in value and JOB_FOLDER.search(value):
        return "names a job's own folder; give the file's name as it was in that job's files"
    if ".." in value and _leads_up(ANNOTATION.sub("", value), is_path=name in PATHS):
        return "leaves its folder by '..'; send a name inside of it"
    return _known_path_fault(value) if name in PATHS else ""


def _leads_up(path: str, *, is_path: bool) -> bool:
    """Whether `..` is a part of it. What may be text is judged only if it is one word and no URL."""
    if not is_path and (re.search(r"\s", path) or "://" in path):
        return False
    return any(part.strip() == ".." for part in re.split(r"[/\\]", path))


def _known_path_fault(value: str) -> str:
    if UNFIT.search(value):
        return "has a drive or a control character; send a plain name"
    jpeg = value.startswith("/9j/")  # in base64, as some nodes take it
    if value.startswith(("/", "\\")) and not jpeg and len(posixpath.normpath(value)) <= LONGEST_PATH:
        return "is an absolute path; send a name inside of ComfyUI's folder"
    if value.endswith(("[output]", "[temp]")):
        return "is in a folder that all jobs share; send the file with the job, in input.files"
    return ""
