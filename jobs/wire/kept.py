"""Kept: what the database said a moment ago, so that not every request asks it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")
Clock = Callable[[], float]


class _Entry(Generic[T]):
    def __init__(self) -> None:
        self.until = 0.0
        self.asking = asyncio.Lock()
        self.value: T


class Kept(Generic[K, T]):
    """Answers by key, each for `keep_s`; one at a time asks for a new one, and who also wants it waits for that."""

    def __init__(self, keep_s: float, clock: Clock = time.monotonic) -> None:
        self._keep_s, self._clock = keep_s, clock
        self._entries: dict[K, _Entry[T]] = {}
        self._look_over_at = 0.0

    async def get(self, key: K, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, asked for if need be. Raises what `ask` raises, and then keeps nothing."""
        entry = self._entries.get(key)
        if entry is None:
            self._drop_old()
            entry = self._entries[key] = _Entry()
        if entry.until > self._clock():
            return entry.value
        async with entry.asking:
            asked = self._clock()
            if entry.until <= asked:
                try:
                    entry.value = await ask()
                except BaseException:
                    self._entries.pop(key, None)
                    raise
                entry.until = asked + self._keep_s
            return entry.value

    def _drop_old(self) -> None:
        now = self._clock()
        if now >= self._look_over_at:
            self._look_over_at = now + self._keep_s
            self._entries = {key: entry for key, entry in self._entries.items() if entry.until > now}
