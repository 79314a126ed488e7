"""The admin's first page: is all well, at a glance, and what came of jobs in an hour, a day, a month."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from jobs import figures, glance
from jobs.admin import verdicts
from jobs.admin.charts import DURATIONS, NUMBERS, Series, chart
from jobs.admin.shown import duration
from jobs.admin.verdicts import BAD, NEAR, OFF, OK, WARN, Verdict, ago, most
from jobs.figures import Course, Sum, Window, quantile_ms
from jobs.glance import Hand, Place, Tenants
from jobs.models import Job
from jobs.models.webhook import address
from jobs.states import State

LABELS = {Window.HOUR: "%H:%M", Window.DAY: "%H:00", Window.MONTH: "%b %d"}
ENDS = ("completed", "failed", "timed_out", "cancelled")
LOADS = (("queued", "waited"), ("running", "ran"))  # and what colours them
GPU_SHOWN = 10
WORST = (BAD, WARN, OK, OFF)
COLOURS = {OK: "success", WARN: "warning", BAD: "danger", OFF: ""}
WORDS = {OK: "well", WARN: "look", BAD: "act", OFF: "-"}


@dataclass(frozen=True)
class Line:
    """Something that may be well or not: `url` leads to its rows."""

    name: str
    url: str
    verdict: Verdict
    cells: Sequence[Any] = ()

    @property
    def colour(self) -> str:
        return COLOURS[self.verdict.level]

    @property
    def word(self) -> str:
        return WORDS[self.verdict.level]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK."""
    window = next((each for each in Window if each.word == request.GET.get("since")), Window.HOUR)
    return context | {"home": home(seen_by(request), window)}


def seen_by(request: HttpRequest) -> Tenants:
    """Whose jobs the user sees. None: all."""
    pages: Any = admin.site.get_model_admin(Job)
    return None if pages.operators_may(request, "view") else pages.tenants_where(request, "view")


def home(tenants: Tenants, window: Window) -> dict[str, Any]:
    """Of all tenants, or of some: then without what is the operator's."""
    course = figures.course(window, tenants)
    sections = [_endpoints(tenants, course), *([_workers()] if tenants is None else []), _webhooks(tenants)]
    sections += [_parts()] if tenants is None else []
    sections.append(_budgets(tenants))
    lines = [(section["title"], line) for section in sections for line in section["lines"]]
    return {
        "wrong": [(title, line) for level in (BAD, WARN) for title, line in lines if line.verdict.level == level],
        "is_bad": any(line.verdict.level == BAD for _, line in lines),
        "sections": [section for section in sections if section["lines"]],
        "at": timezone.now(),
        "window": window.word,
        "windows": [each.word for each in Window],
        "charts": _charts(course, window, tenants is None),
        "gpu": _gpu(window) if tenants is None else [],
    }


def rows_of(page: str, **query: Any) -> str:
    """A list's address; `query`: its filters."""
    return f"{reverse(f'admin:{page}_changelist')}?{urlencode(query, doseq=True)}"


def row_of(page: str, id: Any) -> str:
    return reverse(f"admin:{page}_change", args=[id])


def _section(title: str, headers: Sequence[str], lines: list[Line]) -> dict[str, Any]:
    """The worst first."""
    lines.sort(key=lambda line: WORST.index(line.verdict.level))
    return {"title": title, "headers": headers, "lines": lines}


def _endpoints(tenants: Tenants, course: Course) -> dict[str, Any]:
    headers = ["Queued", "Oldest waits", "Running", "Ended", "Failed", "Delay p50 / p95", "Execution p50 / p95"]
    headers += ["Workers"] if tenants is None else []
    lines = [_place(place, course.endpoints.get(place.id, Sum()), tenants is None) for place in glance.places(tenants)]
    return _section("Endpoints", headers, lines)


def _place(place: Place, ended: Sum, all_seen: bool) -> Line:
    there = {"grant__endpoint__id__exact": place.id}
    waits = place.oldest_s and duration(place.oldest_s * 1000) + (" or more" if place.queued > place.looked_at else "")
    failed = f"{ended.failed + ended.timed_out:,}"
    failed += f" ({100 * ended.failing:.0f} %)" if ended.failing else ""
    cells: list[Any] = [
        (most(place.queued), rows_of("jobs_job", state__exact=State.IN_QUEUE.value, **there)),
        (waits or "-", ""),
        (f"{place.running:,}", rows_of("jobs_job", state__exact=State.IN_PROGRESS.value, **there)),
        (f"{ended.ended:,}", ""),
        (failed, rows_of("jobs_job", state__exact=[State.FAILED.value, State.TIMED_OUT.value], **there)),
        (_quantiles(ended.delays), ""),
        (_quantiles(ended.executions), ""),
    ]
    workers = "RunPod's" if place.pushed else f"{place.takers}"
    cells += [(workers, rows_of("jobs_worker", endpoint__id__exact=place.id))] if all_seen else []
    url = row_of("jobs_endpoint", place.id) if all_seen else rows_of("jobs_job", **there)
    return Line(place.name, url, verdicts.of_place(place, ended, all_seen), cells)


