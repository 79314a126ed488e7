"""Deals the planned faults: each hits the processes that the instance has at that moment, and nobody else's."""

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from tests.chaos.instance import Instance
from tests.chaos.plan import Fault


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A fault as it fell: from `at` to `until` (seconds since 1970) the part was away or stood still, at least."""

    fault: Fault
    at: float
    until: float
    missed: str = ""


class Faults:
    def __init__(self, instance: Instance) -> None:
        self.struck: list[Struck] = []
        self._instance = instance
        self._paused: list[tuple[float, list[psutil.Process]]] = []

    def run(self, faults: Iterable[Fault], begun: float, said: Callable[[str], None]) -> None:
        """All of them, at their times after `begun` (monotonic); late rather than closer together."""
        late_s = 0.0
        for fault in faults:
            self._sleep_until(begun + late_s + fault.at_s)
            late_s = max(late_s, time.monotonic() - begun - fault.at_s)
            struck = self._strike(fault)
            self.struck.append(struck)
            said(f"{fault.how} {fault.part}" + (f" ({struck.missed})" if struck.missed else ""))
        self.resume_all()

    def resume_all(self) -> None:
        for _, processes in self._paused:
            _send(processes, signal.SIGCONT)
        self._paused.clear()

    def _sleep_until(self, then: float) -> None:
        """Pauses that end meanwhile end on time."""
        while (now := time.monotonic()) < then:
            for pause in [pause for pause in self._paused if pause[0] <= now]:
                self._paused.remove(pause)
                _send(pause[1], signal.SIGCONT)
            time.sleep(max(0.0, min([then, *(until for until, _ in self._paused)]) - now))

    def _strike(self, fault: Fault) -> Struck:
        at, missed = time.time(), ""
        try:
            if fault.part == "instance":
                self._instance.again(signal.SIGKILL if fault.how == "kill" else signal.SIGTERM)
            else:
                self._hit(fault)
        except psutil.NoSuchProcess:
            missed = "it was away already"
        return Struck(fault=fault, at=at, until=time.time() + fault.for_s, missed=missed)

    def _hit(self, fault: Fault) -> None:
        process = self._process(fault.part)
        children = process.children(recursive=True)
        if fault.how in ("pause", "freeze"):
            chosen = [process, *(children if fault.how == "pause" else ())]
            _send(chosen, signal.SIGSTOP)
            self._paused.append((time.monotonic() + fault.for_s, chosen))
        elif fault.how == "kill backend":
            backends = [child for child in children if "[local]" in " ".join(child.cmdline())]
            _send([backends[int(fault.pick * len(backends))]] if backends else [], signal.SIGKILL)
        elif fault.how == "term":
            process.terminate()
        else:
            _send([process, *(children if fault.how == "kill group" else ())], signal.SIGKILL)

    def _process(self, part: str) -> psutil.Process:
        """NoSuchProcess while it is away, also when its pid is somebody else's by now."""
        process = psutil.Process(self._instance.home.run()["parts"][part]["pid"])
        if process.ppid() != self._instance.pid or process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(process.pid)
        return process


def _send(processes: Iterable[psutil.Process], sig: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(sig)
        except psutil.NoSuchProcess:
            pass
