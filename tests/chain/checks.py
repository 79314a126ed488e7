"""What must hold of each job once all is over: it ended once, as it had to, and ran once unless a timeline says why."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chain.plan import Planned
from tests.chain.sides import Side

ENDS = {"completed", "failed", "cancelled", "timed_out"}
AGAIN = {"lost", "handed_back", "undone"}
JOBS = """
SELECT j.id::text, j.state, convert_from(p.input, 'UTF8')::json->>'n' FROM jobs_job j
  JOIN jobs_payload p ON p.job_id = j.id"""
EVENTS = "SELECT job_id::text, kind, attempt FROM jobs_event ORDER BY id"
LEFT = "SELECT count(*) FROM jobs_attempt WHERE released_at IS NULL"


@dataclass
class Story:
    """A job as one side tells it."""

    id: str
    state: str
    kinds: list[str] = field(default_factory=list)

    @property
    def again(self) -> int:
        """How often an attempt of it came to nothing."""
        return sum(kind in AGAIN for kind in self.kinds)


def stories(side: Side) -> dict[int, list[Story]]:
    """By the number in the input."""
    by_id: dict[str, Story] = {}
    found: dict[int, list[Story]] = defaultdict(list)
    for id, state, n in side.rows(JOBS):
        by_id[id] = Story(id, state)
        found[int(n)].append(by_id[id])
    for id, kind, _ in side.rows(EVENTS):
        by_id[id].kinds.append(kind)
    return found


def runs(file: Path) -> dict[int, list[str]]:
    """The worker's ids of each run, by the number in the input."""
    found: dict[int, list[str]] = defaultdict(list)
    for line in file.read_text().splitlines():
        n, id = line.split()
        found[int(n)].append(id)
    return found


def complaints(planned: Iterable[Planned], near: Side, far: Side, file: Path) -> list[str]:
    here, there, ran = stories(near), stories(far), runs(file)
    said = [text for job in planned for text in of_job(job, here[job.n], there[job.n], ran[job.n])]
    said += [f"{side}: {n} attempts hold a slot" for side, n in (("near", left(near)), ("far", left(far))) if n]
    return said


def left(side: Side) -> int:
    return int(side.rows(LEFT)[0][0])


def of_job(planned: Planned, here: list[Story], there: list[Story], ran: list[str]) -> list[str]:
    if len(here) != 1:
        return [f"{planned}: it is {len(here)} jobs"]
    (story,) = here
    may_end = {planned.ends} | ({"COMPLETED"} if planned.ends == "CANCELLED" else set())
    said = []
    if story.state not in may_end:
        said.append(f"it is {story.state}")
    if sum(kind in ENDS for kind in story.kinds) != 1:
        said.append("it did not end once")
    if len(there) > 1 + story.again:
        said.append(f"it is {len(there)} jobs at the far side")
    if len(ran) != len(set(ran)):
        said.append("one attempt ran twice")
    told = {far.id: far.again for far in there}
    for far, times in _times(ran).items():
        if times > 1 + told.get(far, 0):
            said.append(f"the far job {far} ran {times} times")
    if planned.ends == "COMPLETED" and not ran:
        said.append("it never ran")
    about = f"{planned} {story.id} {story.kinds}; far: {[(far.id, far.kinds) for far in there]}; runs: {ran}"
    return [f"{text}: {about}" for text in said]


def _times(ran: list[str]) -> dict[str, int]:
    """How often each far job ran."""
    found: dict[str, int] = defaultdict(int)
    for id in ran:
        found[id[:36]] += 1
    return found
