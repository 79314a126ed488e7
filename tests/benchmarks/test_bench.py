"""The harness itself, on a quick run of all its rows: what it measures, and that it leaves nothing behind."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import ROWS
from hearth.local.instance import ROOT


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[str, dict[str, Any]]]:
    """What it printed, and the JSON that it wrote. Its temporary folder is in one of ours."""
    with tempfile.TemporaryDirectory(prefix="hearth-t-") as folder:
        out = Path(folder) / "latest.json"
        argv = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--out", str(out)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout, json.loads(out.read_text())


def test_it_measures_what_it_was_asked_for(bench: tuple[str, dict[str, Any]]) -> None:
    _, found = bench
    assert sorted(found["rows"]) == sorted(ROWS)
    for row in found["rows"].values():
        assert row["left_out"] == ""
        assert row["figures"]


def test_each_figure_has_its_rounds_their_median_and_spread(bench: tuple[str, dict[str, Any]]) -> None:
    _, found = bench
    for figure in (figure for row in found["rows"].values() for figure in row["figures"]):
        low, high = figure["spread"]
        assert low <= figure["median"] <= high
        assert len(figure["rounds"]) == 1
        aimed = figure["at_least"] is not None or figure["at_most"] is not None
        assert (figure["met"] is None) is not aimed


def test_it_says_where_and_of_what(bench: tuple[str, dict[str, Any]]) -> None:
    _, found = bench
    assert {"cpu", "cores", "load"} <= set(found["machine"])
    assert {"python", "postgres", "granian", "hearth"} <= set(found["versions"])
    assert (found["quick"], found["rounds"]) == (True, 1)


def test_it_prints_a_table(bench: tuple[str, dict[str, Any]]) -> None:
    said, _ = bench
    assert all(f"Hearth / floor, {what}" in said for what in ("completed", "queued ", "queued, 50 tenants"))


def test_its_instance_is_gone(bench: tuple[str, dict[str, Any]]) -> None:
    said, _ = bench
    home = Path(said.split(" in ", 1)[1].split()[0])
    assert home.name.startswith("hearth-bench-")
    assert not home.exists()


def test_an_unknown_row_is_refused_with_the_known_ones() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no row 'speed'; there are memory, tasks, run" in done.stderr
