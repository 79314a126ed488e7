"""Each check says nothing of a good run, and something when what it is for has happened."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hearth.local.home import Home
from tests.chaos import traces
from tests.chaos.checks import Run, look
from tests.chaos.faults import Struck
from tests.chaos.plan import Fault
from tests.chaos.story import GLOBEX, NOON, at, attempt, blob, changed, completed, delivery, event, good_run, plan, seen
from tests.storage.fault_server import Reply, serving

Spoil = Callable[[Run], object]


def complaints(run: Run) -> set[str]:
    return {result.check for result in look(run) if result.wrong}


def test_a_good_run_has_nothing_wrong() -> None:
    assert complaints(good_run()) == set()


def not_ended(run: Run) -> None:
    changed(run.stories[0], state="IN_PROGRESS", finished_at=None)


def failed_for_nothing(run: Run) -> None:
    changed(run.stories[0], state="FAILED", output=b'{"code": "comfyui_crashed"}')


def ended_twice(run: Run) -> None:
    run.stories[0].events.append(event(run.stories[0], "completed", 2, 4))


def retried_unasked(run: Run) -> None:
    changed(run.stories[0], retries=1)


def handed_while_it_ran(run: Run) -> None:
    del run.stories[0].events[3]


def still_holds_a_slot(run: Run) -> None:
    last = run.stories[0].attempts[-1]
    run.stories[0].attempts[-1] = replace(last, released_at=None)


def two_at_once(run: Run) -> None:
    first = run.stories[0].attempts[0]
    run.stories[0].attempts[0] = replace(first, ended_at=at(2.5))


def both_completed(run: Run) -> None:
    first = run.stories[0].attempts[0]
    run.stories[0].attempts[0] = replace(first, outcome="completed")


def lost_without_end(run: Run) -> None:
    story = run.stories[0]
    lost = [(event(story, "lost", 1, 1), event(story, "handed", 1, 1)) for _ in range(7)]
    story.events[3:3] = [one for pair in lost for one in pair]


def losers_file_kept(run: Run) -> None:
    run.stories[0].blobs.append(blob(run.stories[0], 1, "kept"))


def file_missing(run: Run) -> None:
    run.stories[0].blobs.clear()


def file_of_another(run: Run) -> None:
    kept = run.stories[0].blobs[0]
    run.stories[0].blobs[0] = replace(kept, asset_tenant=GLOBEX)


def told_otherwise(run: Run) -> None:
    run.seen[0].states = ["IN_QUEUE", "FAILED", "COMPLETED"]


def told_no_end(run: Run) -> None:
    run.seen[0].states = ["IN_QUEUE"]


def job_vanished(run: Run) -> None:
    del run.stories[0]


def job_doubled(run: Run) -> None:
    run.stories.append(completed(0))


def nobodys_job(run: Run) -> None:
    run.stories.append(completed(7))


def tenant_changed(run: Run) -> None:
    changed(run.stories[0], tenant="chaos-1")


def refused(run: Run) -> None:
    run.seen[0].submissions[0].refused = "400"


def over_the_cap(run: Run) -> None:
    other = run.stories[1]
    other.attempts = [attempt(other, 1, "lost", 1.5, 2), attempt(other, 2, "completed", 2, 3)]


def never_told(run: Run) -> None:
    run.told.pop()


def not_to_be_told(run: Run) -> None:
    run.stories[0].deliveries.clear()


def written_twice(run: Run) -> None:
    run.stories[0].deliveries.append(delivery(run.stories[0], "completed"))


def still_to_be_told(run: Run) -> None:
    run.stories[0].deliveries[0] = delivery(run.stories[0], "completed", "pending")


def told_as_failed(run: Run) -> None:
    run.told[0] = replace(run.told[0], body=run.told[0].body.replace(b"COMPLETED", b"FAILED"))


def told_to_another(run: Run) -> None:
    run.told[0] = replace(run.told[0], tenant=1)


def told_unsigned(run: Run) -> None:
    run.told[0] = replace(run.told[0], fault="No matching signature found")


SPOILT: list[tuple[Spoil, str]] = [
    (not_ended, "has ended"),
    (failed_for_nothing, "ended as it should"),
    (ended_twice, "ended once each time"),
    (retried_unasked, "ended once each time"),
    (handed_while_it_ran, "moved legally"),
    (still_holds_a_slot, "attempts are over"),
    (two_at_once, "attempts are over"),
    (both_completed, "completed once"),
    (both_completed, "attempts and events agree"),
    (lost_without_end, "not tried for ever"),
    (losers_file_kept, "has its files"),
    (file_missing, "has its files"),
    (file_of_another, "has its files"),
    (told_otherwise, "client was told the truth"),
    (told_no_end, "client was told the truth"),
    (job_vanished, "none is missing"),
    (job_doubled, "none is missing"),
    (tenant_changed, "none is missing"),
    (nobodys_job, "none was made up"),
    (refused, "none was made up"),
    (over_the_cap, "caps held"),
    (never_told, "its ends were told"),
    (not_to_be_told, "its ends were told"),
    (written_twice, "its ends were told"),
    (still_to_be_told, "its ends were told"),
    (told_as_failed, "its ends were told"),
    (told_to_another, "told in confidence"),
    (told_unsigned, "told in confidence"),
]


@pytest.mark.parametrize(("spoil", "check"), SPOILT)
def test_what_must_not_happen_is_found(spoil: Spoil, check: str) -> None:
    run = good_run()
    spoil(run)
    assert check in complaints(run)


def test_a_failure_is_forgiven_when_a_fault_can_be_its_cause() -> None:
    run = good_run()
    failed_for_nothing(run)
    fault = Fault(at_s=0, part="comfyui-1", how="kill", pick=0)
    begun = NOON.timestamp()
    run.struck = [Struck(fault=fault, at=begun, until=begun)]
    assert "ended as it should" not in complaints(run)
    run.struck = [Struck(fault=replace(fault, part="s3"), at=begun, until=begun)]
    assert "ended as it should" in complaints(run)


def test_a_retry_that_was_asked_for_may_change_an_end() -> None:
    run = good_run()
    run.seen[0] = seen(run.stories[0], "IN_QUEUE", "FAILED", "retry", "IN_QUEUE", "COMPLETED")
    assert "client was told the truth" not in complaints(run)


def test_an_end_that_a_retry_has_overtaken_need_not_be_told() -> None:
    run = good_run()
    story = run.stories[0]
    story.events.insert(-1, event(story, "failed", 2, 2))
    story.deliveries.insert(0, delivery(story, "failed", "outdated"))
    assert "its ends were told" not in complaints(run)
    story.deliveries[0] = replace(story.deliveries[0], state="failed")
    assert "its ends were told" in complaints(run)


def test_a_job_of_an_unanswered_request_must_end_too() -> None:
    run = good_run()
    run.seen[0].submissions[0].id = ""
    assert complaints(run) == set()
    not_ended(run)
    assert "has ended" in complaints(run)


def test_s3_holds_the_kept_files_and_nothing_else() -> None:
    story = completed()
    there = {one.key: one.bytes for one in story.blobs}
    assert not list(traces.files_are_as_recorded([story], there))
    assert list(traces.files_are_as_recorded([story], {}))
    assert list(traces.files_are_as_recorded([story], there | {"orphan": 1}))
    assert list(traces.files_are_as_recorded([story], {key: size + 1 for key, size in there.items()}))
    story.blobs.append(blob(story, 1, "pending"))
    assert list(traces.files_are_as_recorded([story], there))


def test_what_a_comfyui_still_has_of_a_job_is_seen(tmp_path: traces.Path) -> None:
    said: dict[str, Any] = {"/history": {"p1": {}}, "/queue": {"queue_running": [[0, "p2", {}]], "queue_pending": []}}
    with serving(lambda asked: Reply(body=json.dumps(said[asked.path]).encode())) as comfyui:
        home = Home(tmp_path)
        home.write_run({"parts": {"web": {"port": 1}, "comfyui-1": {"port": comfyui.port}}})
        (tmp_path / "comfyui-1" / "temp").mkdir(parents=True)
        (tmp_path / "comfyui-1" / "temp" / "a.png").touch()
        left = ["history of comfyui-1: p1", "queue_running of comfyui-1: p2", "comfyui-1/temp/a.png"]
        assert traces.in_comfyui(home) == left
        said |= {"/history": {}, "/queue": {"queue_running": [], "queue_pending": []}}
        (tmp_path / "comfyui-1" / "temp" / "a.png").unlink()
        assert traces.in_comfyui(home) == []


def test_a_traceback_that_only_says_that_a_part_was_away_is_expected(tmp_path: traces.Path) -> None:
    text = f'{traces.TRACEBACK}\n  File "x.py", line 1\n    x()\n\n'
    (tmp_path / "web.log").write_text(
        f"{text}psycopg.OperationalError: the connection is lost\nfine\n{text}ValueError: a defect\n"
    )
    found = traces.tracebacks(tmp_path)
    assert [raised for raised in found if not traces.is_expected(raised)] == ["web.log: ValueError: a defect"]
    assert len(found) == 2


def test_the_plan_of_the_good_run_is_of_a_good_job() -> None:
    assert plan().kind == "good"
