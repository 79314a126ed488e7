"""Own workers: they pull by the stock `runpod` SDK (wire/fleet.py), so there is nothing to submit."""

from jobs.backends.base import Backend, BackendError, Handover, Health, Report, Submitted


class Fleet(Backend):
    is_pulled = True

    def submit(self, handover: Handover) -> Submitted:
        raise _pulled()

    def cancel(self, remote_id: str) -> None:
        raise _pulled()

    def status(self, remote_id: str) -> Report:
        raise _pulled()

    def health(self) -> Health:
        raise _pulled()


def _pulled() -> BackendError:
    return BackendError("a fleet's workers pull their jobs and tell of them themselves", permanent=True)
