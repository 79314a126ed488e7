"""How far a prompt is, told to the client at most twice a second and never waited for."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

EVERY_S = 0.5
TITLE_CHARS = 200
MOST_STEPS = 1000

Report = Callable[[dict[str, Any]], None]


class Progress:
    """Reads ComfyUI's messages about one prompt; `report` gets {fraction, node, class_type, title, value, max,
    nodes_done, nodes_total}. A run shorter than EVERY_S reports nothing: its result is there as soon.

    fraction: a node counts as much as it has steps by its own input `steps`, else as one: a sampler is most of a run.
    """

    def __init__(self, workflow: Mapping[str, Any], report: Report | None) -> None:
        self.node: str | None = None
        self._workflow = workflow
        self._report = report
        self._weights = {node: _weight(about) for node, about in workflow.items()}
        self._all = sum(self._weights.values()) or 1
        self._done: set[str] = set()
        self._value: float = 0
        self._max: float = 1
        self._fraction = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sent: dict[str, Any] | None = None

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """A message of the prompt's own."""
        match kind:
            case "execution_cached":
                self._finish(data.get("nodes") or [])
            case "executing" if data.get("node") is not None:
                self._begin(str(data["node"]))
            case "progress" if str(data.get("node")) == self.node:
                self._value, self._max = data.get("value") or 0, data.get("max") or 1
            case "progress_state":
                states = data.get("nodes") or {}
                self._finish(node for node, state in states.items() if state.get("state") == "finished")
            case _:
                return
        if self._report and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._send)

    def class_type(self, node: str | None) -> str:
        """Of a node of the workflow; nodes that ComfyUI itself adds are "parent.sub.n" and have none here."""
        return str(self._about(node).get("class_type") or "")

    def title(self, node: str | None) -> str:
        """What the workflow's author called it; "" if nothing."""
        meta = self._about(node).get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        return title[:TITLE_CHARS] if isinstance(title, str) else ""

    def snapshot(self) -> dict[str, Any]:
        done: float = sum(self._weights[node] for node in self._done)
        if self.node in self._weights and self.node not in self._done:
            done += self._weights[self.node] * self._value / self._max
        # What a workflow expands into can take progress back; what the client sees only grows.
        self._fraction = max(self._fraction, min(1.0, done / self._all))
        return {
            "fraction": round(self._fraction, 4),
            "node": self.node,
            "class_type": self.class_type(self.node),
            "title": self.title(self.node),
            "value": self._value,
            "max": self._max,
            "nodes_done": len(self._done),
            "nodes_total": len(self._workflow),
        }

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _about(self, node: str | None) -> Mapping[str, Any]:
        about = self._workflow.get(node or "")
        return about if isinstance(about, dict) else {}

    def _begin(self, node: str) -> None:
        if self.node is not None and node != self.node:
            self._finish([self.node])
        if node != self.node:
            self.node, self._value, self._max = node, 0, 1

    def _finish(self, nodes: Any) -> None:
        self._done.update(str(node) for node in nodes if str(node) in self._workflow)

    def _send(self) -> None:
        self._timer = None
        now = self.snapshot()
        if self._report and now != self._sent:
            self._sent = now
            self._report(now)


def _weight(about: Any) -> int:
    inputs = about.get("inputs") if isinstance(about, dict) else None
    steps = inputs.get("steps") if isinstance(inputs, dict) else None
    return min(steps, MOST_STEPS) if type(steps) is int and steps > 0 else 1
