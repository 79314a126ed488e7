"""Which bucket a job's files go to: the request's own, the one it names, the grant's, the tenant's default, ours."""

from typing import Any

import pytest

from accounts.sealed import Sealed
from jobs.models import Grant
from storage.models import Bucket
from tests.cast import WORKFLOW
from tests.wire.api import Api, check_refusal, job_row, nothing_stored

OWN = {"accessId": "A", "accessSecret": "S", "endpointUrl": "https://s3.example.com/own", "bucketName": ""}


def add(api: Api, name: str, **fields: Any) -> Bucket:
    where = {"endpoint_url": "https://s3.example.com", "s3_bucket": name, "access_key_id": "A"}
    made: Bucket = Bucket.all_tenants.create(
        tenant=api.client.tenant, name=name, secret_access_key=Sealed.seal("s"), **where, **fields
    )
    return made


def chosen(api: Api, **fields: Any) -> str | None:
    job = job_row(api.run({"workflow": WORKFLOW}, **fields))
    return job.bucket.name if job.bucket else None


def test_each_way_to_choose_goes_before_the_next(own_acme: Api) -> None:
    assert chosen(own_acme) is None, "the operator's"
    add(own_acme, "usual", is_default=True)
    assert chosen(own_acme) == "usual"
    Grant.all_tenants.filter(pk=own_acme.client.grant.pk).update(bucket=add(own_acme, "here"))
    assert chosen(own_acme) == "here"
    add(own_acme, "prod")
    assert chosen(own_acme, storage="prod") == "prod"
    assert chosen(own_acme, storage="usual") == "usual"


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_name_names_none(own_acme: Api, nothing: object) -> None:
    add(own_acme, "usual", is_default=True)
    assert chosen(own_acme, storage=nothing) == "usual"


def test_a_requests_own_bucket_goes_before_the_one_it_names(own_acme: Api) -> None:
    add(own_acme, "prod")
    job = job_row(own_acme.run({"workflow": WORKFLOW, "tobucket": OWN}, storage="prod"))
    assert job.payload.request_bucket is not None


def test_runsync_and_raw_endpoints_choose_too(acme: Api, own_acme: Api) -> None:
    add(own_acme, "prod")
    body = {"input": {"workflow": WORKFLOW}, "storage": "prod"}
    job = job_row(own_acme.post("runsync", body, wait=1000).json()["id"])
    assert job.bucket.name == "prod"
    bucket = add(acme, "raw-files")
    assert job_row(acme.run({"storage": "mine to say"}, storage="raw-files")).bucket_id == bucket.pk


def test_an_unknown_name_is_refused_with_the_names_there_are(own_acme: Api) -> None:
    with nothing_stored():
        refused = own_acme.post("run", {"input": {"workflow": WORKFLOW}, "storage": "prd"})
    assert check_refusal(refused, 400, "unknown_bucket")["error"].endswith("'prd' of yours. You have none.")
    add(own_acme, "prod")
    add(own_acme, "backup", is_default=True)
    with nothing_stored():
        refused = own_acme.once("k1").post("run", {"input": {"workflow": WORKFLOW}, "storage": "prd"})
    assert check_refusal(refused, 400, "unknown_bucket")["error"].endswith("Yours are: backup, prod.")
    assert own_acme.once("k1").run({"workflow": WORKFLOW}), "a refused request keeps no key"


@pytest.mark.parametrize("storage", [5, True, ["prod"], {"name": "prod"}, "p" * 64, "a\0b", "a\nb"], ids=repr)
def test_what_is_no_name_is_refused(own_acme: Api, storage: object) -> None:
    with nothing_stored():
        refused = own_acme.post("run", {"input": {"workflow": WORKFLOW}, "storage": storage})
        check_refusal(refused, 400, "unknown_bucket")


def test_another_tenants_bucket_is_unknown_and_not_listed(own_acme: Api, globex: Api) -> None:
    add(globex, "theirs")
    add(own_acme, "mine")
    with nothing_stored():
        refused = own_acme.post("run", {"input": {"workflow": WORKFLOW}, "storage": "theirs"})
    assert check_refusal(refused, 400, "unknown_bucket")["error"].endswith("Yours are: mine.")


def test_a_name_inside_of_the_input_would_be_silently_without_effect_and_is_refused(own_acme: Api) -> None:
    add(own_acme, "prod")
    with nothing_stored():
        refused = own_acme.post("run", {"input": {"workflow": WORKFLOW, "storage": "prod"}})
    assert "beside `input`" in check_refusal(refused, 400)["error"]


def test_a_retry_stays_with_its_bucket(own_acme: Api) -> None:
    first = add(own_acme, "first", is_default=True)
    job = own_acme.run({"workflow": WORKFLOW})
    Bucket.all_tenants.filter(pk=first.pk).update(is_default=False)
    add(own_acme, "second", is_default=True)
    own_acme.take()
    own_acme.job_done(job, b'{"error": "boom"}')
    assert own_acme.post(f"retry/{job}").status_code == 200
    assert job_row(job).bucket_id == first.pk
