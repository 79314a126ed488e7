"""One contract over all dialects: the worker gets the job in its own words, the client sees one shape. By every way
that a result comes: job-done of a worker here, a webhook from RunPod, its status."""

import base64
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest

from accounts.sealed import Sealed
from jobs.ids import JobId
from jobs.models import Job
from storage import assets
from storage.models import Blob, Bucket
from storage.places import operators_place
from tests.cast import WORKFLOW, Client, new_client, new_place, row
from tests.conftest import Web
from tests.fleet.hooks import asset, file, put
from tests.fleet.wire import WireWorker, call, status
from tests.runpod.cloud import Cloud
from tests.runpod.pushed import Pushed, error, kinds, new_pushed, state

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
CONTENT = base64.b64encode(PNG).decode()
FOREIGN = ["dekita", "worker-comfyui"]
DIALECTS = ["hearth", *FOREIGN]
WAYS = ["job-done", "webhook", "status"]


class Worker:
    """Who runs an endpoint's jobs: here, or at RunPod."""

    def __init__(self, web: Web, cloud: Cloud, dialect: str, way: str) -> None:
        self.web, self.way, self.dialect = web, way, dialect
        if way == "job-done":
            self.client = new_client(new_place(dialect))
            self.here = WireWorker(web.url, self.client.place)
        else:
            self.pushed = new_pushed(cloud, dialect)
            self.client = self.pushed.client

    def runs(self, given: Any, **fields: Any) -> dict[str, Any]:
        """A job that the worker has; as the worker was given it."""
        self.job: JobId = self.client.submit(given, **fields)
        if self.way == "job-done":
            self.given: dict[str, Any] = self.here.take().json
        else:
            assert self.pushed.dispatch() == 1
            self.given = self.pushed.there.asked("run")[-1].json
        return self.given

    def ends(self, **result: Any) -> Any:
        """The worker's answer, as the SDK would send it; the job as its client sees it then."""
        if self.way == "job-done":
            assert self.here.done(self.given["id"], **result).status == 200
        else:
            self.ends_there(**result)
        return status(self.web.url, self.client, self.job)

    def ends_there(self, **result: Any) -> None:
        name = self.pushed.remote(self.job)
        body = self.pushed.there.becomes(name, "FAILED" if "error" in result else "COMPLETED", **result)
        if self.way == "webhook":
            assert call("POST", self.given["webhook"], body).status == 200
        else:
            self.pushed.attends(6)

    def file(self) -> dict[str, Any]:
        """What such a worker answers that made one picture and a text."""
        if self.dialect == "dekita":
            return {"files": [CONTENT], "datas": {"7": {"text": ["hello"]}}}
        if self.dialect == "worker-comfyui":
            return {"images": [{"filename": "a_00001_.png", "type": "base64", "data": CONTENT}]}
        hooks = f"{self.web.url}/hooks/worker/{self.given['input']['_hearth']['token']}"
        assert call("POST", f"{hooks}/started").status == 200
        wanted = orjson.dumps({"files": [file("a_00001_.png", PNG)]})
        (slot,) = call("POST", f"{hooks}/uploads", wanted).json["uploads"]
        assert put(slot, PNG).status == 200
        told = asset(file("a_00001_.png", PNG), slot)
        return {"files": [slot["key"]], "assets": [told], "datas": {"7": {"text": ["hello"]}}}


Makes = Callable[..., Worker]


@pytest.fixture
def makes(web: Web, cloud: Cloud) -> Makes:
    return lambda dialect, way="job-done": Worker(web, cloud, dialect, way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_file_comes_home_in_one_shape(makes: Makes, dialect: str, way: str) -> None:
    worker = makes(dialect, way)
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output=worker.file())
    assert ended["status"] == "COMPLETED"
    output = ended["output"]
    assert {*output} == {"files", "assets", "datas"}
    assert call("GET", output["files"][0]).body == PNG
    (told,) = output["assets"]
    blob = Blob.all_tenants.get(job_id=worker.job.uuid)
    assert told["url"] == output["files"][0]
    assert (told["kind"], told["content_type"], told["bytes"]) == ("image", "image/png", len(PNG))
    assert (told["id"], told["sha256"]) == (str(blob.pk), blob.sha256)
    assert told["name"] == ("file.png" if dialect == "dekita" else "a_00001_.png")
    assert output["datas"] == ({} if dialect == "worker-comfyui" else {"7": {"text": ["hello"]}})
    assert blob.state == "kept"
    assert kinds(worker.job)[-1] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_failure_comes_home_in_one_shape(makes: Makes, dialect: str, way: str) -> None:
    worker = makes(dialect, way)
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(error="boom", output={})
    assert (ended["status"], ended["error"], ended["output"]["error"]) == ("FAILED", "boom", "boom")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_workflow_is_needed(makes: Makes, dialect: str) -> None:
    worker = makes(dialect)
    answer = call(
        "POST", f"{worker.web.url}/v2/{worker.client.place.name}/run", b'{"input": {}}', worker.client.headers
    )
    assert (answer.status, answer.json["code"]) == (400, "invalid_workflow")


