"""Who says whether ComfyUI takes a workflow: a real one, or the stand-in, whose check is written apart from ours."""

import copy
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from worker.standin.files import Folders
from worker.standin.nodes import NODES, object_info
from worker.standin.validate import Refused, validate

Graph = dict[str, Any]


def comfyui_url() -> str:
    return os.environ.get("COMFYUI_URL", "").rstrip("/")


@dataclass(frozen=True)
class Said:
    """What ComfyUI makes of a workflow; errors: (node, type) of all it finds, also beside a sound output."""

    accepted: bool
    errors: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, accepted: bool, node_errors: dict[str, Any]) -> "Said":
        found = ((node, error["type"]) for node, about in node_errors.items() for error in about["errors"])
        return cls(accepted, frozenset(found))


class Judge(ABC):
    @abstractmethod
    def object_info(self) -> dict[str, Any]: ...

    @abstractmethod
    def says(self, graph: Graph) -> Said: ...

    @contextmanager
    def in_session(self) -> Iterator[None]:
        yield


class StandinJudge(Judge):
    def __init__(self, folder: Path) -> None:
        self._folders = Folders.prepare(str(folder))

    def object_info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads(json.dumps({name: object_info(name, self._folders) for name in NODES}))
        return info

    def says(self, graph: Graph) -> Said:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 5_000))
        try:
            return Said.of(True, validate(copy.deepcopy(graph), None, self._folders)[1])
        except Refused as refused:
            return Said.of(False, refused.body["node_errors"])
        except Exception:  # the 500 that ComfyUI answers
            return Said(False)
        finally:
            sys.setrecursionlimit(limit)


BLUR = {"blur_radius": 31, "sigma": 9.0}


class ComfyJudge(Judge):
    """A real ComfyUI, for this test alone. In a session it is kept busy, so that what it accepts does not run."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)

    def object_info(self) -> dict[str, Any]:
        info: dict[str, Any] = self._http.get("/object_info").json()
        return info

    def says(self, graph: Graph) -> Said:
        answer = self._http.post("/prompt", json={"prompt": graph})
        if answer.status_code != 200:
            node_errors = answer.json()["node_errors"] if answer.status_code == 400 else {}
            return Said.of(False, node_errors or {})
        said = answer.json()
        self._http.post("/queue", json={"delete": [said["prompt_id"]]})
        return Said.of(True, said["node_errors"])

    @contextmanager
    def in_session(self) -> Iterator[None]:
        self._http.post("/prompt", json={"prompt": busy()}).raise_for_status()
        yield
        self._http.post("/queue", json={"clear": True})
        self._http.post("/interrupt", json={})


def busy() -> Graph:
    """Some minutes of work that an interrupt ends."""
    color = int.from_bytes(os.urandom(3), "big")
    size = {"width": 1024, "height": 1024, "batch_size": 1, "color": color}
    graph: Graph = {"0": {"class_type": "EmptyImage", "inputs": size}}
    for number in range(1, 800):
        graph[str(number)] = {"class_type": "ImageBlur", "inputs": {"image": [str(number - 1), 0], **BLUR}}
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["799", 0]}}
    return graph
