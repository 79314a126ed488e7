"""How much is measured, and on what."""

from dataclasses import dataclass

from benchmarks.processes import Instance


@dataclass(frozen=True, kw_only=True)
class Bench:
    """`quick`: as little as shows that everything works; its figures say nothing."""

    instance: Instance
    rounds: int
    quick: bool

    @property
    def seconds(self) -> float:
        """Of one measure under load."""
        return 0.3 if self.quick else 1.6

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full
