"""What an endpoint's worker speaks: how a job's input goes to it, and what its result is in Hearth's one shape.

hearth: Hearth's own worker, whose shape that is. dekita: the worker of the reference. worker-comfyui: RunPod's. raw:
any JSON, which passes as it is both ways. What a foreign worker answers is read leniently, as its run is paid: what is
not known of it stays beside what is.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from accounts.sealed import Sealed
from jobs.inline import Inline
from jobs.models import Endpoint
from jobs.wire.bodies import Part, json_object, shown, split_object
from worker.kinds import content_type_of, kind_of
from worker.wire import FILES, Asset, Slot, bytes_in, named_files

HEARTH, DEKITA, WORKER_COMFYUI, RAW = Endpoint.Dialect
LONGEST_NAME = 300
UNKNOWN = asdict(Asset(id="", key=None, node="", kind="", name="", subfolder="", content_type="", bytes=0, sha256=""))
UNKNOWN |= {"id": None, "bytes": None, "sha256": None}


@dataclass(kw_only=True)
class Read:
    """A foreign worker's result in Hearth's shape. Of files that came inside, `files` has None for now. error: "" if it
    went well."""

    datas: dict[str, Any] = field(default_factory=dict)
    files: list[str | None] = field(default_factory=list)
    assets: list[dict[str, Any]] = field(default_factory=list)
    inline: list[Inline] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str:
        return "; ".join(self.faults)

    def add(self, name: str, given: Any) -> None:
        """A file as a URL, or as base64; what is neither is a fault."""
        if isinstance(given, str) and given.startswith(("http://", "https://")):
            self._told(name or given.split("?", 1)[0].rsplit("/", 1)[-1], url=given)
        elif content := bytes_in(given) if isinstance(given, str) else b"":
            name = name or f"file.{ending_of(content)}"
            self.inline.append(Inline(position=len(self.files), name=plain(name), content=content))
            self._told(name, bytes=len(content), sha256=self.inline[-1].sha256)
        else:
            self.faults.append(f"{name or 'A file'} came neither as a URL nor as base64, but as {shown(given)}")

    def _told(self, name: str, url: str | None = None, **known: Any) -> None:
        content_type = content_type_of(name)
        known |= {"name": plain(name), "content_type": content_type, "kind": kind_of(name, content_type)}
        self.files.append(url)
        self.assets.append(UNKNOWN | known | ({"url": url} if url else {}))

    def stored(self, slots: Mapping[int, Slot]) -> dict[str, Any]:
        """The output, once the files that came inside are stored in these slots; the others are left out."""
        inside = {one.position for one in self.inline}
        places = [at for at in range(len(self.files)) if at not in inside or at in slots]
        files = [slots[at].key if at in slots else self.files[at] for at in places]
        where = {at: {"id": slot.id, "key": slot.key} for at, slot in slots.items()}
        assets = [self.assets[at] | where.get(at, {}) for at in places]
        return self.more | {"files": files, "assets": assets, "datas": self.datas}


def read_dekita(value: Any, error: Any) -> Read:
    """`{"files": [URL or base64], "datas": {…}}`; an error may come as the bare output."""
    read = Read()
    _add_error(read, error)
    if isinstance(value, str) and value:
        read.faults.append(value)
    given = dict(value) if isinstance(value, Mapping) else {}
    files, datas = given.pop("files", None), given.pop("datas", None)
    _add_error(read, given.pop("error", None))
    for file in files if isinstance(files, list) else ():
        read.add("", file)
    read.datas = dict(datas) if isinstance(datas, Mapping) else {}
    read.more = given
    return read


def read_worker_comfyui(value: Any, error: Any) -> Read:
    """`{"images": [{"filename", "type": "base64" or "s3_url", "data"}], "errors": […]}`. `errors` beside images are
    faults: a node failed, or a file could not be had."""
    read = Read()
    _add_error(read, error)
    if isinstance(value, str) and value:
        read.faults.append(value)
    given = dict(value) if isinstance(value, Mapping) else {}
    images = given.pop("images", None)
    given.pop("status", None)  # success_no_images
    for name in ("error", "details", "errors"):
        _add_error(read, given.pop(name, None))
    for image in images if isinstance(images, list) else ():
        about = image if isinstance(image, Mapping) else {}
        read.add(str(about.get("filename") or ""), about.get("data"))
    read.more = given
    return read


READERS: dict[str, Callable[[Any, Any], Read]] = {DEKITA: read_dekita, WORKER_COMFYUI: read_worker_comfyui}
"""Of the output and the error of a result, by dialect, where it is not Hearth's own."""


