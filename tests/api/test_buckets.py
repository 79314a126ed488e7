"""/api/v1/buckets: a key with the scope `manage` makes, changes, verifies and deletes its tenant's buckets."""

from typing import Any

import psycopg
import pytest
from django.utils import timezone

from accounts import sql
from accounts.errors import Refused
from accounts.models import Tenant
from jobs.models import Grant
from storage import buckets
from storage.models import Blob, Bucket
from storage.places import operators_place
from tests.api.v1 import V1
from tests.cast import unique
from tests.wire.api import Api, aside, check_refusal, job_row, until

SECRET = "s3cr3t/of+acme"
SETTINGS = {"name": "prod", "endpoint_url": "https://s3.example.com", "s3_bucket": "renders", "access_key_id": "AKIA"}


@pytest.fixture
def v1(manager: V1) -> V1:
    return manager


@pytest.fixture
def stranger(strange_manager: V1) -> V1:
    return strange_manager


def made(v1: V1, **fields: Any) -> Any:
    answered = v1.call("POST", "buckets", json=SETTINGS | {"secret_access_key": SECRET} | fields)
    assert answered.status_code == 201, answered.text
    return answered.json()


def changed(v1: V1, name: str, /, **fields: Any) -> Any:
    answered = v1.call("PATCH", f"buckets/{name}", json=fields)
    assert answered.status_code == 200, answered.text
    return answered.json()


def row(v1: V1, name: str = "prod") -> Bucket:
    return Bucket.objects.of(v1.client.tenant).get(name=name)


def defaults(v1: V1) -> list[str]:
    return [bucket["name"] for bucket in v1.get("buckets")["results"] if bucket["is_default"]]


def test_a_bucket_is_made_filled_in_by_its_endpoint_and_its_secret_is_never_told(v1: V1) -> None:
    bucket = made(v1, endpoint_url="https://renders.s3.eu-central-1.amazonaws.com", s3_bucket="", prefix="/a/b/")
    assert (bucket["endpoint_url"], bucket["s3_bucket"]) == ("https://s3.eu-central-1.amazonaws.com", "renders")
    assert (bucket["region"], bucket["addressing"], bucket["prefix"]) == ("eu-central-1", "virtual", "a/b")
    assert (bucket["works"], bucket["fault"], bucket["verified_at"]) == (None, None, None)
    assert v1.get("buckets/prod") == bucket
    assert v1.get("buckets")["results"] == [bucket]
    assert not [name for name in bucket if "secret" in name and name != "allow_secret_in_job"]
    assert row(v1).secret_access_key.unseal() == SECRET


def test_a_jobs_files_go_to_the_bucket_that_it_names_or_to_the_default(acme: Api, v1: V1) -> None:
    made(v1)
    made(v1, name="usual", is_default=True)
    assert job_row(acme.run(storage="prod")).bucket == row(v1)
    assert job_row(acme.run()).bucket == row(v1, "usual")
    assert changed(v1, "usual", name="other")["name"] == "other"
    said = check_refusal(acme.post("run", {"input": 1, "storage": "usual"}), 400, "unknown_bucket")
    assert "Yours are: other, prod." in said["error"]


def test_a_new_default_takes_the_place_of_the_old_one(v1: V1) -> None:
    made(v1, is_default=True)
    made(v1, name="second", is_default=True)
    assert defaults(v1) == ["second"]
    changed(v1, "prod", is_default=True)
    assert defaults(v1) == ["prod"]
    changed(v1, "prod", is_default=False)
    assert defaults(v1) == []


def test_of_many_that_become_the_default_at_once_one_is(v1: V1) -> None:
    names = [made(v1, name=f"b{n}")["name"] for n in range(4)]
    answers = [aside(v1.call, "PATCH", f"buckets/{name}", json={"is_default": True}) for name in names]
    assert [answer.result(60).status_code for answer in answers] == [200] * 4
    assert len(defaults(v1)) == 1


def test_what_is_not_given_stays_the_secret_too(v1: V1) -> None:
    before = made(v1, prefix="a", url_hours=7)
    after = changed(v1, "prod", allow_secret_in_job=True)
    assert after == before | {"allow_secret_in_job": True, "warning": None}
    assert row(v1).secret_access_key.unseal() == SECRET
    changed(v1, "prod", secret_access_key="another")
    assert row(v1).secret_access_key.unseal() == "another"
    assert changed(v1, "prod", url_hours=None, prefix="")["url_hours"] is None


