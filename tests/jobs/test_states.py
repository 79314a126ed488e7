"""The table of moves, and the constraints that stand behind it."""

import pytest
from django.db import IntegrityError, connection, transaction

from accounts import sql
from accounts.models import ApiKey
from jobs.models import Attempt, Job
from jobs.states import FINAL, MOVES, State, end, move_sql, requeue, sources
from tests.cast import Client, kinds, row


def test_completed_and_cancelled_are_for_good() -> None:
    assert MOVES[State.COMPLETED] == MOVES[State.CANCELLED] == ()


def test_only_a_queued_job_is_handed_over() -> None:
    assert sources(State.IN_PROGRESS) == (State.IN_QUEUE,)


def test_an_illegal_move_cannot_even_be_written() -> None:
    with pytest.raises(ValueError, match="no legal move"):
        move_sql(State.IN_QUEUE, "x = 1", "true", only=(State.COMPLETED,))


@pytest.mark.parametrize("first", FINAL)
@pytest.mark.parametrize("second", FINAL)
def test_a_job_ends_once(acme: Client, first: State, second: State) -> None:
    job = acme.submit()
    acme.place.worker().take_one()
    assert end(job.uuid, first, "first")
    assert not end(job.uuid, second, "second")
    assert row(job).state == first
    assert kinds(job).count(first.value.lower()) == 1


def test_an_ended_job_is_not_requeued(acme: Client) -> None:
    job = acme.submit()
    acme.place.worker().take_one()
    end(job.uuid, State.FAILED, "")
    assert not requeue(job.uuid)


BROKEN = [
    ("UPDATE jobs_job SET state = 'COMPLETED' WHERE id = %s", "job_finished_if_final"),
    ("UPDATE jobs_job SET finished_at = now() WHERE id = %s", "job_finished_if_final"),
    ("UPDATE jobs_job SET state = 'DONE' WHERE id = %s", "job_finished_if_final|job_state_known"),
    ("UPDATE jobs_job SET attempt = 0 WHERE id = %s", "job_in_progress_has_attempt"),
    ("UPDATE jobs_attempt SET ended_at = now() WHERE job_id = %s", "attempt_ended_with_outcome"),
    ("UPDATE jobs_attempt SET released_at = now() WHERE job_id = %s", "attempt_released_after_end"),
]


@pytest.mark.parametrize(("statement", "constraint"), BROKEN)
def test_the_database_refuses_what_must_never_be(acme: Client, statement: str, constraint: str) -> None:
    acme.submit()
    claimed = acme.place.worker().take_one()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        sql.run(statement, [claimed.job])


def test_a_job_has_one_open_attempt(acme: Client) -> None:
    acme.submit()
    claimed = acme.place.worker().take_one()
    given = Attempt.objects.get(job_id=claimed.job)
    given.pk, given.number = None, 2
    with pytest.raises(IntegrityError, match="attempt_one_open_a_job"), transaction.atomic():
        given.save(force_insert=True)


def test_the_queue_is_read_by_its_index(acme: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT id FROM jobs_job WHERE grant_id = %s AND api_key_id = %s AND state = 'IN_QUEUE'"
            " ORDER BY api_key_id, priority DESC, id LIMIT 1",
            [acme.grant.pk, ApiKey.all_tenants.get(tenant=acme.tenant).pk],
        )
        plan = str(cursor.fetchall())
        cursor.execute("SET enable_seqscan = on")
    assert "job_queue" in plan
    assert "Sort" not in plan


def test_an_unscoped_queryset_of_a_tenants_rows_is_refused(acme: Client) -> None:
    job = acme.submit()
    with pytest.raises(TypeError, match=r"Job.objects.of\(tenant\)"):
        Job.objects.all()
    assert list(Job.objects.of(acme.tenant).values_list("pk", flat=True)) == [job.uuid]
