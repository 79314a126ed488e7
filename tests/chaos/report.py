"""A run in words and numbers."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.checks import Result, Run
from tests.chaos.faults import Struck
from tests.chaos.history import Story

SHOWN = 8  # complaints of each check
TEXT = 300  # characters of each


def counts(run: Run) -> Iterator[str]:
    attempts = [attempt for story in run.stories for attempt in story.attempts]
    made = [made for seen in run.seen for made in seen.submissions]
    unknown = {made.token: made.unknown for made in made if made.unknown}
    there = {story.job.token for story in run.stories}
    yield f"jobs        {len(run.stories)}: {told(Counter(story.job.state for story in run.stories))}"
    yield f"kinds       {told(Counter(case.plan.kind for case in run.cases))}"
    failed = [story.job for story in run.stories if story.job.state == "FAILED"]
    yield f"failures    {told(Counter(job.code or 'lost' for job in failed))}"
    yield f"attempts    {len(attempts)}: {told(Counter(attempt.outcome for attempt in attempts))}"
    yield f"retries     {sum(story.job.retries for story in run.stories)}"
    yield (
        f"submissions {len(made)}: {sum(bool(made.id) for made in made)} accepted, {len(unknown)} unknown, "
        f"of which are there: {told(Counter(unknown[token] for token in unknown.keys() & there))}"
    )
    yield f"downloads   {sum(seen.downloads for seen in run.seen)} files, each compared"
    yield f"deliveries  {deliveries(run)}"
    yield f"faults      {len(run.struck)}: {told(Counter(name_of(one) for one in run.struck if not one.missed))}"
    if missed := [one for one in run.struck if one.missed]:
        yield f"            {len(missed)} found their part away already"
    yield f"recovery    {recovery(run.stories, run.struck)}"
    if slowest := max(run.stories, key=seconds, default=None):
        yield f"slowest     {seconds(slowest):.1f} s: {slowest.timeline()}"


def deliveries(run: Run) -> str:
    written = [one for story in run.stories for one in story.deliveries]
    more = sum(len(there) > 1 for there in run.told_by_id.values())
    moods = told(Counter(one.mood for one in run.told))
    states = told(Counter(one.state for one in written))
    return f"{len(written)}: {states}; in {len(run.told)} POSTs ({moods}), {more} came more than once"


def seconds(story: Story) -> float:
    """From the submission to the end."""
    ended = story.job.finished_at
    return (ended - story.job.created_at).total_seconds() if ended else float("inf")


def told(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name or 'open'}" for name, count in counter.most_common()) or "none"


def name_of(one: Struck) -> str:
    return f"{one.fault.how} {re.sub(r'-[0-9]+$', '', one.fault.part)}"


def recovery(stories: Sequence[Story], struck: Sequence[Struck]) -> str:
    """From each fault to the next job that completed anywhere: what the clients as a whole felt."""
    done = sorted(event.at.timestamp() for story in stories for event in story.events if event.kind == "completed")
    waits = [then - one.at for one in struck if (then := next((at for at in done if at > one.at), None))]
    if not waits:
        return "nothing completed after a fault"
    return f"next job completed {statistics.median(waits):.2f} s after a fault (median), {max(waits):.2f} s (longest)"


def verdict(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        yield f"{'ok   ' if not result.wrong else 'WRONG'} {result.check} ({result.looked_at})"
        for story, text in result.wrong[:SHOWN]:
            yield f"      {text[:TEXT]}" + (f"\n      {story.timeline()}" if story else "")
        if len(result.wrong) > SHOWN:
            yield f"      … and {len(result.wrong) - SHOWN} more"
