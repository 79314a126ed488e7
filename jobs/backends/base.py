"""The contract of backends: how an endpoint's jobs reach GPUs. Dataclasses in and out; they never touch models.

BackendError               the backend did not do it; trying again helps unless it is `permanent`
├─ Unwanted                it will never take this very attempt
├─ NotThere                it does not know the attempt that it was asked about
├─ NotUnderstood           it answers, but of this attempt nothing that can be used; others may do
└─ OutcomeUnknown          of a submit: it may have taken the attempt all the same, so it must not be submitted again
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jobs.states import State


class BackendError(Exception):
    """`permanent`: trying again cannot help. retry_after_s: what the backend asked for, else 0."""

    def __init__(self, message: str, *, permanent: bool, retry_after_s: float = 0) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class Unwanted(BackendError):
    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class NotThere(BackendError):
    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class NotUnderstood(BackendError):
    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


class OutcomeUnknown(BackendError):
    def __init__(self, message: str, *, retry_after_s: float = 0) -> None:
        super().__init__(message, permanent=False, retry_after_s=retry_after_s)


@dataclass(frozen=True, kw_only=True)
class Handover:
    """An attempt as a backend gets it. `input`, `s3_config`: JSON bytes. webhook: where news of it goes. ttl_ms: it
    shall have ended by then, its execution included. once_key: the same for the same attempt."""

    attempt_id: str
    input: bytes
    webhook: str = ""
    execution_timeout_ms: int = 600_000
    ttl_ms: int = 24 * 3600_000
    s3_config: bytes | None = None
    once_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """An attempt as the backend sees it. `output`, `error`: JSON bytes as they came; of an attempt that has not ended
    the output is its progress. execution_ms: how long it ran. fault: why no result could be read from it."""

    remote_id: str
    state: State
    output: bytes | None = None
    output_value: Any = None
    error: bytes | None = None
    error_value: Any = None
    execution_ms: int | None = None
    mended: bool = False
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The backend has it, and calls it `remote_id`. report: if it is done already."""

    remote_id: str
    report: Report | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """`workers` that could take a job now or soon; `throttled`: those that wait for a GPU to be free."""

    workers: int
    throttled: int
    queued: int
    running: int


class Backend(ABC):
    """Hands attempts to where GPUs are. Every failure is a BackendError; what a flag denies is a permanent one, before
    anything is sent."""

    is_pulled = False  # workers come and take; nothing is ever submitted, asked or cancelled
    ends_at_once = False  # a submit comes with its report, so there is nothing to cancel or ask

    @abstractmethod
    def submit(self, handover: Handover) -> Submitted:
        """Hand an attempt over. OutcomeUnknown and Unwanted as above; after any other error it was not taken."""

    @abstractmethod
    def cancel(self, remote_id: str) -> None:
        """Have it stopped; one that has ended stays as it is. NotThere if it is gone."""

    @abstractmethod
    def status(self, remote_id: str) -> Report:
        """How it is now. NotThere if it is gone."""

    @abstractmethod
    def health(self) -> Health:
        """Whether the backend answers, and who works there."""
