"""One file of a job's output on its way from ComfyUI to where the job's files live."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from worker.errors import JobError
from worker.spool import Spool
from worker.wire import Asset, Upload

# Written out, because the mimetypes module knows as much as the machine it runs on.
CONTENT_TYPES = {
    extension: line.split()[0]
    for line in """
        image/png png          image/jpeg jpg jpeg    image/webp webp        image/gif gif       image/avif avif
        image/apng apng        image/bmp bmp          image/tiff tif tiff    image/x-exr exr     image/svg+xml svg
        image/jxl jxl          image/heic heic        image/jp2 jp2          image/x-tga tga     image/x-icon ico
        image/vnd.radiance hdr                        image/vnd.adobe.photoshop psd
        video/mp4 mp4 m4v      video/webm webm        video/quicktime mov    video/x-matroska mkv
        video/x-msvideo avi    video/mpeg mpg mpeg    video/ogg ogv          video/mp2t ts
        audio/flac flac        audio/mpeg mp3         audio/wav wav          audio/ogg ogg opus  audio/mp4 m4a
        audio/aac aac          audio/aiff aif aiff    audio/webm weba        audio/midi mid midi
        text/plain txt log     text/csv csv           text/markdown md       text/html html htm
        text/vtt vtt           text/x-subrip srt      text/yaml yaml yml     application/json json
        application/xml xml    application/pdf pdf    application/zip zip    application/x-npy npy
        model/gltf-binary glb  model/gltf+json gltf   model/obj obj          model/stl stl       model/x-ply ply
        model/mtl mtl          model/x-fbx fbx        model/vnd.usdz+zip usdz
    """.replace("  ", "\n").splitlines()
    for extension in line.split()[1:]
}
"""Others (latent, safetensors, splat, spz, ckpt …) have no type of their own."""
KINDS = ("image", "video", "audio", "text")


@dataclass(kw_only=True)
class OutputFile:
    """node: the id of the node that made it."""

    node: str
    name: str
    subfolder: str = ""
    content_type: str = ""
    body: Spool = field(default_factory=Spool, repr=False)
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    def __post_init__(self) -> None:
        self.content_type = self.content_type or content_type_of(self.name)

    def write(self, chunk: bytes) -> None:
        self.body.write(chunk)
        self._hash.update(chunk)

    @property
    def size(self) -> int:
        return self.body.size

    @property
    def kind(self) -> str:
        """image, video, audio, text, latent or file (3D too), as the Comfy API v2 names outputs."""
        if self.name.lower().endswith(".latent"):
            return "latent"
        family = self.content_type.split("/")[0]
        return family if family in KINDS else "file"

    def remade(self, content: bytes, name: str) -> "OutputFile":
        """Other bytes in its place."""
        made = OutputFile(node=self.node, name=name, subfolder=self.subfolder)
        made.write(content)
        return made

    def upload(self) -> Upload:
        return Upload(**self._described() | {"name": _line(self.name), "node": _line(self.node)})

    def asset(self, *, id: str, key: str | None) -> Asset:
        return Asset(id=id, key=key, subfolder=self.subfolder, **self._described())

    def failed(self, reason: str, code: str = "upload_failed") -> JobError:
        return JobError(f"{self.name} of node {self.node} could not be uploaded: {reason}", code)

    def _described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "content_type": self.content_type,
            "bytes": self.size,
            "sha256": self._hash.hexdigest(),
            "node": self.node,
            "kind": self.kind,
        }


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file that arrived: its item in `files` and, at the same place, in `assets`. note: for the result's warnings."""

    entry: str
    asset: Asset
    note: str = ""

    def telling(self, **facts: Any) -> "Stored":
        """With more told of the asset."""
        return replace(self, asset=replace(self.asset, **facts))


def _line(text: str) -> str:
    """As Hearth takes it beside a file."""
    return "".join(char if char.isprintable() else " " for char in text[:300])


def content_type_of(name: str) -> str:
    return CONTENT_TYPES.get(PurePosixPath(name).suffix[1:].lower(), "application/octet-stream")
