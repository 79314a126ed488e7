"""Own workers: they pull by the stock `runpod` SDK (wire/fleet.py), so there is nothing to submit."""

from jobs.backends.base import Backend, BackendError, Handover, Result


class Fleet(Backend):
    is_pulled = True

    def submit(self, handover: Handover) -> Result | None:
        raise BackendError("a fleet's workers pull their jobs", permanent=True)
