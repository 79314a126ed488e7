"""A run as it should be, made by hand, for the tests of the checks to spoil."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tests.chaos.checks import Run
from tests.chaos.clients import Seen, Submission
from tests.chaos.history import Attempt, Blob, Delivery, Event, Job, Story
from tests.chaos.plan import JobPlan, Kind
from tests.chaos.receiver import Told

NOON = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
ACME, GLOBEX = UUID(int=1), UUID(int=2)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def plan(number: int = 0, kind: Kind = "good") -> JobPlan:
    return JobPlan(number=number, tenant=0, at_s=0, kind=kind, run_s=0, pictures=1, sync=False, low_priority=False)


def attempt(story: Story, number: int, outcome: str, begin: float, end: float) -> Attempt:
    return Attempt(
        job_id=story.job.id,
        number=number,
        worker_name="w1",
        handed_at=at(begin),
        ended_at=at(end),
        released_at=at(end),
        outcome=outcome,
    )


def event(story: Story, kind: str, number: int, seconds: float) -> Event:
    return Event(job_id=story.job.id, attempt=number, kind=kind, at=at(seconds), text="")


def blob(story: Story, number: int, state: str) -> Blob:
    job = story.job
    kept = state == "kept"
    return Blob(
        job_id=job.id,
        attempt=number,
        tenant_id=job.tenant_id,
        key=f"{job.tenant_id}/{job.id}/a{number}/0123-x.png",
        bytes=10,
        state=state,
        asset_job=job.id if kept else None,
        asset_tenant=job.tenant_id if kept else None,
    )


def delivery(story: Story, kind: str, state: str = "delivered") -> Delivery:
    message = UUID(int=1000 * int(story.job.id) + len(story.deliveries))
    return Delivery(job_id=story.job.id, message=message, kind=kind, retries=0, state=state, tries=1)


def told(story: Story, one: Delivery) -> Told:
    body = {"id": f"{story.job.id}-e1", "status": one.kind.upper()}
    headers = {"webhook-id": f"msg_{one.message}"}
    return Told(tenant=0, headers=headers, body=json.dumps(body).encode(), mood="well")


def completed(number: int = 0) -> Story:
    """A good job, lost once: two attempts, one after the other."""
    job = Job(
        id=UUID(int=100 + number),
        tenant="chaos-0",
        tenant_id=ACME,
        grant_id=1,
        max_running=1,
        state="COMPLETED",
        attempt=2,
        losses=1,
        retries=0,
        created_at=at(0),
        finished_at=at(3),
        input=f"c{number}-0-x".encode(),
        output=b"{}",
        error=None,
    )
    story = Story(job=job)
    begin = 10 * number
    story.attempts = [
        attempt(story, 1, "lost", begin + 1, begin + 2),
        attempt(story, 2, "completed", begin + 2, begin + 3),
    ]
    told = [("created", 0), ("handed", 1), ("started", 1), ("lost", 1), ("handed", 2), ("started", 2), ("completed", 2)]
    story.events = [event(story, kind, of, begin + step / 3) for step, (kind, of) in enumerate(told)]
    story.blobs = [blob(story, 2, "kept")]
    story.deliveries = [delivery(story, "completed")]
    return story


def seen(story: Story, *states: str, **fields: Any) -> Seen:
    made = Submission(token=story.job.token, id=f"{story.job.id}-e1")
    return Seen(plan(int(story.job.id) - 100), [made], list(states or ("IN_QUEUE", story.job.state)), **fields)


def good_run() -> Run:
    """Two jobs of one tenant with a cap of one."""
    stories = [completed(0), completed(1)]
    there = [told(story, one) for story in stories for one in story.deliveries]
    return Run(stories, [seen(story) for story in stories], [], there)


def changed(story: Story, **fields: Any) -> None:
    story.job = replace(story.job, **fields)
