"""How much is measured, and on what."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.processes import Instance

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """`quick`: as little as shows that everything works; its figures say nothing."""

    instance: Instance
    rounds: int
    quick: bool
    _kept: dict[Any, Any] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def kept(self, start: Callable[["Bench"], AbstractContextManager[T]]) -> T:
        """What `start` gives. It is started once for the rows of a module, and ended before those of the next."""
        if start not in self._kept:
            self._kept[start] = self._stack.enter_context(start(self))
        found: T = self._kept[start]
        return found

    def let_go(self) -> None:
        self._kept.clear()
        self._stack.close()

    @property
    def seconds(self) -> float:
        """Of one measure under load."""
        return 0.1 if self.quick else 1.6

    @property
    def warm_s(self) -> float:
        """Before it."""
        return 0.05 if self.quick else 0.4

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full
