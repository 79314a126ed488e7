"""A row of figures: each is the median of its rounds, with their spread, and is held to an aim where there is one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`rounds`: one value of each round, in `unit`. The aim, if any: at_least or at_most, in the same unit."""

    name: str
    unit: str
    rounds: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def aim(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def met(self) -> bool | None:
        """None where there is no aim."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    def json(self) -> dict[str, Any]:
        kept = {"name": self.name, "unit": self.unit, "median": self.value, "rounds": list(self.rounds)}
        kept |= {"spread": [min(self.rounds), max(self.rounds)], "note": self.note}
        return kept | {"at_least": self.at_least, "at_most": self.at_most, "met": self.met}


@dataclass(frozen=True, kw_only=True)
class Row:
    """`raw`: what each round measured, for whoever wants to look closer. `left_out`: why there are no figures."""

    figures: Sequence[Figure] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""

    def json(self) -> dict[str, Any]:
        return {"figures": [one.json() for one in self.figures], "raw": self.raw, "left_out": self.left_out}


def interleaved(rounds: int, variants: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each round measures every variant once, so that what the machine does meanwhile falls on all of them."""
    found: dict[str, list[T]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            found[name].append(measure())
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Of one round each."""
    return [a / b for a, b in zip(above, below, strict=True)]


def quantile(values: Sequence[float], part: float) -> float:
    """The nearest rank: quantile(v, 0.99) of 300 values is the third largest."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * part))]


def table(rows: Mapping[str, Row]) -> str:
    """What is read on the console."""
    lines = [("", "", "median", "spread", "unit", "aim", "")]
    for name, row in rows.items():
        if row.left_out:
            lines.append((name, f"left out: {row.left_out}", "", "", "", "", ""))
        for number, figure in enumerate(row.figures):
            spread = f"{_short(min(figure.rounds))} – {_short(max(figure.rounds))}"
            met = {True: "met", False: "NOT MET", None: ""}[figure.met]
            what = f"{figure.name} ({figure.note})" if figure.note else figure.name
            first = "" if number else name
            lines.append((first, what, _short(figure.value), spread, figure.unit, figure.aim, met))
    return "\n".join(_aligned(lines))


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines if not line[1].startswith("left out")) for column in range(7)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
