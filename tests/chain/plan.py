"""What happens in a run: which jobs, and which part of which Hearth is killed when. It follows from the seed."""

import random
from dataclasses import dataclass

PARTS = ("web", "tasks-fast", "sweeper", "postgres", "deliverer")
SLOW_S = 20.0
TIMEOUT_MS, PATIENT_MS = 5_000, 60_000  # of jobs that are to time out, and of those that outlive a restart


@dataclass(frozen=True)
class Planned:
    """A job: how long its handler takes, and how it must end. CANCELLED: its client cancels it `at_s` after the
    submission, so it may have completed before."""

    n: int
    seconds: float
    ends: str
    at_s: float = 0.0


@dataclass(frozen=True)
class Kill:
    """part "": all of that side."""

    at_s: float
    side: str
    part: str


def jobs(seed: int, number: int) -> list[Planned]:
    dice = random.Random(seed)
    return [_job(dice, n) for n in range(number)]


def _job(dice: random.Random, n: int) -> Planned:
    seconds, kind = dice.uniform(0.02, 0.4), dice.random()
    if kind < 0.08:
        return Planned(n, seconds, "FAILED")
    if kind < 0.16:
        return Planned(n, SLOW_S, "CANCELLED", dice.uniform(0.5, 4))
    if kind < 0.19:
        return Planned(n, SLOW_S, "TIMED_OUT")
    return Planned(n, seconds, "COMPLETED")


def kills(seed: int, seconds: float, whole: int, parts: int) -> list[Kill]:
    """Each side is killed `whole` times as a whole, and `parts` of its parts besides."""
    dice = random.Random(seed + 1)
    found = [Kill(dice.uniform(3, seconds), side, "") for side in ("near", "far") for _ in range(whole)]
    found += [Kill(dice.uniform(1, seconds), dice.choice(["near", "far"]), dice.choice(PARTS)) for _ in range(parts)]
    return sorted(found, key=lambda kill: kill.at_s)
