"""The plan of a run is a pure function of its seed."""

import itertools
from collections import Counter

from tests.chaos.plan import BLOWS, KINDS, MOODS, Size, make

SIZE = Size()


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert make(7, SIZE) == make(7, SIZE)
    assert make(7, SIZE) != make(8, SIZE)


def test_more_jobs_do_not_change_the_faults() -> None:
    assert make(7, SIZE).faults == make(7, Size(jobs=10)).faults


def test_a_whole_run_has_every_kind_of_fault_and_of_job() -> None:
    plan = make(7, SIZE)
    dealt = {(fault.part.split("-")[0], fault.how) for fault in plan.faults}
    assert dealt == {(blow.part.split("-")[0], blow.how) for blow in BLOWS}
    assert set(Counter(job.kind for job in plan.jobs)) == set(KINDS)


def test_faults_leave_time_between_them_and_end_with_the_plan() -> None:
    faults = make(7, SIZE).faults
    assert all(after.at_s - before.at_s >= 1.5 for before, after in itertools.pairwise(faults))
    assert faults[-1].at_s <= SIZE.seconds


def test_the_receiver_has_every_mood_and_most_jobs_name_it() -> None:
    plan = make(7, SIZE)
    assert Counter(make(7, Size(jobs=sum(MOODS.values()))).moods) == MOODS, "also in a short run"
    assert len(plan.moods) >= SIZE.jobs
    named = [job.body("c1-0-x", "https://example.com/").get("webhook") for job in plan.jobs]
    assert 0.7 < named.count("https://example.com/") / len(named) < 0.9


def test_a_failing_job_saves_only_what_cannot_be_made() -> None:
    (job, *_) = (job for job in make(7, SIZE).jobs if job.fails)
    graph = job.workflow("c1-0-x")
    saved = [node["inputs"]["images"][0] for node in graph.values() if node["class_type"] == "SaveImage"]
    assert {graph[node]["class_type"] for node in saved} == {"ImageBlur"}
