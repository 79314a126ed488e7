"""The fields of a request: the reference's own (api-interactions.md), and webhook, policy, s3Config one by one."""

import json
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet

from accounts.sealed import Sealed
from jobs.models import Payload
from jobs.news import started
from storage.models import Asset, Blob, Bucket
from tests.cast import WORKFLOW, attempt_of
from tests.wire.api import Api, check_refusal, finish, job_row, nothing_stored

MINUTE, DAY = 60_000, 86_400_000
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
BUCKET = {
    "accessId": "AKIAIOSFODNN7EXAMPLE",
    "accessSecret": SECRET,
    "bucketName": "renders",
    "endpointUrl": "https://bucket.s3.eu-central-1.amazonaws.com",
}


def stored_bucket(job: str) -> Any:
    sealed = job_row(job).payload.request_bucket
    return None if sealed is None else orjson.loads(sealed.unseal())


def stored_input(job: str) -> bytes:
    return bytes(job_row(job).payload.input)


def reference_request() -> dict[str, Any]:
    """The request of api-interactions.md, with what is a place-holder there filled in."""
    return {
        "webhook": "https://url.to.your.webhook/",
        "policy": {"executiontimeout": 5000},
        "input": {
            "workflow": WORKFLOW,
            "tobase64": False,
            "tobucket": {
                "accessId": "AKIAIOSFODNN7EXAMPLE",
                "accessSecret": SECRET,
                "endpointUrl": "https://bucket.s3.region.amazonaws.com`",
                "bucketName": "bucket-subfolder-to-store-generations",
            },
        },
        "s3Config": {
            "accessId": "key_id_or_username",
            "accessSecret": "key_secret_or_password",
            "bucketName": "storage_location_name",
            "endpointUrl": "https://storage.location.address",
        },
    }


@pytest.mark.parametrize("path", ["run", "runsync"])
def test_the_references_request_is_taken_with_every_field(own_acme: Api, path: str) -> None:
    answered = own_acme.post(path, reference_request(), **({"wait": 1000} if path == "runsync" else {}))
    assert answered.status_code == 200, answered.text
    job = job_row(answered.json()["id"])
    assert (job.execution_timeout_ms, job.ttl_ms) == (5_000, DAY)
    assert job.payload.webhook == "https://url.to.your.webhook/"
    assert orjson.loads(job.payload.input) == {"workflow": WORKFLOW, "tobase64": False}
    assert orjson.loads(job.payload.policy) == {"executiontimeout": 5000}
    assert stored_bucket(job.public_id)["bucketName"] == "bucket-subfolder-to-store-generations", "tobucket comes first"


def test_the_references_answer_has_the_references_names(own_acme: Api) -> None:
    job = own_acme.run({"workflow": WORKFLOW})
    files = {"files": ["https://b.s3.r.amazonaws.com/g/c67ad621.png"], "datas": {"9": {"text": ["a"]}}}
    claimed = own_acme.take()
    assert started(attempt_of(claimed))
    finish(own_acme, claimed, files)
    found = own_acme.status(job)
    assert found.keys() == {"delayTime", "executionTime", "id", "output", "status", "workerId"}
    assert found["output"] == files


@pytest.mark.parametrize(
    ("policy", "execution_timeout_ms", "ttl_ms", "priority"),
    [
        (None, 600_000, DAY, 0),
        ({}, 600_000, DAY, 0),
        ({"executionTimeout": 5_000, "ttl": 10_000, "lowPriority": True}, 5_000, 10_000, -1),
        ({"executiontimeout": 7 * DAY, "ttl": 7 * DAY, "lowpriority": False}, 7 * DAY, 7 * DAY, 0),
        ({"executionTimeout": None, "ttl": None, "lowPriority": None}, 600_000, DAY, 0),
        ({"executionTimeout": 60_000.0}, MINUTE, DAY, 0),
        ({"somethingNew": [1]}, 600_000, DAY, 0),
    ],
)
def test_a_policy_sets_time_out_ttl_and_priority(
    acme: Api, policy: object, execution_timeout_ms: int, ttl_ms: int, priority: int
) -> None:
    job = job_row(acme.run(policy=policy))
    assert (job.execution_timeout_ms, job.ttl_ms, job.priority) == (execution_timeout_ms, ttl_ms, priority)
    assert (job.deadline_at - job.created_at).total_seconds() == ttl_ms / 1000


@pytest.mark.parametrize(
    "policy",
    [
        *({name: value} for name in ("executionTimeout", "executiontimeout") for value in (4_999, 7 * DAY + 1)),
        *({"ttl": value} for value in (9_999, 7 * DAY + 1, 0, -1, 10**30, "60000", True, [60_000], {})),
        *({"executionTimeout": value} for value in (0, -5_000, "5000", False, [], {}, 4_999.9)),
        *({"lowPriority": value} for value in (1, 0, "true", [], {})),
        *([], "fast", 5, True),
    ],
    ids=json.dumps,
)
def test_a_policy_out_of_bounds_or_of_another_type_is_refused(acme: Api, policy: object) -> None:
    with nothing_stored():
        check_refusal(acme.post("run", {"input": 1, "policy": policy}), 400, "invalid_policy")