@pytest.mark.parametrize("way", WAYS)
def test_raw_passes_as_it_is_both_ways(makes: Makes, way: str) -> None:
    worker = makes("raw", way)
    assert worker.runs({"images": [1], "tobucket": "x"})["input"] == {"images": [1], "tobucket": "x"}
    output = {"images": [{"filename": "a.png", "type": "base64", "data": CONTENT}], "errors": ["e"]}
    assert worker.ends(output=output)["output"] == output
    assert not Blob.all_tenants.filter(job_id=worker.job.uuid).exists()


@pytest.mark.parametrize("dialect", FOREIGN)
def test_another_tenant_sees_nothing_of_it(makes: Makes, dialect: str) -> None:
    worker = makes(dialect)
    worker.runs({"workflow": WORKFLOW})
    worker.ends(output=worker.file())
    globex: Client = new_client(worker.client.place, "globex")
    path = f"{worker.web.url}/v2/{globex.place.name}/status/{worker.job.uuid}-u1"
    assert call("GET", path, headers=globex.headers).status == 404
    assert Blob.all_tenants.get(job_id=worker.job.uuid).tenant_id == worker.client.tenant.pk


# what each worker is given


@pytest.mark.parametrize("way", ["job-done", "webhook"])
@pytest.mark.parametrize("files", [{"files": {"in.png": CONTENT}}, {"images": [{"name": "in.png", "image": CONTENT}]}])
def test_worker_comfyui_gets_files_as_images(makes: Makes, way: str, files: Any) -> None:
    given = makes("worker-comfyui", way).runs(
        {"workflow": WORKFLOW, "tobase64": True, "api_key_comfy_org": "k", **files}
    )
    assert given["input"] == {
        "workflow": WORKFLOW,
        "api_key_comfy_org": "k",
        "images": [{"name": "in.png", "image": CONTENT}],
    }


def test_worker_comfyui_gets_a_workflow_as_an_object_where_the_client_sent_text(makes: Makes) -> None:
    given = makes("worker-comfyui").runs({"workflow": orjson.dumps(WORKFLOW).decode()})
    assert given["input"] == {"workflow": WORKFLOW}


def uploaded(client: Client) -> str:
    sha256 = hashlib.sha256(PNG).hexdigest()
    new = assets.New(name="seed.png", content_type="image/png", bytes=len(PNG), sha256=sha256)
    return f"asset:{assets.put(client.tenant.pk, new, io.BytesIO(PNG)).pk}"


def by_url(ref: str, **more: Any) -> dict[str, Any]:
    """A workflow with a node that takes a URL."""
    return WORKFLOW | {"9": {"class_type": "LoadImageFromUrl", "inputs": {"url": ref, "many": [ref], **more}}}


@pytest.mark.parametrize("way", ["job-done", "webhook"])
@pytest.mark.parametrize("dialect", FOREIGN)
@pytest.mark.parametrize("as_text", [False, True])
def test_an_asset_is_a_url_where_a_node_takes_one(makes: Makes, dialect: str, way: str, as_text: bool) -> None:
    worker = makes(dialect, way)
    ref = uploaded(worker.client)
    workflow = by_url(ref, text=f"see {ref}", seed=2**64 - 1)
    given = worker.runs({"workflow": json.dumps(workflow) if as_text else workflow})["input"]["workflow"]
    inputs = given.pop("9")["inputs"]
    assert given == WORKFLOW
    url = inputs["url"]
    assert call("GET", url).body == PNG
    assert inputs == {"url": url, "many": [url], "text": f"see {ref}", "seed": 2**64 - 1}
    assert ref.encode() in bytes(row(worker.job).payload.input)