def real() -> dict[str, Any]:
    place = operators_place(public=False)
    keys = {"access_key_id": place.access_key_id, "secret_access_key": place.secret_access_key}
    return keys | {"endpoint_url": place.endpoint_url, "s3_bucket": place.s3_bucket, "prefix": unique("api")}


def test_a_bucket_that_works_is_found_to_do_so_step_by_step(v1: V1) -> None:
    made(v1, **real())
    answered = v1.call("POST", "buckets/prod/verify")
    found = answered.json()
    assert (answered.status_code, found["works"], found["fault"]) == (200, True, None)
    assert len(found["steps"]) == 6
    assert all(step["ok"] and step["fault"] is None for step in found["steps"])
    told = v1.get("buckets/prod")
    assert (told["works"], told["verified_at"] is None) == (True, False)
    assert changed(v1, "prod", name="renamed", is_default=True)["works"] is True
    assert changed(v1, "renamed", url_hours=3)["works"] is None, "that was of other settings"


def test_a_bucket_that_does_not_says_which_step_why_and_never_its_secret(v1: V1) -> None:
    made(v1, **real() | {"secret_access_key": SECRET})
    found = v1.call("POST", "buckets/prod/verify")
    (step,) = found.json()["steps"]
    assert (step["step"], step["ok"]) == ("write an object", False)
    assert step["fault"] == found.json()["fault"] == v1.get("buckets/prod")["fault"]
    assert "The secret access key is not the one of this access key" in step["fault"]
    assert SECRET not in found.text
    sql.run("UPDATE storage_bucket SET secret_access_key = 'lost' WHERE id = %s", [row(v1).pk])
    assert "cannot be used" in v1.call("POST", "buckets/prod/verify").json()["fault"]
    row(v1).delete()


def test_a_bucket_with_files_that_moves_is_told_what_that_means(v1: V1) -> None:
    made(v1)
    assert changed(v1, "prod", s3_bucket="elsewhere")["warning"] is None
    Blob.all_tenants.create(tenant=v1.client.tenant, bucket=row(v1), key=unique("k"), bytes=1, content_type="x/y")
    assert "Files of earlier jobs are now looked for there" in changed(v1, "prod", s3_bucket="again")["warning"]
    assert changed(v1, "prod", region="eu-1")["warning"] is None


def test_a_bucket_is_deleted_unless_something_names_it(acme: Api, v1: V1) -> None:
    made(v1)
    made(v1, name="unused")
    assert v1.call("DELETE", "buckets/unused").status_code == 204
    v1.refused(404, "not_found", "GET", "buckets/unused")
    Grant.all_tenants.filter(pk=acme.client.grant.pk).update(bucket=row(v1))
    acme.run()
    assert "These name it: grants, jobs. Delete those first" in v1.refused(
        409, "bucket_in_use", "DELETE", "buckets/prod"
    )
    Grant.all_tenants.filter(pk=acme.client.grant.pk).update(bucket=None)
    assert "These name it: jobs." in v1.refused(409, "bucket_in_use", "DELETE", "buckets/prod")
    assert v1.get("buckets/prod")


BLOCKED_BY = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"


def test_a_job_that_begins_as_its_bucket_goes_is_to_be_sent_again(acme: Api, v1: V1, database: str) -> None:
    made(v1, is_default=True)
    with psycopg.connect(database) as removing:
        removing.execute("DELETE FROM storage_bucket WHERE id = %s", [row(v1).pk])
        answer = aside(acme.post, "run", {"input": 1})
        until(lambda: sql.one(BLOCKED_BY, [removing.info.backend_pid])[0] == 1, 60)
    refused = answer.result(60)
    assert "bucket or endpoint was deleted meanwhile. Try again." in check_refusal(refused, 503, "unavailable")["error"]
    assert refused.headers["Retry-After"]
    assert job_row(acme.run()).bucket is None