@pytest.mark.parametrize("webhook", ["https://example.com/hook?x=1#y", "http://127.0.0.1:9/hook", "https://[2606::1]/"])
@pytest.mark.parametrize("field", ["webhook", "webhookV2"])
def test_a_webhook_is_kept(acme: Api, field: str, webhook: str) -> None:
    assert job_row(acme.run(**{field: webhook})).payload.webhook == webhook


def test_of_two_webhooks_the_first_that_is_given_counts(acme: Api) -> None:
    first, second = "https://example.com/1", "https://example.com/2"
    assert job_row(acme.run(webhookV2=second, webhook=first)).payload.webhook == first
    assert job_row(acme.run(webhookV2=second, webhook="")).payload.webhook == second
    check_refusal(acme.post("run", {"input": 1, "webhookV2": "https://10.0.0.1/"}), 400, "invalid_webhook")


@pytest.mark.parametrize("webhook", [None, ""])
def test_an_empty_webhook_is_none(acme: Api, webhook: object) -> None:
    assert job_row(acme.run(webhook=webhook)).payload.webhook == ""


@pytest.mark.parametrize(
    "webhook",
    [
        *(5, True, [], {}, "hook", "/hook", "https://", "https:///hook", "example.com/hook", "javascript:alert(1)"),
        *("ftp://example.com/", "http://example.com/", "https://user:password@example.com/", "https://a b.com/"),
        *("https://10.0.0.1/", "https://192.168.1.1/", "https://169.254.169.254/latest", "https://0.0.0.0/"),
        *("https://167772161/", "https://0xa000001/", "https://012.0.0.1/", "https://[::1]/", "https://[fd00::1]/"),
        *("https://[::ffff:10.0.0.1]/", "https://[", "https://example.com:port/", "https://example.com:99999/"),
        *("https://example.com/\0", "https://example.com/\n", "https://example.com/" + "a" * 2048),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_webhook_that_is_no_public_https_url_is_refused(acme: Api, webhook: object) -> None:
    with nothing_stored():
        check_refusal(acme.post("run", {"input": 1, "webhook": webhook}), 400, "invalid_webhook")


@pytest.mark.parametrize("field", ["tobucket", "s3Config"])
def test_a_requests_bucket_is_sealed_and_cut_out_of_the_input(own_acme: Api, field: str) -> None:
    job = own_acme.run({"workflow": WORKFLOW, field: BUCKET, "seed": 7})
    assert orjson.loads(stored_input(job)) == {"workflow": WORKFLOW, "seed": 7}
    assert stored_bucket(job) == BUCKET
    assert SECRET.encode() not in bytes(job_row(job).payload.request_bucket.token)


def test_s3_config_beside_the_input_is_sealed_too(acme: Api) -> None:
    job = acme.run(1, s3Config=BUCKET | {"bucketRegion": "x"})
    assert stored_bucket(job) == BUCKET | {"bucketRegion": "x"}


def test_no_answer_shows_a_requests_secret(own_acme: Api) -> None:
    body = {"input": {"workflow": WORKFLOW, "tobucket": BUCKET}, "s3Config": BUCKET}
    job = own_acme.post("run", body).json()["id"]
    claimed = own_acme.take()
    answers = [own_acme.get(f"status/{job}").text, own_acme.get("requests").text]
    finish(own_acme, claimed, error="boom")
    answers += [own_acme.get(f"status/{job}").text, own_acme.post(f"retry/{job}").text]
    assert not any(SECRET in answer or "AKIA" in answer for answer in answers)


def test_a_secret_is_gone_when_the_job_completes(own_acme: Api) -> None:
    job = own_acme.run({"workflow": WORKFLOW, "tobucket": BUCKET})
    finish(own_acme, own_acme.take(), {"files": []})
    assert own_acme.status(job)["status"] == "COMPLETED"
    assert stored_bucket(job) is None


BAD_BUCKETS = [
    *(5, "renders", [BUCKET], True),
    *({k: v for k, v in BUCKET.items() if k != name} for name in ("accessId", "accessSecret", "endpointUrl")),
    *(BUCKET | {name: value} for name in BUCKET for value in (5, None, "a" * 2049)),
    *(
        BUCKET | {"endpointUrl": url}
        for url in ("http://s3.example.com", "https://10.0.0.1/b", "not a url", "https://[")
    ),
    BUCKET | {"endpointUrl": "https://s3.example.com", "bucketName": ""},
]


@pytest.mark.parametrize("bucket", BAD_BUCKETS, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_bucket_is_refused_and_its_secret_not_repeated(own_acme: Api, bucket: object) -> None:
    with nothing_stored():
        for body in (
            {"input": {"workflow": WORKFLOW}, "s3Config": bucket},
            {"input": {"workflow": WORKFLOW, "tobucket": bucket}},
        ):
            assert SECRET not in check_refusal(own_acme.post("run", body), 400)["error"]


@pytest.mark.parametrize("bucket", [None, {}])
def test_an_empty_bucket_is_none(own_acme: Api, bucket: object) -> None:
    job = own_acme.post("run", {"input": {"workflow": WORKFLOW, "tobucket": bucket}, "s3Config": bucket}).json()["id"]
    assert stored_bucket(job) is None
    assert orjson.loads(stored_input(job)) == {"workflow": WORKFLOW}


@pytest.mark.parametrize("field", ["tobucket", "s3Config", "_hearth"])
def test_dialect_raw_keeps_its_input_whatever_it_holds(acme: Api, field: str) -> None:
    for value in (5, {"mine": True}, None):
        job = acme.run({field: value, "n": 1})
        assert stored_input(job) == json.dumps({field: value, "n": 1}).encode()
        assert stored_bucket(job) is None


def test_a_request_cannot_say_what_is_ours_to_say(own_acme: Api) -> None:
    job = own_acme.run({"workflow": WORKFLOW, "_hearth": {"url": "https://evil.example.com", "token": "x"}})
    assert orjson.loads(stored_input(job)) == {"workflow": WORKFLOW}


def test_deep_json_in_a_bucket_is_kept_as_it_is(own_acme: Api) -> None:
    """As deep as a request may be, which is deeper than what orjson writes."""
    deep = b'{"workflow": %b, "tobucket": %b}' % (
        orjson.dumps(WORKFLOW),
        orjson.dumps(BUCKET)[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}",
    )
    job = own_acme.post("run", b'{"input": ' + deep + b"}").json()["id"]
    assert stored_bucket(job).keys() == {*BUCKET, "x"}


def own_bucket(api: Api) -> Bucket:
    made: Bucket = Bucket.all_tenants.create(
        tenant=api.client.tenant,
        name="own",
        is_default=True,
        endpoint_url="https://s3.example.com",
        s3_bucket="renders",
        access_key_id="AKIA",
        secret_access_key=Sealed.seal(SECRET),
    )
    return made


def job_with_a_file(api: Api) -> str:
    job = api.run({"workflow": WORKFLOW})
    claimed = api.take()
    finish(api, claimed, {"files": []})
    output = {"files": ["k.png"], "assets": [{"id": "1", "key": "k.png", "name": "k.png"}]}
    Payload.objects.filter(job_id=claimed.job).update(output=orjson.dumps(output))
    own = {"tenant": api.client.tenant, "job_id": claimed.job}
    blob = Blob.all_tenants.create(**own, key="k.png", bytes=3, content_type="image/png", state="kept")
    Asset.all_tenants.create(**own, blob=blob, name="k.png")
    return job


def test_files_in_the_tenants_own_bucket_are_signed_when_read(own_acme: Api, globex: Api) -> None:
    bucket = own_bucket(own_acme)
    job = job_with_a_file(own_acme)
    assert job_row(job).bucket_id == bucket.pk
    found = own_acme.status(job)["output"]
    assert found["files"][0].startswith("https://s3.example.com/renders/k.png?X-Amz-")
    assert found["assets"] == [{"id": "1", "name": "k.png", "url": found["files"][0], "preview": None}]
    assert globex.at(own_acme.endpoint).get(f"status/{job}").status_code == 404


def test_a_buckets_new_secret_and_place_sign_at_once(own_acme: Api) -> None:
    """Not only when the URL that was signed with the old one has reached half of its life."""
    bucket, job = own_bucket(own_acme), job_with_a_file(own_acme)

    def url() -> str:
        return str(own_acme.status(job)["output"]["files"][0])

    first = url()
    assert url() == first
    Bucket.all_tenants.filter(pk=bucket.pk).update(secret_access_key=Sealed.seal("another"), access_key_id="AKIB")
    second = url()
    assert "AKIA" in first
    assert "AKIB" in second
    Bucket.all_tenants.filter(pk=bucket.pk).update(secret_access_key=Sealed.seal("a third"))
    assert url() != second
    Bucket.all_tenants.filter(pk=bucket.pk).update(s3_bucket="moved")
    assert url().startswith("https://s3.example.com/moved/k.png?")


def test_a_status_is_told_though_the_secret_of_its_bucket_is_lost(own_acme: Api) -> None:
    bucket, job = own_bucket(own_acme), job_with_a_file(own_acme)
    lost = Fernet(Fernet.generate_key()).encrypt(b"x")
    Bucket.all_tenants.filter(pk=bucket.pk).update(secret_access_key=Sealed(lost))
    found = own_acme.status(job)
    assert (found["status"], found["output"]["files"]) == ("COMPLETED", [None])
    assert found["output"]["assets"][0]["error"] == "The secret of its bucket cannot be read. Ask the operator."


@pytest.mark.parametrize("output", ['["assets"]', '"\\"assets\\""', '{"assets": null}', '{"assets": 5}'])
def test_an_output_that_only_mentions_assets_is_left_alone(own_acme: Api, output: str) -> None:
    job = own_acme.run({"workflow": WORKFLOW})
    own_acme.take()
    own_acme.job_done(job, f'{{"output": {output}}}'.encode())
    assert own_acme.status(job)["output"] == json.loads(output)
