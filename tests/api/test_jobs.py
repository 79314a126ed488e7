"""DELETE /api/v1/jobs/<id>: a tenant deletes a job of its own, and all that reads it says since when it is gone."""

import re

import pytest

from jobs import deletion
from jobs.uploads import discard
from storage import assets
from storage.models import Asset, Blob
from tests.api.v1 import V1
from tests.jobs.test_retention import ALL_AT_ONCE
from tests.wire.api import Api, check_refusal, finish, job_row

DATE = re.compile(r"deleted at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\.")


@pytest.fixture
def acme(own_acme: Api) -> V1:
    return V1.of(own_acme.http, own_acme.client)


@pytest.fixture
def job(own_acme: Api) -> str:
    """It has ended, with a file."""
    job = own_acme.run({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}})
    claimed = own_acme.take()
    own = {"tenant": own_acme.client.tenant, "job_id": claimed.job}
    blob = Blob.all_tenants.create(**own, key=job, bytes=9, content_type="image/png", state="kept")
    Asset.all_tenants.create(id=blob.pk, **own, blob=blob, name="o")
    finish(own_acme, claimed)
    return job


def reads(api: Api, job: str, asset: str) -> list[tuple[str, str]]:
    v2 = [("GET", f"/v2/{api.endpoint}/{path}/{job}") for path in ("status", "status-sync", "stream")]
    return [*v2, ("POST", f"/v2/{api.endpoint}/retry/{job}"), ("GET", f"/api/v1/jobs/{job}/events"), ("GET", asset)]


def test_a_job_is_deleted_and_whatever_reads_it_says_so(
    own_acme: Api, acme: V1, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = f"/api/v1/assets/{acme.get('assets', job=job)['results'][0]['id']}"
    answered = acme.call("DELETE", f"jobs/{job}")
    assert (answered.status_code, answered.json()["done_at"]) == (202, None)
    assert (answered.json()["payloads"], answered.json()["assets"]) == (1, 1)
    for _ in range(2):
        for method, path in reads(own_acme, job, asset):
            told = own_acme.http.request(method, path, headers={"Authorization": own_acme.authorization})
            assert DATE.search(check_refusal(told, 410, "gone")["error"]), path
        monkeypatch.setattr(assets, "SLACK", ALL_AT_ONCE)
        discard(1000)
        deletion.go_on()
    again = acme.call("DELETE", f"jobs/{job}").json()
    assert (again["receipt"], again["files"], again["bytes"]) == (answered.json()["receipt"], 1, 9)
    assert again["done_at"] >= again["asked_at"]
    assert own_acme.get("requests").json()["requests"] == []


def test_a_job_that_runs_is_ended(own_acme: Api, acme: V1) -> None:
    job = own_acme.run({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}})
    own_acme.take()
    assert acme.call("DELETE", f"jobs/{job}").status_code == 202
    assert job_row(job).state == "CANCELLED"
    check_refusal(own_acme.get(f"status/{job}"), 410, "gone")


def test_globex_can_not_delete_it_nor_learn_of_it(own_acme: Api, globex: Api, acme: V1, job: str) -> None:
    stranger = V1.of(globex.http, globex.client)
    for _ in range(2):
        stranger.refused(404, "not_found", "DELETE", f"jobs/{job}")
        acme.call("DELETE", f"jobs/{job}")
    asset = f"/api/v1/assets/{job.removesuffix('-e1')}"
    for method, path in reads(globex.at(own_acme.endpoint), job, asset):
        told = globex.http.request(method, path, headers={"Authorization": globex.authorization})
        check_refusal(told, 404, "not_found")


def test_a_key_that_may_only_read_deletes_nothing(own_acme: Api, acme: V1, job: str) -> None:
    reader = acme.by(f"Bearer {own_acme.client.new_key(scopes=['read'])}")
    reader.refused(403, "forbidden", "DELETE", f"jobs/{job}")
    assert own_acme.status(job)["status"] == "COMPLETED"


@pytest.mark.parametrize("text", ["nothing", "01a2093a-d5ca-7234-b16e-9e33650c0a44-e1"])
def test_what_is_no_job_of_his_is_not_there(acme: V1, text: str) -> None:
    acme.refused(404, "not_found", "DELETE", f"jobs/{text}")


def test_the_keys_of_a_deleted_tenant_say_since_when(own_acme: Api, globex: Api, acme: V1, job: str) -> None:
    deletion.delete_tenant(own_acme.client.tenant.pk, "test")
    calls = [*reads(own_acme, job, "/api/v1/assets"), ("POST", f"/v2/{own_acme.endpoint}/run")]
    for method, path in calls:
        told = own_acme.http.request(
            method, path, headers={"Authorization": own_acme.authorization}, content=b'{"input": 1}'
        )
        assert DATE.search(check_refusal(told, 410, "gone")["error"]), path
    wrong = own_acme.authorization[:-1] + ("a" if own_acme.authorization[-1] != "a" else "b")
    check_refusal(own_acme.by(wrong).get("health"), 401, "unauthorized")
    assert globex.get("health").status_code == 200
