"""Idempotency-Key: however often a submission is sent, there is one job of it (rules.md 24)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from django.conf import settings
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from accounts import sql
from jobs.models import Grant, IdempotencyKey, Job
from jobs.sweep import forget_keys
from tests.cast import Client, new_client, new_place
from tests.wire.api import Api, aside, check_refusal, finish, until

BODY = {"input": {"n": 1}}


def jobs_of(api: Api) -> int:
    return Job.all_tenants.filter(tenant=api.client.tenant).count()


def age(api: Api, hours: float) -> None:
    IdempotencyKey.all_tenants.filter(tenant=api.client.tenant)
    sql.run(
        "UPDATE jobs_idempotencykey SET created_at = created_at - %s * interval '1 hour' WHERE tenant_id = %s",
        [hours, api.client.tenant.pk],
    )


def test_the_second_submission_is_told_of_the_firsts_job(acme: Api) -> None:
    first, second = (acme.once("a").post("run", BODY) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert jobs_of(acme) == 1


def test_a_replay_tells_the_state_of_the_job_now(acme: Api) -> None:
    job = acme.once("a").post("run", BODY).json()["id"]
    finish(acme, acme.take())
    assert acme.once("a").post("run", BODY).json() == {"id": job, "status": "COMPLETED"}


def test_runsync_again_waits_for_the_same_job(acme: Api) -> None:
    waiting = [aside(acme.once("a").post, "runsync", BODY, wait=20_000) for _ in range(3)]
    claimed = acme.take()
    until(lambda: acme.once("a").post("run", BODY).headers.get("Idempotency-Replayed"))
    finish(acme, claimed, {"seen": 1})
    answers = [each.result().json() for each in waiting]
    assert [answer["output"] for answer in answers] == [{"seen": 1}] * 3
    assert len({answer["id"] for answer in answers}) == jobs_of(acme) == 1
    late = acme.once("a").post("runsync", BODY)
    assert late.json() == answers[0]
    assert late.headers["Idempotency-Replayed"] == "true"


def test_run_and_runsync_share_their_keys(acme: Api) -> None:
    job = acme.once("a").post("run", BODY).json()["id"]
    finish(acme, acme.take())
    assert acme.once("a").post("runsync", BODY).json()["id"] == job


def test_another_body_needs_another_key(acme: Api) -> None:
    acme.once("a").post("run", BODY)
    check_refusal(acme.once("a").post("run", {"input": {"n": 2}}), 422, "idempotency_key_reused")
    check_refusal(acme.once("a").post("run", b'{"input":{"n":1}}'), 422, "idempotency_key_reused")
    assert acme.once("A").post("run", {"input": {"n": 2}}).status_code == 200
    assert jobs_of(acme) == 2


def test_keys_are_the_tenants_and_the_endpoints_own(acme: Api, globex: Api) -> None:
    place = new_place()
    Grant.all_tenants.create(tenant=acme.client.tenant, endpoint=place.endpoint)
    second_key = acme.by(f"Bearer {acme.client.new_key()}")
    first, same = (api.once("a").post("run", BODY).json()["id"] for api in (acme, second_key))
    assert first == same
    there = acme.at(place.name).once("a").post("run", BODY).json()["id"]
    other = globex.once("a").post("run", BODY).json()["id"]
    assert len({first, there, other}) == 3


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), ({}, 400), ({"input": 1, "policy": {"ttl": 1}}, 400), ({"input": 1}, 400)]
)
def test_a_refused_submission_keeps_no_key(http: httpx.Client, body: object, status: int) -> None:
    api = Api.of(http, new_client(new_place("hearth")))
    assert api.once("a").post("run", body).status_code == status
    assert not IdempotencyKey.all_tenants.filter(tenant=api.client.tenant).exists()
    good = {"input": {"workflow": {"1": {"class_type": "A", "inputs": {}}}}}
    assert api.once("a").post("run", good).status_code == 200


def test_who_may_not_submit_keeps_no_key(acme: Api) -> None:
    reader = acme.by(f"Bearer {acme.client.new_key(scopes=['read'])}")
    assert reader.once("a").post("run", BODY).status_code == 403
    assert acme.at("nowhere").once("a").post("run", BODY).status_code == 404
    assert "Idempotency-Replayed" not in acme.once("a").post("run", BODY).headers


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", '""'])
def test_a_key_that_is_none_is_refused(acme: Api, key: str) -> None:
    check_refusal(acme.once(key).post("run", BODY), 400, "invalid_idempotency_key")


def test_a_quoted_key_is_the_same_as_a_bare_one(acme: Api) -> None:
    ids = {acme.once(key).post("run", BODY).json()["id"] for key in ('a"b', r'"a\"b"')}
    assert len(ids) == 1


def test_a_key_is_kept_for_a_day(acme: Api) -> None:
    first = acme.once("a").post("run", BODY).json()["id"]
    age(acme, 23.9)
    assert acme.once("a").post("run", BODY).json()["id"] == first
    age(acme, 0.2)
    second = acme.once("a").post("run", {"input": 2}).json()["id"]
    assert second != first
    assert acme.once("a").post("run", {"input": 2}).json()["id"] == second


def test_old_keys_are_swept(acme: Api) -> None:
    acme.once("a").post("run", BODY)
    age(acme, 25)
    acme.once("b").post("run", BODY)
    assert forget_keys() >= 1
    assert list(IdempotencyKey.all_tenants.filter(tenant=acme.client.tenant).values_list("key", flat=True)) == ["b"]


def test_sixteen_at_once_make_one_job(acme: Api) -> None:
    start = threading.Barrier(16)

    def one(_: int) -> str:
        start.wait()
        with httpx.Client(base_url=acme.http.base_url) as own:
            return str(Api.of(own, acme.client).once("a").post("run", BODY).json()["id"])

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(one, range(16)))) == 1
    assert jobs_of(acme) == 1


@pytest.fixture
def other() -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.DATABASE_URL) as session:
        yield session


def begun(other: psycopg.Connection, client: Client) -> None:
    """Somebody else's submission with the key "a", not committed yet."""
    other.execute(
        "INSERT INTO jobs_idempotencykey (tenant_id, endpoint_id, key, body_sha256, job_id, created_at)"
        " VALUES (%s, %s, 'a', '', gen_random_uuid(), now())",
        [client.tenant.pk, client.place.endpoint.pk],
    )