@pytest.mark.parametrize("way", ["job-done", "webhook"])
def test_an_asset_is_a_url_wherever_it_stands_in_the_input_of_a_raw_endpoint(makes: Makes, way: str) -> None:
    worker = makes("raw", way)
    ref = uploaded(worker.client)
    given = worker.runs({"picture": ref, "deep": [{"a": [ref]}], ref: "a name", "text": f"see {ref}", "n": 1.50})
    url = given["input"]["picture"]
    assert call("GET", url).body == PNG
    assert given["input"] == {"picture": url, "deep": [{"a": [url]}], ref: "a name", "text": f"see {ref}", "n": 1.5}
    assert call("GET", worker.runs(ref)["input"]).body == PNG


@pytest.mark.parametrize("dialect", [*FOREIGN, "raw"])
def test_an_asset_that_a_job_needs_is_there_though_it_was_deleted(makes: Makes, dialect: str) -> None:
    worker = makes(dialect)
    ref = uploaded(worker.client)
    worker.job = worker.client.submit({"workflow": by_url(ref)})
    assets.delete(worker.client.tenant.pk, UUID(ref.removeprefix("asset:")))
    given = worker.here.take().json["input"]["workflow"]
    assert call("GET", given["9"]["inputs"]["url"]).body == PNG


def refused(worker: Worker, given: Any) -> str:
    url = f"{worker.web.url}/v2/{worker.client.place.name}/run"
    answer = call("POST", url, orjson.dumps({"input": given}), worker.client.headers)
    assert (answer.status, answer.json["code"]) == (400, "invalid_input"), answer
    assert not Job.all_tenants.filter(tenant=worker.client.tenant).exists()
    return str(answer.json["error"])


LOADS = {"1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}}}
WHERE_FILES_ARE: dict[str, tuple[Callable[[str], Any], str]] = {
    "files": (lambda ref: {"workflow": LOADS, "files": {"in.png": ref}}, "`input.files`, 'in.png'"),
    "images": (
        lambda ref: {"workflow": LOADS, "images": [{"name": "in.png", "image": ref}]},
        "`input.images`, 'in.png'",
    ),
    "loaded": (
        lambda ref: {"workflow": by_url(ref) | {"1": {"class_type": "LoadImage", "inputs": {"image": ref}}}},
        "Node 1 (LoadImage), input 'image'",
    ),
}


@pytest.mark.parametrize("dialect", FOREIGN)
@pytest.mark.parametrize("place", WHERE_FILES_ARE)
def test_a_file_that_a_foreign_worker_does_not_fetch_is_refused_by_name(makes: Makes, dialect: str, place: str) -> None:
    worker = makes(dialect)
    given, named = WHERE_FILES_ARE[place]
    for ref in (uploaded(worker.client), "s3://renders/in.png"):
        said = refused(worker, given(ref))
        assert said.startswith(f"{named}: {ref!r} would have to be fetched, which this endpoint's worker ({dialect})")


@pytest.mark.parametrize("dialect", [*DIALECTS, "raw"])
def test_an_asset_of_globex_is_refused_by_name(makes: Makes, dialect: str) -> None:
    worker = makes(dialect)
    ref = uploaded(new_client(worker.client.place, "globex"))
    where = "`input.workflow.9.inputs.url`" if dialect == "raw" else "Node 9 (LoadImageFromUrl), input 'url'"
    said = refused(worker, {"workflow": WORKFLOW | {"9": {"class_type": "LoadImageFromUrl", "inputs": {"url": ref}}}})
    assert said == f"{where}: {ref!r} is not uploaded yet, or not an asset of yours."


@pytest.mark.parametrize("dialect", [*FOREIGN, "raw"])
def test_text_that_is_no_asset_stays(makes: Makes, dialect: str) -> None:
    workflow = by_url("s3://renders/in.png", asset="asset:", more="asset:7", link="https://example.com/a.png")
    assert makes(dialect).runs({"workflow": workflow})["input"]["workflow"] == workflow


BUCKET = {
    "accessId": "A",
    "accessSecret": "S",
    "bucketName": "folder",
    "endpointUrl": "https://b.s3.eu-west-1.amazonaws.com",
}


@pytest.mark.parametrize("way", ["job-done", "webhook"])
def test_dekita_gets_the_bucket_that_its_request_names(makes: Makes, way: str) -> None:
    given = makes("dekita", way).runs({"workflow": WORKFLOW, "tobucket": BUCKET})
    assert given["input"] == {"workflow": WORKFLOW, "tobucket": BUCKET}
    assert given["s3Config"] == BUCKET


def bucket(client: Client, **fields: Any) -> Bucket:
    place = operators_place(public=False)
    made: Bucket = Bucket.all_tenants.create(
        tenant=client.tenant,
        name="own",
        is_default=True,
        **{
            "secret_access_key": Sealed.seal(place.secret_access_key),
            "endpoint_url": place.endpoint_url,
            "s3_bucket": place.s3_bucket,
            "access_key_id": place.access_key_id,
            "prefix": "renders",
        }
        | fields,
    )
    return made


@pytest.mark.parametrize("way", ["job-done", "webhook"])
def test_dekita_gets_a_tenants_bucket_only_where_that_bucket_allows_it(makes: Makes, way: str) -> None:
    worker = makes("dekita", way)
    own = bucket(worker.client)
    assert worker.runs({"workflow": WORKFLOW})["input"] == {"workflow": WORKFLOW, "tobase64": True}
    worker.ends(output=worker.file())
    own.allow_secret_in_job = True
    own.save()
    given = worker.runs({"workflow": WORKFLOW})
    assert given["input"]["tobucket"] == given["s3Config"]
    assert given["s3Config"]["accessSecret"] == own.secret_access_key.unseal()
    assert given["s3Config"]["endpointUrl"] == f"{own.endpoint_url}/{own.s3_bucket}"
    assert given["s3Config"]["bucketName"] == f"renders/{worker.client.tenant.pk}/{worker.job.uuid}"
    assert "tobase64" not in given["input"]


@pytest.mark.parametrize("dialect", ["hearth", "worker-comfyui"])
def test_no_other_dialect_gets_a_buckets_secret(makes: Makes, dialect: str) -> None:
    worker = makes(dialect)
    own = bucket(worker.client, allow_secret_in_job=True)
    assert own.secret_access_key.unseal() not in orjson.dumps(worker.runs({"workflow": WORKFLOW})).decode()


# what each worker answers


def test_files_that_came_inside_are_put_into_the_tenants_bucket(makes: Makes) -> None:
    worker = makes("worker-comfyui", "webhook")
    own = bucket(worker.client)
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output=worker.file())
    assert "/renders/" in ended["output"]["files"][0]
    blob = Blob.all_tenants.get(job_id=worker.job.uuid)
    assert (blob.bucket_id, blob.bytes) == (own.pk, len(PNG))


