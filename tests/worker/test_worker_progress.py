"""Progress as ComfyUI's messages tell it."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import progress
from worker.progress import Progress

WORKFLOW = {str(number): {"class_type": f"Class{number}"} for number in range(4)}
messages = st.lists(
    st.one_of(
        st.tuples(st.just("executing"), st.fixed_dictionaries({"node": st.sampled_from(["0", "1", "9.1", None])})),
        st.tuples(st.just("progress"), st.fixed_dictionaries({"node": st.just("1"), "value": st.integers(0, 9)})),
        st.tuples(st.just("execution_cached"), st.fixed_dictionaries({"nodes": st.just(["2"])})),
        st.tuples(st.just("progress_state"), st.just({"nodes": {"3": {"state": "finished"}, "x": {"state": "new"}}})),
    )
)


def heard(*said: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    told = Progress(WORKFLOW, None)
    for kind, data in said:
        told.hear(kind, data)
    return told.snapshot()


def test_the_running_node_counts_in_part() -> None:
    now = heard(
        ("execution_cached", {"nodes": ["0"]}),
        ("executing", {"node": "1"}),
        ("executing", {"node": "2"}),
        ("progress", {"node": "2", "value": 5, "max": 10}),
        ("progress", {"node": "1", "value": 9, "max": 10}),
    )
    assert now == {
        **{"fraction": 0.625, "node": "2", "class_type": "Class2", "title": "", "value": 5.0, "max": 10.0},
        **{"nodes_done": 2, "nodes_total": 4},
    }


@pytest.mark.parametrize("meta", [{"title": "Upscale ×2"}, {"title": 7}, {}, None, "x"])
def test_a_node_is_told_by_its_title_where_it_has_one(meta: Any) -> None:
    told = Progress({"0": {"class_type": "KSampler", "inputs": {}, "_meta": meta}}, None)
    told.hear("executing", {"node": "0"})
    assert told.snapshot()["title"] == ("Upscale ×2" if meta == {"title": "Upscale ×2"} else "")


@pytest.mark.parametrize(
    ("steps", "fraction"), [(18, 9 / 20), (["3", 0], 1 / 6), (True, 1 / 6), (-5, 1 / 6), (None, 1 / 6)]
)
def test_a_sampler_counts_by_its_steps(steps: Any, fraction: float) -> None:
    inputs = {"steps": steps, "seed": 1}
    told = Progress({"0": {"inputs": inputs}, "1": {"inputs": {}}, "2": {"inputs": {}}}, None)
    told.hear("executing", {"node": "0"})
    told.hear("progress", {"node": "0", "value": 5, "max": 10})
    assert told.snapshot()["fraction"] == pytest.approx(fraction, abs=1e-4)


@given(messages)
def test_the_fraction_never_shrinks_nor_leaves_its_bounds(said: list[tuple[str, dict[str, Any]]]) -> None:
    told, seen = Progress(WORKFLOW, None), [0.0]
    for kind, data in said:
        told.hear(kind, data)
        seen.append(told.snapshot()["fraction"])
    assert seen == sorted(seen)
    assert seen[-1] <= 1


async def test_many_messages_make_few_reports(monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    sent: list[Any] = []
    told = Progress(WORKFLOW, sent.append)
    for value in range(100):
        told.hear("executing", {"node": "1"})
        told.hear("progress", {"node": "1", "value": value, "max": 100})
        await asyncio.sleep(0.001)
    assert 1 <= len(sent) <= 6


async def test_nothing_is_reported_when_nothing_changed(monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    sent: list[Any] = []
    told = Progress(WORKFLOW, sent.append)
    for _ in range(3):
        told.hear("executing", {"node": "1"})
        await asyncio.sleep(0.03)
    assert len(sent) == 1


async def test_a_closed_progress_reports_no_more(monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.01)
    sent: list[Any] = []
    told = Progress(WORKFLOW, sent.append)
    told.hear("executing", {"node": "1"})
    told.close()
    await asyncio.sleep(0.03)
    assert sent == []