def waited_for(other: psycopg.Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    return bool(sql.one(waiting, [other.info.backend_pid])[0])


def test_who_waited_for_one_that_was_rolled_back_makes_the_job(acme: Api, other: psycopg.Connection) -> None:
    begun(other, acme.client)
    waiting = aside(acme.once("a").post, "run", BODY)
    until(lambda: waited_for(other), 60)
    other.rollback()
    answered = waiting.result()
    assert answered.status_code == 200
    assert "Idempotency-Replayed" not in answered.headers
    assert jobs_of(acme) == 1


def test_who_waited_for_one_that_was_committed_sees_it(acme: Api, other: psycopg.Connection) -> None:
    begun(other, acme.client)
    waiting = aside(acme.once("a").post, "run", BODY)
    until(lambda: waited_for(other), 60)
    other.commit()
    check_refusal(waiting.result(), 422, "idempotency_key_reused")
    assert jobs_of(acme) == 0


def test_a_key_outlives_the_database_going_away(acme: Api) -> None:
    """However the connection was cut, asking again with the key makes one job."""
    ids = set()
    for n in range(20):
        if n % 3 == 0:
            sql.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database() AND backend_type = 'client backend'"
            )
        answered = acme.once("a").post("run", BODY)
        assert answered.status_code in (200, 503)
        if answered.status_code == 200:
            ids.add(answered.json()["id"])
    assert len(ids) == 1
    assert jobs_of(acme) == 1
    connection.close()


@hypothesis(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2]), st.sampled_from([0, 0, 25])), max_size=12))
def test_any_order_of_submissions_and_days_tells_the_truth(
    http: httpx.Client, steps: list[tuple[str, int, int]]
) -> None:
    api = Api.of(http, new_client(new_place()))
    known: dict[str, tuple[int, str]] = {}
    made = 0
    for key, n, hours in steps:
        if hours:
            age(api, hours)
            known.clear()
        answered = api.once(key).post("run", {"input": n})
        if key not in known:
            known[key] = (n, answered.json()["id"])
            made += 1
        elif known[key][0] == n:
            assert answered.json()["id"] == known[key][1]
        else:
            assert answered.status_code == 422
    assert jobs_of(api) == made