def test_urls_of_the_workers_own_bucket_stay_as_they_are(makes: Makes) -> None:
    url = "https://b.s3.amazonaws.com/x/a.png?X-Amz-Signature=1"
    for dialect, output in (
        ("dekita", {"files": [url], "datas": {}}),
        ("worker-comfyui", {"images": [{"filename": "a.png", "type": "s3_url", "data": url}]}),
    ):
        worker = makes(dialect)
        worker.runs({"workflow": WORKFLOW})
        ended = worker.ends(output=output)["output"]
        assert (ended["files"], ended["assets"][0]["name"], ended["assets"][0]["url"]) == ([url], "a.png", url)


def test_an_error_that_dekita_returns_as_a_bare_string_fails_the_job(makes: Makes) -> None:
    worker = makes("dekita")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output="Error queuing workflow: HTTP Error 400")
    assert (ended["status"], ended["error"]) == ("FAILED", "Error queuing workflow: HTTP Error 400")
    assert (ended["output"]["code"], ended["output"]["files"]) == ("worker_failed", [])


def test_a_path_on_dekitas_own_disk_is_no_file(makes: Makes) -> None:
    worker = makes("dekita")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output={"files": ["/comfyui/output/a.png"], "datas": {}})
    assert ended["status"] == "FAILED"
    assert "'/comfyui/output/a.png'" in ended["error"]


def test_errors_of_worker_comfyui_beside_pictures_fail_the_job_and_keep_them(makes: Makes) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output=worker.file() | {"errors": ["Workflow execution error: Node Type: KSampler"]})
    assert (ended["status"], ended["error"]) == ("FAILED", "Workflow execution error: Node Type: KSampler")
    assert call("GET", ended["output"]["files"][0]).body == PNG


def test_the_details_of_a_failure_of_worker_comfyui_are_told(makes: Makes) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(error="Job processing failed", output={"details": ["node 3 failed"]})
    assert ended["error"] == "Job processing failed; node 3 failed"


