"""The prompts that wait, the one that runs, and those that have run. Memory only: a restart forgets everything."""

import copy
import heapq
import threading
from collections.abc import Callable
from typing import Any

Item = tuple[Any, str, dict[str, Any], Any, list[str]]
"""(number, prompt_id, graph, extra_data, outputs to execute), as GET /queue shows it."""

HISTORY_SIZE = 10000
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptQueue:
    """`changed` is called, with the lock held, after each change that ComfyUI announces by a status message."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.lock = threading.RLock()
        self.wake = threading.Condition(self.lock)
        self.waiting: list[Item] = []
        self.running: dict[int, Item] = {}
        self.finished: dict[str, dict[str, Any]] = {}
        self.free_memory = False
        self._taken = 0

    def put(self, item: Item) -> None:
        """TypeError if number and prompt_id equal a waiting item's and the graph differs: it IS queued all the same."""
        with self.lock:
            heapq.heappush(self.waiting, item)
            self.changed()
            self.wake.notify()

    def take(self) -> tuple[int, Item] | None:
        """Wait for the next item, lowest number first; None when woken to free memory."""
        with self.lock:
            while not self.waiting:
                if self.free_memory:
                    return None
                self.wake.wait()
            item = heapq.heappop(self.waiting)
            self._taken += 1
            self.running[self._taken] = copy.deepcopy(item)
            self.changed()
            return self._taken, item

    def done(self, ticket: int, result: dict[str, Any]) -> None:
        """Move what ran under `ticket` to the history, without the secrets of extra_data."""
        with self.lock:
            item = self.running.pop(ticket)
            if len(self.finished) > HISTORY_SIZE:
                self.finished.pop(next(iter(self.finished)))
            for secret in SECRETS:
                if secret in item[3]:
                    item[3].pop(secret)
            self.finished[item[1]] = {"prompt": item, **result}
            self.changed()

    def remaining(self) -> int:
        with self.lock:
            return len(self.waiting) + len(self.running)

    def listed(self) -> dict[str, list[Item]]:
        """As GET /queue: pending is in heap order, which is not the order of execution."""
        with self.lock:
            return {"queue_running": list(self.running.values()), "queue_pending": list(self.waiting)}

    def is_running(self, prompt_id: str) -> bool:
        with self.lock:
            return any(item[1] == prompt_id for item in self.running.values())

    def clear(self) -> None:
        with self.lock:
            self.waiting = []
            self.changed()

    def delete(self, prompt_id: str) -> None:
        """Remove the first waiting item of that id, if any."""
        with self.lock:
            places = [place for place, item in enumerate(self.waiting) if item[1] == prompt_id]
            if not places:
                return
            if len(self.waiting) == 1:
                self.clear()
            else:
                del self.waiting[places[0]]
                heapq.heapify(self.waiting)
            self.changed()

    def ask_to_free_memory(self) -> None:
        with self.lock:
            self.free_memory = True
            self.wake.notify()

    def was_asked_to_free_memory(self) -> bool:
        with self.lock:
            asked, self.free_memory = self.free_memory, False
            return asked

    def history(self, max_items: int | None, offset: int) -> dict[str, Any]:
        """Oldest first; max_items without offset (-1) gives the newest."""
        with self.lock:
            if offset < 0 and max_items is not None:
                offset = len(self.finished) - max_items
            kept = list(self.finished.items())[max(offset, 0) :]
            return dict(kept if max_items is None else kept[: max(max_items, 1)])

    def entry(self, prompt_id: str) -> dict[str, Any]:
        with self.lock:
            return {prompt_id: self.finished[prompt_id]} if prompt_id in self.finished else {}

    def forget(self, prompt_id: str) -> None:
        with self.lock:
            self.finished.pop(prompt_id, None)

    def forget_all(self) -> None:
        with self.lock:
            self.finished = {}
