"""The thread that executes prompts one after the other, with ComfyUI's messages, cache and history entries."""

import threading
import time
import traceback
import uuid
from typing import Any

from PIL import Image

from worker.standin import log
from worker.standin.files import Folders
from worker.standin.graph import Graph, Plan, cache_keys
from worker.standin.image_nodes import wait_ticking
from worker.standin.node import Interrupted, Run, Ui
from worker.standin.nodes import NODES
from worker.standin.progress import Progress
from worker.standin.queue import Item, PromptQueue
from worker.standin.sockets import Hub
from worker.standin.validate import full_type_name

HISTORY_LAG_S = 0.005
"""Between execution_success and the history entry; recorded from a real ComfyUI: 5 ms, once 396 ms."""


class Executor:
    """client_id and last_node tell a socket that connects again what is running for it."""

    def __init__(self, queue: PromptQueue, hub: Hub, folders: Folders, delay_s: float):
        self.queue, self.hub, self.folders, self.delay_s = queue, hub, folders, delay_s
        self.interrupted = threading.Event()
        self.client_id: str | None = None
        self.last_node: str | None = None
        self.outputs: dict[str, tuple[Any, ...]] = {}
        self.shown: dict[str, dict[str, Any]] = {}

    def start(self) -> None:
        threading.Thread(target=self._work, name="executor", daemon=True).start()

    def _work(self) -> None:
        """For ever; but, as with ComfyUI, an extra_data of null ends the thread and nothing runs again."""
        try:
            while True:
                taken = self.queue.take()
                if taken is not None:
                    self._execute(*taken)
                if self.queue.was_asked_to_free_memory():
                    self.outputs, self.shown = {}, {}
        except Exception:
            log.exception("the executor died, as ComfyUI's would: nothing runs until the server is started again")

    def _execute(self, ticket: int, item: Item) -> None:
        _, prompt_id, graph, extra_data, outputs = item
        self.interrupted.clear()
        self.client_id = None
        if "client_id" in extra_data:
            self.client_id = extra_data["client_id"]
        execution = Execution(self, prompt_id, graph, extra_data)
        status = execution.run(outputs)
        time.sleep(HISTORY_LAG_S)
        self.queue.done(ticket, {**execution.result(), "status": status})
        if self.client_id is not None:
            self.hub.post("executing", {"node": None, "prompt_id": prompt_id}, self.client_id)

    def keep_only(self, keys: dict[str, str]) -> None:
        """The cache holds nothing that the current graph does not name."""
        used = set(keys.values())
        self.outputs = {key: value for key, value in self.outputs.items() if key in used}
        self.shown = {key: value for key, value in self.shown.items() if key in used}

    def raise_if_interrupted(self) -> None:
        if self.interrupted.is_set():
            self.interrupted.clear()
            raise Interrupted


