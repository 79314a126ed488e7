"""Files that a job's input names: found when it is made, held while it may run, signed when it is handed over."""

import asyncio
import base64
import os
import socket
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from django.conf import settings

from accounts import sql
from accounts.sealed import Sealed
from jobs.uploads import release_holds
from jobs.wire import moving
from jobs.wire.answers import json_app
from jobs.wire.runpod import ROUTES
from storage.models import Asset, Blob, Bucket, Hold
from storage.places import client, operators_place
from tests.api.v1 import V1
from tests.cast import Place, kinds, new_client, unique
from tests.fleet.wire import WireWorker
from tests.wire.api import Api, check_refusal, finish, job_of, job_row, nothing_stored

WORKFLOW = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}


@pytest.fixture
def acme(http: httpx.Client, own_place: Place) -> Api:
    """At an endpoint of dialect hearth."""
    return Api.of(http, new_client(own_place, "acme"))


@pytest.fixture
def globex(http: httpx.Client, own_place: Place) -> Api:
    return Api.of(http, new_client(own_place, "globex"))


def v1(api: Api) -> V1:
    return V1.of(api.http, api.client)


def upload(api: Api, content: bytes = b"abc", **params: Any) -> str:
    return f"asset:{v1(api).upload(content, **params)['id']}"


def files(*refs: Any) -> dict[str, Any]:
    return {"workflow": WORKFLOW, "files": {f"{number}.png": ref for number, ref in enumerate(refs)}}


def load(ref: str) -> dict[str, Any]:
    return {"workflow": {"1": {"class_type": "LoadImage", "inputs": {"image": ref}}}}


def handed(api: Api, worker: str = "w1") -> dict[str, Any]:
    """The next job's input, as a worker gets it that holds none."""
    given: dict[str, Any] = WireWorker(str(api.http.base_url).rstrip("/"), api.place, worker).take().json["input"]
    return given


def refusal(api: Api, given: dict[str, Any], code: str = "invalid_input") -> str:
    with nothing_stored():
        return str(check_refusal(api.post("run", {"input": given}), 400, code)["error"])


def new_bucket(api: Api, s3_bucket: str, prefix: str = "", **fields: Any) -> Bucket:
    place = operators_place(public=False)
    bucket: Bucket = Bucket.all_tenants.create(
        tenant=api.client.tenant,
        name=unique("b"),
        endpoint_url=place.endpoint_url,
        s3_bucket=s3_bucket,
        prefix=prefix,
        access_key_id=place.access_key_id,
        secret_access_key=Sealed.seal(place.secret_access_key),
        **fields,
    )
    return bucket


def test_an_asset_goes_to_the_worker_as_a_signed_url_and_stays_an_asset_in_the_payload(acme: Api) -> None:
    ref = upload(acme, b"picture", name="seed.png")
    job = acme.run(files(ref) | load(ref))
    assert ref.encode() in bytes(job_row(job).payload.input)
    assert b"Signature" not in bytes(job_row(job).payload.inputs)
    given = handed(acme)
    source = given["_hearth"]["inputs"][ref]
    assert httpx.get(source["url"]).content == b"picture"
    assert (source["trusted"], source["name"], source["bytes"]) == (True, "seed.png", 7)
    assert given["files"] == {"0.png": ref}


def test_an_output_of_one_job_is_an_input_of_another(acme: Api) -> None:
    acme.run({"workflow": WORKFLOW})
    claimed = acme.take()
    where = {"tenant": acme.client.tenant, "job_id": claimed.job}
    place = operators_place(public=False)
    client(place).put_object(Bucket=place.s3_bucket, Key=(key := unique("out")), Body=b"made")
    blob = Blob.all_tenants.create(**where, attempt=1, key=key, bytes=4, content_type="image/png", state="kept")
    asset = Asset.all_tenants.create(**where, id=blob.pk, blob=blob, name="out.png")
    finish(acme, claimed, {"files": []})
    acme.run(load(f"asset:{asset.pk}"))
    assert httpx.get(handed(acme)["_hearth"]["inputs"][f"asset:{asset.pk}"]["url"]).content == b"made"


def test_an_asset_that_a_job_needs_outlives_its_deletion_until_the_job_has_ended(acme: Api) -> None:
    ref = upload(acme)
    job = acme.run(load(ref))
    v1(acme).call("DELETE", f"assets/{ref.removeprefix('asset:')}")
    assert "was deleted at" in refusal(acme, load(ref))
    release_holds(1000)
    assert httpx.get(handed(acme)["_hearth"]["inputs"][ref]["url"]).content == b"abc"
    acme.job_done(job, b'{"output": {"files": []}}')
    release_holds(1000)
    assert not Hold.objects.filter(job_id=job_of(job).uuid).exists()
    assert Blob.objects.of(acme.client.tenant).get().state == "dying"


