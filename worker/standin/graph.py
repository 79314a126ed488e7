"""What follows from a graph in ComfyUI's API format alone: links, the order of execution, the keys of the cache.

graph: {node id: {"class_type": str, "inputs": {name: constant or [node id, slot]}}}
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

Graph = dict[str, Any]


def is_link(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def sources(graph: Graph, node: str) -> list[str]:
    return [value[0] for value in graph[node]["inputs"].values() if is_link(value)]


class Plan:
    """The nodes still to run, and which of the ready ones ComfyUI takes next.

    Nodes whose output is cached are left out, unless they are themselves to be executed as outputs.
    """

    def __init__(
        self, graph: Graph, outputs: Iterable[str], is_cached: Callable[[str], bool], is_output: Callable[[str], bool]
    ):
        self.waits_for: dict[str, set[str]] = {}
        self.is_output = is_output
        for output in outputs:
            found = [output]
            while found:
                node = found.pop()
                if node not in self.waits_for:
                    missing = [source for source in sources(graph, node) if not is_cached(source)]
                    self.waits_for[node] = set(missing)
                    found += missing

    def next(self) -> str:
        """An output if one is ready, else what brings an output nearest."""
        ready = [node for node, missing in self.waits_for.items() if not missing]
        near: list[Callable[[str], bool]] = [self.is_output, self._feeds_output, self._feeds_feeder]
        for wanted in near:
            for node in ready:
                if wanted(node):
                    return node
        return ready[0]

    def done(self, node: str) -> None:
        del self.waits_for[node]
        for missing in self.waits_for.values():
            missing.discard(node)

    def _fed_by(self, node: str) -> list[str]:
        return [other for other, missing in self.waits_for.items() if node in missing]

    def _feeds_output(self, node: str) -> bool:
        return any(self.is_output(other) for other in self._fed_by(node))

    def _feeds_feeder(self, node: str) -> bool:
        return any(self._feeds_output(other) for other in self._fed_by(node))


def cache_keys(graph: Graph, fingerprint: Callable[[str], Any]) -> dict[str, str]:
    """For each node a key that is equal exactly when class, constants, fingerprint and all ancestors' are equal.

    Node ids do not count. What cannot be told (a cycle, a link to nowhere) gets a key of its own. A node without
    "inputs", wherever it is, is a KeyError that ends the executor, as it ends ComfyUI's.
    """
    keys: dict[str, str] = {}

    def key(node: str) -> str:
        if node not in keys:
            keys[node] = f"unknown {uuid.uuid4()}"
            if node in graph:
                told = json.dumps([graph[node]["class_type"], fingerprint(node), inputs(graph[node]["inputs"])])
                keys[node] = hashlib.sha256(told.encode()).hexdigest()
        return keys[node]

    def inputs(given: dict[str, Any]) -> list[Any]:
        names = sorted(given)
        return [[name, [key(v[0]), int(v[1])] if is_link(v := given[name]) else {"constant": v}] for name in names]

    for node in graph:
        key(node)
    return {node: keys[node] for node in graph}