def _add_error(read: Read, error: Any) -> None:
    for one in error if isinstance(error, list) else [error]:
        if one not in (None, "", False, {}):
            read.faults.append(one if isinstance(one, str) else json.dumps(one))


# How files begin whose name nobody tells.
BEGIN: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n", "png"),
    (rb"\xff\xd8\xff", "jpg"),
    (rb"GIF8", "gif"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"RIFF.{4}WAVE", "wav"),
    (rb".{4}ftyp", "mp4"),
    (rb"\x1aE\xdf\xa3", "webm"),
    (rb"fLaC", "flac"),
    (rb"OggS", "ogg"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "mp3"),
)


def ending_of(content: bytes) -> str:
    return next((ending for begin, ending in BEGIN if re.match(begin, content, re.DOTALL)), "bin")


def plain(name: str) -> str:
    """A worker's name of a file as the database takes it."""
    return "".join(char if char.isprintable() else "_" for char in name.rsplit("/", 1)[-1][-LONGEST_NAME:])


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a job was given: `input` as JSON bytes; `bucket`: where its worker shall put files by itself, sealed JSON,
    if it is told. urls: of the assets in the input, by their text there."""

    dialect: str
    input: bytes
    bucket: Sealed | None
    urls: Mapping[str, str] = field(default_factory=dict)


def to_worker(given: Given) -> tuple[bytes, bytes | None]:
    """The input as the worker takes it, and the `s3Config` beside it; our own gets its way back besides."""
    config = given.bucket.unseal().encode() if given.bucket else None
    if given.dialect not in (DEKITA, WORKER_COMFYUI):
        return _with_urls(given.input, given.urls) if given.urls else given.input, config
    parts = split_object(given.input).values
    if given.urls:
        workflow = parts["workflow"].value
        raw = workflow.encode() if isinstance(workflow, str) else parts["workflow"].raw
        parts["workflow"] = Part(None, _with_urls(raw, given.urls))
    if given.dialect == DEKITA:
        return json_object(_for_dekita(parts, config)), config
    return json_object(_for_worker_comfyui(parts)), None  # it puts files in no bucket but its own machine's


def _with_urls(raw: bytes, urls: Mapping[str, str]) -> bytes:
    """The JSON with each of these texts as its URL, wherever it stands."""
    whole: dict[str, Any] = {"": json.loads(raw)}
    waiting: list[Any] = [whole]
    while waiting:  # no recursion: a client may nest deeper than Python's stack is
        inside = waiting.pop()
        for place, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
            if isinstance(value, str):
                inside[place] = urls.get(value, value)
            elif isinstance(value, dict | list):
                waiting.append(value)
    return json.dumps(whole[""]).encode()


def _for_dekita(parts: Mapping[str, Part], config: bytes | None) -> dict[str, bytes]:
    """Without a bucket of its own it answers base64, which Hearth then puts into the job's."""
    fields = {name: part.raw for name, part in parts.items()}
    return fields | ({"tobucket": config} if config else {"tobase64": b"true"})


def _for_worker_comfyui(parts: Mapping[str, Part]) -> dict[str, bytes]:
    """It takes no workflow as text, and files as `images` only."""
    fields = {name: part.raw for name, part in parts.items() if name not in (*FILES, "tobase64")}
    workflow = parts["workflow"].value
    if isinstance(workflow, str):
        fields["workflow"] = workflow.encode()
    images = [
        {"name": name, "image": content}
        for key in FILES
        if key in parts
        for name, content in named_files(parts[key].value)
    ]
    return fields | ({"images": orjson.dumps(images)} if images else {})