class Execution:
    """One prompt."""

    def __init__(self, executor: Executor, prompt_id: str, graph: Graph, extra_data: Any):
        self.executor, self.prompt_id, self.graph, self.extra_data = executor, prompt_id, graph, extra_data
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.executed: list[str] = []
        self.progress = Progress(prompt_id, executor.hub, executor.client_id)
        self.keys: dict[str, str] = {}

    def run(self, outputs: list[str]) -> dict[str, Any]:
        """Execute; the history entry's "status"."""
        self._tell("execution_start", {})
        self.keys = cache_keys(self.graph, self._fingerprint)
        self.executor.keep_only(self.keys)
        self._tell("execution_cached", {"nodes": [node for node in self.graph if self._is_cached(node)]})
        success = self._run_nodes(Plan(self.graph, outputs, self._is_cached, self._is_output))
        if success:
            self._tell("execution_success", {})
        self.executor.last_node = None
        return {"status_str": "success" if success else "error", "completed": success, "messages": self.messages}

    def result(self) -> dict[str, Any]:
        """The history entry's "outputs" and "meta"; after a failure, what was made before it."""
        shown = {node: self.executor.shown[key] for node, key in self.keys.items() if key in self.executor.shown}
        return {
            "outputs": {node: ui["output"] for node, ui in shown.items()},
            "meta": {node: ui["meta"] for node, ui in shown.items()},
        }

    def _tell(self, event: str, data: dict[str, Any]) -> None:
        """Note a message for the history and send it, if it is anybody's; all hear of an interruption."""
        data = {**data, "prompt_id": self.prompt_id, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        if self.executor.client_id is not None or event == "execution_interrupted":
            self.executor.hub.post(event, data, self.executor.client_id)

    def _is_cached(self, node: str) -> bool:
        return self.keys.get(node) in self.executor.outputs

    def _is_output(self, node: str) -> bool:
        return NODES[self.graph[node]["class_type"]].output_node

    def _fingerprint(self, node: str) -> Any:
        """ComfyUI leaves it in the graph, and so in the prompt that is saved with a picture."""
        made = NODES[self.graph[node]["class_type"]].fingerprint
        if made is None:
            return None
        if "is_changed" not in self.graph[node]:
            try:
                self.graph[node]["is_changed"] = [made(self.executor.folders, self.graph[node]["inputs"])]
            except Exception as error:
                log.warning("node %s is not cached: %s", node, error)
                return uuid.uuid4().hex
        return self.graph[node]["is_changed"]

    def _run_nodes(self, plan: Plan) -> bool:
        while plan.waits_for:
            node = plan.next()
            inputs: dict[str, Any] = {}
            try:
                self._run_or_reuse(node, inputs)
            except Interrupted:
                self._tell("execution_interrupted", self._about(node))
                return False
            except Exception as error:
                log.warning("node %s of prompt %s failed: %s", node, self.prompt_id, error)
                self._tell("execution_error", {**self._about(node), **_told(error, inputs, self.graph)})
                return False
            plan.done(node)
        return True

    def _about(self, node: str) -> dict[str, Any]:
        return {"node_id": node, "node_type": self.graph[node]["class_type"], "executed": list(self.executed)}

    def _run_or_reuse(self, node: str, inputs: dict[str, Any]) -> None:
        if self._is_cached(node):
            self._send_executed(node)
            self.progress.finish(node)
            return
        self.progress.start(node)
        inputs |= self._inputs(node)
        if self.executor.client_id is not None:
            self.executor.last_node = node
            self._send("executing", node)
        self.executor.raise_if_interrupted()
        made = self._call(node, inputs)
        if isinstance(made, Ui):
            meta = {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
            self.executor.shown[self.keys[node]] = {"meta": meta, "output": made.shown}
            self._send_executed(node)
        self.executor.outputs[self.keys[node]] = made.outputs if isinstance(made, Ui) else made
        self.progress.finish(node)
        self.executed.append(node)

    def _inputs(self, node: str) -> dict[str, Any]:
        """What the function is called with: constants, what the links bring, the hidden inputs."""
        given, kind = self.graph[node]["inputs"], NODES[self.graph[node]["class_type"]]
        inputs = {}
        for name, value in given.items():
            if isinstance(value, list) and value[0] in self.graph:
                inputs[name] = self.executor.outputs[self.keys[value[0]]][value[1]]
            elif name in kind.inputs:
                inputs[name] = value
        hidden = {"PROMPT": self.graph, "EXTRA_PNGINFO": self.extra_data.get("extra_pnginfo")} if kind.hidden else {}
        return inputs | {name: hidden[wanted] for name, wanted in kind.hidden.items() if wanted in hidden}

    def _call(self, node: str, inputs: dict[str, Any]) -> tuple[Any, ...] | Ui:
        kind = self.graph[node]["class_type"]
        function = NODES[kind].function
        if function is None:
            raise NotImplementedError(f"the stand-in knows {kind} but does not execute it")

        def tick(value: int, maximum: int, preview: Image.Image | None) -> None:
            self.executor.raise_if_interrupted()
            self.progress.update(node, value, maximum, preview)

        wait_ticking(tick, self.executor.delay_s)
        previews = self.extra_data.get("preview_method") not in (None, "none")
        return function(Run(self.executor.folders, tick, previews), **inputs)

    def _send(self, event: str, node: str, **more: Any) -> None:
        data = {"node": node, "display_node": node, **more, "prompt_id": self.prompt_id}
        self.executor.hub.post(event, data, self.executor.client_id)

    def _send_executed(self, node: str) -> None:
        if self.executor.client_id is not None:
            shown = self.executor.shown.get(self.keys[node], {})
            self._send("executed", node, output=shown.get("output"))


def _told(error: Exception, inputs: dict[str, Any], graph: Graph) -> dict[str, Any]:
    """What execution_error says beside the node: inputs as lists of one, each a plain value or its str()."""
    plain = str | int | float | None
    return {
        "exception_message": f"{error}\n",
        "exception_type": full_type_name(error),
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {name: [value if isinstance(value, plain) else str(value)] for name, value in inputs.items()},
        "current_outputs": list(graph),
    }
