"""progress_state, progress and preview images of one prompt."""

import io
from typing import Any

from PIL import Image

from worker.standin.sockets import Hub


class Progress:
    """Sent to the prompt's client; to everybody if the prompt has none."""

    def __init__(self, prompt_id: str, hub: Hub, client_id: str | None):
        self.prompt_id, self.hub, self.client_id = prompt_id, hub, client_id
        self.nodes: dict[str, dict[str, Any]] = {}

    def start(self, node: str) -> None:
        self._set(node, 0.0, 1.0, "running")

    def update(self, node: str, value: int, maximum: int, preview: Image.Image | None) -> None:
        """A client that asked for metadata gets the preview before `progress`, any other after it."""
        self._set(node, value, maximum, "running")
        metadata_wanted = self.hub.wants_metadata(self.client_id)
        if preview is not None and metadata_wanted:
            self._send_preview(node, preview)
        told = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": node}
        self.hub.post("progress", told, self.client_id)
        if preview is not None and not metadata_wanted:
            self._send_preview(node, preview)

    def finish(self, node: str) -> None:
        maximum = self.nodes.get(node, {}).get("max", 1)
        self._set(node, maximum, maximum, "finished")

    def _set(self, node: str, value: float, maximum: float, state: str) -> None:
        self.nodes[node] = {"value": value, "max": maximum, "state": state, **self._whose(node)}
        self.hub.post("progress_state", {"prompt_id": self.prompt_id, "nodes": dict(self.nodes)}, self.client_id)

    def _send_preview(self, node: str, preview: Image.Image) -> None:
        png = io.BytesIO()
        preview.save(png, format="PNG", quality=95, compress_level=1)
        self.hub.post_preview(png.getvalue(), self._whose(node), self.client_id)

    def _whose(self, node: str) -> dict[str, Any]:
        """There are no subgraphs here: a node is its own display node."""
        ids = {"node_id": node, "prompt_id": self.prompt_id, "display_node_id": node}
        return {**ids, "parent_node_id": None, "real_node_id": node}
