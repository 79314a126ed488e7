"""A job's life drawn as bars: for each attempt what it waited for, and how long that took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Sum
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from accounts.errors import counted
from jobs.admin.shown import duration
from jobs.models import Attempt, Event, Job
from jobs.states import FINAL
from storage.models import Blob

WAITED, HANDED, RAN, UPLOADED, HELD = "waited", "handed", "ran", "uploaded", "held"
WORDS = {
    WAITED: "in the queue",
    HANDED: "handed over, not yet started",
    RAN: "running",
    UPLOADED: "files on their way to S3",
    HELD: "ended, its worker not done with it",
}
QUEUED_AGAIN = (Attempt.Outcome.LOST, Attempt.Outcome.HANDED_BACK, Attempt.Outcome.UNDONE)
ENDS = tuple(state.lower() for state in FINAL)
LEAST_PERCENT = 0.3  # a bar that can be seen
TICKS = 4


@dataclass(frozen=True)
class Span:
    kind: str
    begin: datetime
    end: datetime
    more: str = ""

    @property
    def text(self) -> str:
        return f"{WORDS[self.kind]} for {duration((self.end - self.begin) / timedelta(milliseconds=1))}{self.more}"


@dataclass(frozen=True)
class Line:
    """An attempt, or a wait that led to none. `zero`: when the job was last submitted or retried before it."""

    name: str
    outcome: str
    zero: datetime
    spans: list[Span]

    @property
    def length(self) -> timedelta:
        return max(span.end for span in self.spans) - self.zero


def bars(job: Job, attempts: Sequence[Attempt], events: Sequence[Event]) -> dict[str, Any]:
    """`lines`, each with its `bars` (x and width in percent) and all of it in words; `ticks` of the common axis, which
    begins anew where the job was retried; `legend`: what there is."""
    now = max(timezone.now(), job.queued_at)
    lines = lines_of(job, attempts, events, now)
    longest = max((line.length for line in lines), default=timedelta())
    whole = max(longest, timedelta(milliseconds=1))
    kinds = {span.kind for line in lines for span in line.spans}
    return {
        "lines": [_drawn(line, whole) for line in lines],
        "ticks": [{"at": f"{100 * n / TICKS:g}%", "text": duration(_ms(whole) * n / TICKS)} for n in range(TICKS + 1)],
        "legend": [(kind, text) for kind, text in WORDS.items() if kind in kinds],
    }


def _ms(time: timedelta) -> float:
    return time / timedelta(milliseconds=1)


def _drawn(line: Line, whole: timedelta) -> dict[str, Any]:
    drawn = []
    for span in line.spans:
        width = max(100 * ((span.end - span.begin) / whole), LEAST_PERCENT)
        x = min(100 * ((span.begin - line.zero) / whole), 100 - width)
        drawn.append({"kind": span.kind, "x": f"{max(x, 0):.3f}%", "width": f"{width:.3f}%", "text": span.text})
    words = ", ".join(span.text for span in line.spans)
    return {"name": line.name, "outcome": line.outcome, "bars": drawn, "words": f"{line.name}: {words}"}


def lines_of(job: Job, attempts: Sequence[Attempt], events: Sequence[Event], now: datetime) -> list[Line]:
    """In the order of time."""
    retried = [event.at for event in events if event.kind == Event.Kind.RETRIED]
    zeros = [job.created_at, *(retried or ([job.queued_at] if job.retries else []))]
    waits = sorted([*zeros, *(each.ended_at for each in attempts if each.ended_at and each.outcome in QUEUED_AGAIN)])
    uploads = _uploads(job)
    lines = []
    for begin, next_begin in zip(waits, [*waits[1:], None], strict=True):
        zero = max(each for each in zeros if each <= begin)
        out = [a for a in attempts if begin <= a.handed_at and (next_begin is None or a.handed_at < next_begin)]
        if out:
            lines += [_attempt(each, zero, begin, uploads.get(each.number), now) for each in out]
        else:
            end = _ended_waiting(job, events, begin, next_begin) or next_begin or now
            lines.append(Line("In the queue", "", zero, [Span(WAITED, begin, max(begin, end))]))
    return lines


def _ended_waiting(job: Job, events: Sequence[Event], begin: datetime, before: datetime | None) -> datetime | None:
    """When the job ended without an attempt in this time, if it did."""
    ends = (event.at for event in events if event.kind in ENDS and begin <= event.at)
    found = next((at for at in ends if before is None or at < before), None)
    return found or (job.finished_at if before is None else None)


def _attempt(attempt: Attempt, zero: datetime, begin: datetime, upload: Span | None, now: datetime) -> Line:
    """Bars that follow each other, and over them that of its uploads."""
    started, ended = attempt.started_at, attempt.ended_at or now
    spans = [Span(WAITED, begin, attempt.handed_at), Span(HANDED, attempt.handed_at, started or ended)]
    if started:
        spans.append(Span(RAN, started, max(started, ended)))
    if attempt.ended_at and (attempt.released_at or now) > attempt.ended_at:
        spans.append(Span(HELD, attempt.ended_at, attempt.released_at or now))
    if upload:
        spans.append(upload)
    name = f"Attempt {attempt.number}" + (f", {attempt.worker_name}" if attempt.worker_name else "")
    return Line(name, attempt.outcome, zero, spans)


def _uploads(job: Job) -> dict[int, Span]:
    """Of each attempt from the first URL to the last file that was found in S3."""
    blobs = Blob.all_tenants.filter(job_id=job.pk, stored_at__isnull=False).order_by().values("attempt")
    found = blobs.annotate(begin=Min("created_at"), end=Max("stored_at"), files=Count("pk"), size=Sum("bytes"))
    return {
        row["attempt"]: Span(
            UPLOADED,
            min(row["begin"], row["end"]),  # a preview's place makes its file young again
            row["end"],
            f" ({counted(row['files'], 'file')}, {filesizeformat(row['size'])})",
        )
        for row in found
    }