def test_a_bucket_that_a_job_begins_to_use_as_it_goes_stays(acme: Api, v1: V1, database: str) -> None:
    made(v1)
    job = job_row(acme.run())
    with psycopg.connect(database) as beginning:
        beginning.execute("UPDATE jobs_job SET bucket_id = %s WHERE id = %s", [row(v1).pk, job.pk])
        beginning.execute("SET CONSTRAINTS ALL IMMEDIATE")
        answer = aside(v1.call, "DELETE", "buckets/prod")
        until(lambda: sql.one(BLOCKED_BY, [beginning.info.backend_pid])[0] == 1, 60)
    check_refusal(answer.result(60), 409, "bucket_in_use")
    assert v1.get("buckets/prod")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Prod"},
        {"name": ""},
        {"name": "x" * 64},
        {"endpoint_url": "no URL"},
        {"endpoint_url": "https://10.0.0.1"},
        {"endpoint_url": "http://s3.example.com"},
        {"endpoint_url": "https://user:pass@s3.example.com"},
        {"s3_bucket": ""},
        {"s3_bucket": "a b"},
        {"prefix": "a/../b"},
        {"region": "r" * 51},
        {"addressing": "dns"},
        {"access_key_id": ""},
        {"secret_access_key": ""},
        {"secret_access_key": None},
        {"secret_access_key": "a\x00"},
        {"public_url": "https://192.168.0.1/x"},
        {"public_url": "https://cdn.example.com/?a=b"},
        {"url_hours": 169},
        {"url_hours": "many"},
        {"is_default": "perhaps"},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_by_name_and_changes_nothing(v1: V1, wrong: dict[str, Any]) -> None:
    body = SETTINGS | {"secret_access_key": SECRET} | wrong
    refused = v1.call("POST", "buckets", json=body)
    assert f"`{next(iter(wrong))}`" in check_refusal(refused, 400)["error"]
    assert SECRET not in refused.text
    before = made(v1)
    if wrong != {"s3_bucket": ""}:  # which an endpoint without one keeps
        assert f"`{next(iter(wrong))}`" in check_refusal(v1.call("PATCH", "buckets/prod", json=wrong), 400)["error"]
    assert v1.get("buckets/prod") == before


def test_urls_that_are_not_signed_need_a_public_one(v1: V1) -> None:
    said = v1.refused(
        400, "invalid_bucket", "POST", "buckets", json=SETTINGS | {"secret_access_key": SECRET, "signed_urls": False}
    )
    assert "`public_url`: URLs that are not signed need a public URL" in said


@pytest.mark.parametrize("missing", ["name", "endpoint_url", "access_key_id", "secret_access_key"])
def test_what_is_missing_is_named(v1: V1, missing: str) -> None:
    body = {name: value for name, value in (SETTINGS | {"secret_access_key": SECRET}).items() if name != missing}
    assert f"`{missing}`" in v1.refused(400, "bad_request", "POST", "buckets", json=body)


def test_a_name_is_one_buckets_and_there_are_not_too_many(v1: V1, monkeypatch: pytest.MonkeyPatch) -> None:
    made(v1)
    body = SETTINGS | {"secret_access_key": SECRET}
    assert "a bucket 'prod' already" in v1.refused(409, "exists", "POST", "buckets", json=body)
    made(v1, name="other")
    v1.refused(409, "exists", "PATCH", "buckets/other", json={"name": "prod"})
    monkeypatch.setattr(buckets, "MOST_BUCKETS", 2)
    with pytest.raises(Refused, match="You have 2 buckets"):
        buckets.make(v1.client.tenant.pk, SECRET, **SETTINGS | {"name": "third"})


def test_a_deleted_tenant_gets_none(v1: V1) -> None:
    Tenant.objects.filter(pk=v1.client.tenant.pk).update(deleted_at=timezone.now())
    with pytest.raises(Refused) as caught:
        buckets.make(v1.client.tenant.pk, SECRET, **SETTINGS)
    assert caught.value.status == 410


def test_globex_finds_none_of_acmes_and_may_have_the_same_name(v1: V1, stranger: V1) -> None:
    before = made(v1)
    for method, path, body in (
        ("GET", "buckets/prod", None),
        ("PATCH", "buckets/prod", {"is_default": True}),
        ("DELETE", "buckets/prod", None),
        ("POST", "buckets/prod/verify", None),
    ):
        stranger.refused(404, "not_found", method, path, json=body)
    assert stranger.get("buckets")["results"] == []
    made(stranger, is_default=True, s3_bucket="theirs")
    assert v1.get("buckets/prod") == before