def test_a_failed_job_holds_its_inputs_for_a_day_and_cannot_be_retried_after_it(acme: Api) -> None:
    ref = upload(acme)
    job = acme.run(load(ref))
    acme.take()
    acme.job_done(job, b'{"error": "boom"}')
    release_holds(1000)
    assert acme.post(f"retry/{job}").status_code == 200
    acme.take()
    acme.job_done(f"{job}-a2", b'{"error": "boom"}')
    sql.run("UPDATE jobs_job SET finished_at = finished_at - interval '25 hours' WHERE id = %s", [job_of(job).uuid])
    release_holds(1000)
    assert "input files" in check_refusal(acme.post(f"retry/{job}"), 409, "not_retryable")["error"]


@pytest.mark.parametrize("given", [files, load], ids=["files", "workflow"])
def test_globex_cannot_use_acmes_assets(acme: Api, globex: Api, given: Any) -> None:
    ref = upload(acme)
    assert "not an asset of yours" in (said := refusal(globex, given(ref)))
    assert ref in said
    assert "0.png" in said or "Node 1 (LoadImage), input 'image'" in said
    assert acme.run(given(ref))


def test_unknown_expired_and_unfinished_assets_are_named(acme: Api) -> None:
    assert "not an asset of yours" in refusal(acme, files(f"asset:{uuid4()}"))
    ref = upload(acme, expires_in_s=60)
    sql.run("UPDATE storage_asset SET expires_at = clock_timestamp() WHERE id = %s", [ref.removeprefix("asset:")])
    assert "expired at" in refusal(acme, files(ref))
    about = {"name": "a", "bytes": 3, "sha256": "0" * 64}
    pending = v1(acme).call("POST", "assets", json=about).json()["id"]
    assert "not uploaded yet" in refusal(acme, load(f"asset:{pending}"))


def test_an_object_of_ones_own_bucket_goes_to_the_worker_as_a_signed_url(acme: Api) -> None:
    name = unique("theirs")
    bucket = new_bucket(acme, name, "in/put")
    s3 = client(operators_place(public=False))
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="in/put/ü b.png", Body=b"theirs")
    ref = f"s3://{name}/in/put/ü b.png"
    acme.run(files(ref))
    source = handed(acme)["_hearth"]["inputs"][ref]
    assert (source["trusted"], httpx.get(source["url"]).content) == (False, b"theirs")
    acme.run(files(ref))
    bucket.delete()
    assert handed(acme, "w2")["_hearth"]["inputs"][ref]["fault"] == "its bucket was deleted"


def test_other_buckets_and_prefixes_are_refused(acme: Api, globex: Api) -> None:
    name = unique("theirs")
    new_bucket(acme, name, "mine")
    operators = operators_place().s3_bucket
    for api, ref in (
        (globex, f"s3://{name}/mine/a.png"),
        (acme, f"s3://{name}/other/a.png"),
        (acme, f"s3://{name}/mineother/a.png"),
        (acme, f"s3://{name}/mine/../other/a.png"),
        (acme, f"s3://{operators}/{globex.client.tenant.pk}/a.png"),
    ):
        assert "is in no bucket of yours" in (said := refusal(api, files(ref)))
        assert ref in said


def test_what_is_no_reference_is_refused_and_base64_is_not_mistaken_for_one(acme: Api) -> None:
    for wrong in ("asset:1", "s3://b", "ftp://host/x", "https://", "file:///etc/passwd"):
        assert "is no asset:<id>" in refusal(acme, files(wrong), "invalid_workflow")
    assert acme.run(files("YWJj", "data:image/png;base64,YWJj", "https://example.com/a.png"))


@pytest.mark.parametrize("url", ["http://example.com/a.png", "https://10.0.0.1/a", "https://u:p@example.com/a"])
def test_urls_that_the_guard_refuses_are_refused_at_once(acme: Api, url: str) -> None:
    refusal(acme, files(url), "invalid_workflow")


def test_text_is_left_alone(acme: Api) -> None:
    """s3:// and URLs mean a file only where the catalogue says so; without one they are found only if they are ours."""
    texts = {"text": "s3://nobody/x", "url": "http://10.0.0.1/x", "more": f"see asset:{uuid4()}"}
    acme.run({"workflow": {"1": {"class_type": "CLIPTextEncode", "inputs": texts}}})
    assert "inputs" not in handed(acme)["_hearth"]


def test_raw_endpoints_leave_all_but_assets_alone(http: httpx.Client, place: Place) -> None:
    raw = Api.of(http, new_client(place))
    given = files("s3://nobody/x", "http://10.0.0.1/x", base64.b64encode(os.urandom(400_000)).decode())
    job = raw.run(given)
    assert job_row(job).payload.inputs is None
    assert orjson.loads(bytes(job_row(job).payload.input)) == given
    assert not Asset.objects.of(raw.client.tenant).exists()


