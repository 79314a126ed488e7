"""The contract of backends: how an endpoint's jobs reach GPUs. Dataclasses in and out; they never touch models."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


class BackendError(Exception):
    """`permanent`: trying again cannot help."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, kw_only=True)
class Handover:
    """An attempt as a backend gets it. `input`: JSON bytes."""

    attempt_id: str
    input: bytes


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an attempt came to: `output` and `error` as JSON bytes."""

    output: bytes | None = None
    error: bytes | None = None


class Backend(ABC):
    """Hands attempts to where GPUs are."""

    is_pulled = False  # workers come and take; nothing is ever submitted

    @abstractmethod
    def submit(self, handover: Handover) -> Result | None:
        """Hand an attempt over; a Result if it is done already. Raises BackendError."""
