"""Completes every job at once with its input as the output: real code for tests and load."""

from jobs.backends.base import Backend, Handover, Health, NotThere, Report, Submitted
from jobs.states import State


class Dummy(Backend):
    ends_at_once = True

    def submit(self, handover: Handover) -> Submitted:
        report = Report(remote_id=handover.attempt_id, state=State.COMPLETED, output=handover.input)
        return Submitted(remote_id=handover.attempt_id, report=report)

    def cancel(self, remote_id: str) -> None:
        raise NotThere(f"{remote_id} ended when it was submitted")

    def status(self, remote_id: str) -> Report:
        raise NotThere(f"{remote_id} ended when it was submitted")

    def health(self) -> Health:
        return Health(workers=1, throttled=0, queued=0, running=0)