def test_too_many_files_are_refused(acme: Api, http: httpx.Client, place: Place) -> None:
    many = files(*(f"asset:{uuid4()}" for _ in range(101)))
    assert "at most 100" in refusal(acme, many, "invalid_workflow")
    assert "at most 100" in refusal(Api.of(http, new_client(place)), many)


def big(size: int = 300_000) -> tuple[bytes, str]:
    content = os.urandom(size)
    return content, base64.b64encode(content).decode()


def test_large_base64_moves_to_s3_as_assets_of_the_job(acme: Api) -> None:
    first, second = big(), big(100_000)
    given = files(first[1]) | {"images": [{"name": "b.png", "image": f"data:image/png;base64,{second[1]}"}]}
    given["images"].append({"name": "small.png", "image": "YWJj"})
    job = acme.run(given)
    payload = job_row(job).payload
    assert (len(bytes(payload.input)) < 1000, payload.moved_bytes) == (True, 400_000)
    listed = v1(acme).get("assets", job=job, source="input")["results"]
    assert {asset["name"] for asset in listed} == {"0.png", "b.png"}
    sent = handed(acme)
    refs = (sent["files"]["0.png"], sent["images"][0]["image"])
    assert sent["images"][1] == {"name": "small.png", "image": "YWJj"}
    for ref, (content, _) in zip(refs, (first, second), strict=True):
        assert httpx.get(sent["_hearth"]["inputs"][ref]["url"]).content == content


def test_the_same_base64_is_stored_once_and_a_replay_stores_nothing(acme: Api) -> None:
    _, text = big()
    jobs = [acme.run(files(text, text)) for _ in range(2)]
    once = acme.once(unique("key"))
    made = [once.run(files(text)) for _ in range(2)]
    assert made[0] == made[1]
    assert Blob.objects.of(acme.client.tenant).filter(state="kept").count() == 1
    assert Asset.objects.of(acme.client.tenant).filter(job_id=job_of(made[0]).uuid).count() == 1
    assert Hold.objects.filter(job_id__in=[job_of(job).uuid for job in (*jobs, made[0])]).count() == 3


def test_its_bytes_are_in_the_usage(acme: Api) -> None:
    job = acme.run(files(big(400_000)[1]))
    acme.take()
    acme.job_done(job, b'{"output": {"files": []}}')
    (bytes_in,) = sql.one("SELECT bytes_in FROM jobs_usage WHERE tenant_id = %s", [acme.client.tenant.pk])
    assert 400_000 < bytes_in < 401_000


def test_base64_stays_where_there_is_no_room_or_the_request_is_wrong(acme: Api) -> None:
    acme.client.tenant.max_stored_bytes = 1000
    acme.client.tenant.save()
    job = acme.run(files(big()[1]))
    assert len(bytes(job_row(job).payload.input)) > 400_000
    assert kinds(job_of(job)) == ["created"]
    refusal(acme, {"files": {"a.png": big()[1]}}, "invalid_workflow")
    assert not Blob.objects.of(acme.client.tenant).exists()


async def move(api: Api, text: str) -> Any:
    import orjson

    from jobs.limits import caller
    from jobs.wire.bodies import parse_request
    from jobs.wire.call import verb
    from jobs.wire.submission import parse_submission

    submission = parse_submission(parse_request(orjson.dumps({"input": files(text)})), sync=False)
    who = await verb(caller, api.client.key, api.endpoint, "run")
    return submission, await moving.without_bytes(who, submission)


def test_base64_stays_while_s3_is_away_and_s3_is_not_asked_again_for_a_while(
    acme: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ConnectTimeoutError

    tries: list[Any] = []

    def away(upload: Any) -> None:
        tries.append(upload)
        raise ConnectTimeoutError(endpoint_url="http://s3")

    monkeypatch.setattr(moving, "_put", away)
    monkeypatch.setattr(moving, "_away_until", 0.0)
    for _ in range(2):
        before, after = asyncio.run(move(acme, big()[1]))
        assert after is before
    assert len(tries) == 1


@pytest.fixture
def hanging_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operator's S3 takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(settings, "S3_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(moving, "_away_until", 0.0)
        yield


async def run_here(api: Api, given: dict[str, Any]) -> httpx.Response:
    """As web answers it, in this process."""
    transport = httpx.ASGITransport(json_app([*ROUTES]))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as web, asyncio.timeout(20):
        headers = {"Authorization": api.authorization}
        return await web.post(f"/{api.endpoint}/run", json={"input": given}, headers=headers)


def test_a_run_with_large_base64_does_not_wait_for_an_s3_that_hangs(acme: Api, hanging_s3: None) -> None:
    """RunPod's JS SDK gives `run` up after 3 s."""
    assert moving.MOVE_S <= 2
    answered = asyncio.run(run_here(acme, files(big()[1])))
    assert answered.status_code == 200, answered.text
    assert len(bytes(job_row(answered.json()["id"]).payload.input)) > 400_000
