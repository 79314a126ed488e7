"""One file of a job's output on its way from ComfyUI to where the job's files live."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from worker.errors import JobError
from worker.kinds import content_type_of, kind_of
from worker.spool import Spool
from worker.wire import Asset, Upload


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
        return kind_of(self.name, self.content_type)

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
