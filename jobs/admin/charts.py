"""Charts drawn as SVG, of steps of time: stacked bars or lines, each with what it shows in words and as a table.

The plot is drawn in units (a step is 1 wide, all of it 100 high) and stretched; texts and the grid are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.utils.text import slugify

from jobs.admin.shown import duration

NICE = (1, 2, 4, 6, 8, 10)  # of each power of ten: the top of a grid whose middle is as round
NICE_MS = tuple(1000 * n for n in (1, 2, 4, 10, 20, 40, 60, 120, 240, 600, 1200, 2400))
NICE_MS += tuple(3_600_000 * n for n in (1, 2, 4, 8, 12, 24))
GRID = (0.0, 0.5, 1.0)
HEIGHT, TOP = 132, 14  # of the plot, in px
LABELS = 6  # below it
BESIDE = 14  # percent, for the labels of the grid

Values = Sequence[float | None]
Shown = Callable[[float], str]


@dataclass(frozen=True)
class Unit:
    """How values are written, and where a grid may end: the least of these, or above and below them of NICE."""

    shown: Shown
    tops: Sequence[int] = ()

    def top(self, most: float) -> float:
        if self.tops and self.tops[0] / 2 < most <= self.tops[-1]:
            return next(top for top in self.tops if top >= most)
        power = 1.0
        while 10 * power < most:
            power *= 10
        return next((power * n for n in NICE if power * n >= most), power)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


NUMBERS, DURATIONS = Unit(_number), Unit(duration, NICE_MS)


@dataclass(frozen=True)
class Series:
    """`kind` picks the colour. None: nothing is known of that step."""

    name: str
    kind: str
    values: Values


def chart(
    title: str, labels: Sequence[str], series: Sequence[Series], unit: Unit, *, stacked: bool = False
) -> dict[str, Any]:
    """What jobs/chart.html shows. labels: of the steps."""
    top, shown = unit.top(max(_heights(series, stacked), default=0)), unit.shown
    return {
        "id": slugify(title),
        "title": title,
        "steps": len(labels),
        "bars": _stacked(series, top) if stacked else [],
        "lines": [] if stacked else [_line(one, top) for one in series],
        "grid": [{"y": _y(part), "text": shown(top * part), "text_y": _y(part) + 4} for part in GRID],
        "ticks": _ticks(labels),
        "hints": [{"x": n, "text": hint} for n, hint in enumerate(_hints(labels, series, shown))],
        "legend": [(one.kind, one.name) for one in series],
        "headers": ["Time (UTC)", *(one.name for one in series)],
        "rows": _rows(labels, series, shown),
        "height": HEIGHT + TOP + 22,
        "beside": BESIDE,
        "width": 100 - BESIDE,
        "ticks_y": HEIGHT + TOP + 16,
        "plot": HEIGHT,
        "top": TOP,
    }


def _heights(series: Sequence[Series], stacked: bool) -> list[float]:
    columns = zip(*(one.values for one in series), strict=True)
    return [sum(v or 0 for v in column) if stacked else max(v or 0 for v in column) for column in columns]


def _y(part: float) -> float:
    return TOP + HEIGHT * (1 - part)


def _stacked(series: Sequence[Series], top: float) -> list[dict[str, Any]]:
    bars = []
    for n, column in enumerate(zip(*(one.values for one in series), strict=True)):
        below = 0.0
        for one, value in zip(series, column, strict=True):
            if value:
                height = 100 * value / top
                below += height
                bars.append(
                    {"kind": one.kind, "x": f"{n + 0.1:g}", "y": f"{100 - below:.3f}", "height": f"{height:.3f}"}
                )
    return bars


def _line(one: Series, top: float) -> dict[str, Any]:
    """As many pieces as there are gaps; a single step is a dot."""
    pieces = []
    for known, found in groupby(enumerate(one.values), lambda each: each[1] is not None):
        if known:
            points = [f"{n + 0.5:g},{100 - 100 * (value or 0) / top:.3f}" for n, value in found]
            pieces.append(" ".join(points if len(points) > 1 else points * 2))
    return {"kind": one.kind, "pieces": pieces}


def _ticks(labels: Sequence[str]) -> list[dict[str, Any]]:
    every = max(1, len(labels) // LABELS)
    return [
        {"x": f"{BESIDE + (100 - BESIDE) * (n + 0.5) / len(labels):.2f}%", "text": label}
        for n, label in enumerate(labels)
        if n % every == every // 2
    ]


def _hints(labels: Sequence[str], series: Sequence[Series], shown: Shown) -> list[str]:
    hints = []
    for n, label in enumerate(labels):
        known = [(one.name, value) for one in series if (value := one.values[n]) is not None]
        hints.append(f"{label}: " + (", ".join(f"{name} {shown(value)}" for name, value in known) or "nothing known"))
    return hints


def _rows(labels: Sequence[str], series: Sequence[Series], shown: Shown) -> list[list[str]]:
    """Those with anything in them."""
    table = [(label, [one.values[n] for one in series]) for n, label in enumerate(labels)]
    return [
        [label, *("-" if value is None else shown(value) for value in values)] for label, values in table if any(values)
    ]
