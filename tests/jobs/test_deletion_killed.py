"""Deletion, killed or raced at any point, ends with nothing left, and its receipt counts each thing once."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts import sql
from jobs import deletion, news, retention, uploads
from jobs.deletion import delete_job, delete_tenant
from jobs.ids import JobId
from jobs.models import Deletion, Job
from jobs.news import Done
from jobs.queue import Claimed
from jobs.uploads import discard
from jobs.workers import release
from storage import assets
from storage.models import Asset, Blob
from storage.places import operators_place, put_object
from tests.cast import Client, attempt_of, new_client, new_place
from tests.jobs import killed
from tests.jobs.test_deletion import (
    FILE,
    STAYS,
    full,
    go_all_the_way,
    in_s3,
    let_go_of_all,
    rows_of_job,
    rows_of_tenant,
)
from tests.jobs.test_retention import ALL_AT_ONCE, output_of, put


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)


GO_ON, DISCARD = "jobs.deletion:go_on", "jobs.uploads:discard"
POINTS = [
    ("jobs.removal.empty", 2, GO_ON),
    ("jobs.tally.count", 3, GO_ON),
    ("storage.assets.let_go", 4, GO_ON),
    ("jobs.uploads._forget", 1, DISCARD),
]


@pytest.mark.parametrize(("where", "times", "call"), POINTS, ids=[f"{where}-{times}" for where, times, _ in POINTS])
def test_a_kill_at_any_point_is_made_good(where: str, times: int, call: str) -> None:
    own = new_client(new_place("hearth"))
    jobs = full(own)
    receipt = delete_tenant(own.tenant.pk, "test")
    let_go_of_all(own)
    if call == DISCARD:
        deletion.go_on()
    killed.at(where, times, call)
    for _ in range(2):
        go_all_the_way(receipt)
        let_go_of_all(own)
    done = go_all_the_way(receipt)
    assert (done.done_at is not None, done.jobs, done.payloads, done.assets) == (True, 3, 3, 3)
    assert rows_of_tenant(own.tenant) == STAYS
    assert [rows_of_job(job) for job in jobs] == [{}] * 3
    assert in_s3(f"{own.tenant.pk}/") == []


@pytest.mark.parametrize("where", ["storage.objects.clear", "jobs.removal.remove"])
def test_a_kill_before_a_jobs_last_steps_is_made_good(where: str) -> None:
    own = new_client(new_place("hearth"))
    job, _ = output_of(own, "a.png")
    receipt = delete_job(job.uuid, "test")
    discard(1000)
    killed.at(where, 1, GO_ON)
    done = go_all_the_way(receipt)
    assert (done.done_at is not None, done.jobs, done.files, rows_of_job(job)) == (True, 1, 1, {})


STEPS = ["submit", "work", "report", "upload", "delete", "delete", "go_on", "discard", "retain"]
PLANS = st.lists(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=2, max_size=8), min_size=3, max_size=3
)


class Actor:
    """One of several threads that act on one tenant."""

    def __init__(self, own: Client, plan: list[tuple[str, int]], name: str) -> None:
        self.own, self.plan, self.worker = own, plan, own.place.worker(name)
        self.jobs: list[JobId] = []
        self.held: list[tuple[Claimed, str]] = []
        self.deleted: list[JobId] = []

    def run(self) -> None:
        try:
            for what, number in self.plan:
                getattr(self, what)(number)
        finally:
            connection.close()

    def submit(self, number: int) -> None:
        self.jobs.append(self.own.submit())

    def work(self, number: int) -> None:
        """Take a job, and upload a file of it."""
        for claimed in self.worker.take():
            for slot in uploads.slots(attempt_of(claimed), [FILE]) or ():
                put_object(operators_place(public=False), slot.key, io.BytesIO(b"abc"), content_type="image/png")
                uploads.mark_stored([UUID(slot.id)])
                self.held.append((claimed, slot.key))

    def report(self, number: int) -> None:
        if self.held:
            claimed, key = self.held.pop(number % len(self.held))
            value = {"files": [key], "datas": {}, "assets": [{"key": key, "name": "a.png"}]}
            news.done(
                self.own.place.endpoint.pk, self.worker.name, attempt_of(claimed), Done(output=b"x", output_value=value)
            )

    def upload(self, number: int) -> None:
        put(self.own.tenant, b"%d" % (number % 3))

    def delete(self, number: int) -> None:
        if self.jobs:
            job = self.jobs.pop(number % len(self.jobs))
            delete_job(job.uuid, "test")
            self.deleted.append(job)

    def go_on(self, number: int) -> None:
        deletion.go_on()

    def discard(self, number: int) -> None:
        discard(1000)

    def retain(self, number: int) -> None:
        retention.retain()


@given(plans=PLANS)
@settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_whatever_goes_on_at_once_the_deleted_goes_and_the_rest_stays(plans: list[list[tuple[str, int]]]) -> None:
    own = new_client(new_place("hearth"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "SLACK", ALL_AT_ONCE)
        patch.setattr(uploads, "doom_unwon", lambda batch: None)  # it comes long after an upload's end
        actors = [Actor(own, plan, f"w{number}") for number, plan in enumerate(plans)]
        run_at_once([actor.run for actor in actors])
        let_go_of_all_ended(own)
        for receipt in Deletion.objects.of(own.tenant).filter(what="job"):
            assert go_all_the_way(receipt).done_at, receipt.fault
            assert receipt.jobs == 1
    for job in (job for actor in actors for job in actor.deleted):
        assert rows_of_job(job) == {}
        assert in_s3(f"{own.tenant.pk}/{job.uuid}/") == []
    kept = Blob.objects.of(own.tenant).exclude(state="dying").exclude(state="pending")
    assert set(kept.values_list("key", flat=True)) <= set(in_s3(f"{own.tenant.pk}/"))
    assert set(Asset.objects.of(own.tenant).values_list("blob__state", flat=True)) <= {"kept"}
    assert Job.objects.of(own.tenant).count() == sum(len(actor.jobs) for actor in actors)


def let_go_of_all_ended(own: Client) -> None:
    ended = "SELECT a.job_id, a.number FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id"
    ended += " WHERE j.tenant_id = %s AND a.released_at IS NULL AND a.ended_at IS NOT NULL"
    for job, number in sql.rows(ended, [own.tenant.pk]):
        release(job, number)


def run_at_once(calls: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