def test_a_workflow_without_pictures_is_a_success(makes: Makes) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output={"status": "success_no_images", "images": []})
    assert (ended["status"], ended["output"]) == ("COMPLETED", {"files": [], "assets": [], "datas": {}})


def test_what_is_not_known_of_an_answer_stays(makes: Makes) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    assert worker.ends(output={"images": [], "seed": 7})["output"]["seed"] == 7


@pytest.mark.parametrize("data", ["not base64!", "", None, 5, ["x"], {"a": 1}])
def test_what_is_no_file_fails_the_job_by_name(makes: Makes, data: Any) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output={"images": [{"filename": "a.png", "type": "base64", "data": data}]})
    assert ended["status"] == "FAILED"
    assert ended["error"].startswith("a.png came neither")


@pytest.mark.parametrize("output", [5, [1], {"files": "x", "datas": 3}, {"images": [5, {}], "errors": {"a": 1}}])
@pytest.mark.parametrize("dialect", FOREIGN)
def test_odd_answers_end_the_job(makes: Makes, dialect: str, output: Any) -> None:
    worker = makes(dialect)
    worker.runs({"workflow": WORKFLOW})
    assert worker.ends(output=output)["status"] in ("COMPLETED", "FAILED")


def test_odd_names_of_files_are_mended(makes: Makes) -> None:
    worker = makes("worker-comfyui")
    worker.runs({"workflow": WORKFLOW})
    image = {"filename": "../x\ud800\x00" + "a" * 400 + ".png", "type": "base64", "data": CONTENT}
    body = b'{"output": %b}' % orjson.dumps({"images": []}).replace(b"[]", b"[%b]" % json.dumps(image).encode())
    assert worker.here.post(worker.given["id"], body).status == 200
    (told,) = status(worker.web.url, worker.client, worker.job)["output"]["assets"]
    assert len(told["name"]) <= 300
    assert told["name"].isprintable()


# S3 that is away


def test_while_s3_is_away_runpod_keeps_the_result_and_is_asked_again(makes: Makes) -> None:
    worker = makes("worker-comfyui", "status")
    own = bucket(worker.client, endpoint_url="http://127.0.0.1:9")
    worker.runs({"workflow": WORKFLOW})
    worker.ends_there(output=worker.file())
    assert state(worker.job) == "IN_PROGRESS"
    Bucket.all_tenants.filter(pk=own.pk).update(endpoint_url=operators_place(public=False).endpoint_url)
    worker.pushed.attends(60)
    assert (state(worker.job), kinds(worker.job)[-1]) == ("COMPLETED", "completed")


def test_while_s3_is_away_a_webhook_is_told_to_come_again(makes: Makes) -> None:
    worker = makes("worker-comfyui", "webhook")
    bucket(worker.client, endpoint_url="http://127.0.0.1:9")
    worker.runs({"workflow": WORKFLOW})
    body = worker.pushed.there.becomes(worker.pushed.remote(worker.job), "COMPLETED", output=worker.file())
    answer = call("POST", worker.given["webhook"], body)
    assert (answer.status, answer.json["code"]) == (503, "s3_away")
    assert state(worker.job) == "IN_PROGRESS"


@pytest.mark.parametrize("way", WAYS)
def test_an_s3_that_refuses_fails_the_job_and_says_why(makes: Makes, way: str) -> None:
    worker = makes("worker-comfyui", way)
    bucket(worker.client, s3_bucket="nothing-here", secret_access_key=Sealed.seal("wrong"))
    worker.runs({"workflow": WORKFLOW})
    ended = worker.ends(output=worker.file())
    assert (ended["status"], ended["output"]["code"], ended["output"]["files"]) == ("FAILED", "upload_failed", [])
    assert "a_00001_.png could not be stored: S3 answered 403" in error(worker.job)


def test_a_result_that_comes_twice_is_stored_for_one_end(makes: Makes) -> None:
    worker = makes("worker-comfyui", "webhook")
    worker.runs({"workflow": WORKFLOW})
    worker.ends(output=worker.file())
    worker.ends(output=worker.file())
    assert kinds(worker.job).count("completed") == 1
    assert Blob.all_tenants.filter(job_id=worker.job.uuid, state="kept").count() == 1
    assert isinstance(worker.pushed, Pushed)