def _quantiles(counts: Sequence[int]) -> str:
    return f"{duration(quantile_ms(counts, 0.5))} / {duration(quantile_ms(counts, 0.95))}" if any(counts) else "-"


def _workers() -> dict[str, Any]:
    headers = ["Endpoint", "Last poll", "Last ping", "Version", "Current job", "Models"]
    return _section("Workers", headers, [_hand(hand) for hand in glance.hands()])


def _hand(hand: Hand) -> Line:
    job, more = hand.job, f" and {hand.held - 1} more" if hand.held > 1 else ""
    cells = [
        (hand.endpoint, ""),
        (ago(hand.take_s), ""),
        (ago(hand.ping_s), ""),
        (hand.version or "-", ""),
        (job[1] + more, row_of("jobs_job", job[0])) if job else ("-", ""),
        (", ".join(hand.models) or "-", ""),
    ]
    return Line(hand.name, row_of("jobs_worker", hand.id), verdicts.of_hand(hand), cells)


def _webhooks(tenants: Tenants) -> dict[str, Any]:
    post = glance.post(tenants)
    failed = rows_of("jobs_delivery", **({"overdue": "yes"} if post.overdue else {"state__exact": "failed"}))
    lines = [Line("Deliveries", failed, verdicts.of_deliveries(post))]
    for each in post.receivers:
        name = f"{each.tenant}: {address(each.url)}"
        lines.append(Line(name, row_of("jobs_webhook", each.id), verdicts.of_receiver(each)))
    return _section("Webhooks", [], lines)


def _parts() -> dict[str, Any]:
    pages = {"Tasks": rows_of("django_q_failure")}
    return _section("Processes", [], [Line(name, pages.get(name, ""), each) for name, each in _judged()])


def _judged() -> list[tuple[str, Verdict]]:
    return list(verdicts.of_parts(glance.parts()).items())


def _budgets(tenants: Tenants) -> dict[str, Any]:
    lines = [
        Line(each.name, row_of(each.of.replace(".", "_"), each.id), verdicts.of_budget(each))
        for each in glance.budgets(tenants, NEAR)
    ]
    return _section("Budgets near their end", [], lines)


def _gpu(window: Window) -> list[dict[str, Any]]:
    """The tenants that used most, as bars of the largest."""
    found = figures.most_gpu(window, GPU_SHOWN)
    return [
        {
            "name": name,
            "url": row_of("accounts_tenant", id),
            "time": duration(ms),
            "width": f"{100 * ms / found[0][2]:.1f}%",
        }
        for id, name, ms in found
    ]


def _charts(course: Course, window: Window, all_seen: bool) -> list[dict[str, Any]]:
    labels = [at.strftime(LABELS[window]) for at, _ in course.steps]
    sums = [each or Sum() for _, each in course.steps]
    ended = [Series(name.replace("_", " "), name, [getattr(each, name) for each in sums]) for name in ENDS]
    unknown = None if all_seen else 0  # a tenant with nothing to do has no rows
    load = [
        Series(name, kind, _bridged([unknown if (n := getattr(each, name)) is None else n for each in sums]))
        for name, kind in LOADS
    ]
    gpu = [Series("GPU time", "ran", [each.gpu_ms for each in sums])]
    per = window.unit
    return [
        chart(f"Jobs that ended, each {per}", labels, ended, NUMBERS, stacked=True),
        chart("Most jobs queued and running", labels, load, NUMBERS),
        chart("Delay", labels, _times(sums, "delays"), DURATIONS),
        chart("Execution time", labels, _times(sums, "executions"), DURATIONS),
        chart(f"GPU time, each {per}", labels, gpu, DURATIONS, stacked=True),
    ]


def _times(sums: Sequence[Sum], name: str) -> list[Series]:
    quantiles = (("p50", 0.5), ("p95", 0.95))
    return [Series(word, word, [quantile_ms(getattr(each, name), q) for each in sums]) for word, q in quantiles]


def _bridged(values: list[float | None]) -> list[float | None]:
    """Where one minute has no look between two that have: the sweeper looks every minute and a bit."""
    around = zip([None, *values], values, [*values[1:], None], strict=False)
    return [before if now is None and after is not None else now for before, now, after in around]
