"""The main job: from RunPod's own SDK through Hearth to a ComfyUI worker, and its picture back from S3."""

import asyncio
import base64
import hashlib
import io
import json
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from PIL import Image

from tests import media
from tests.e2e.instance import Instance, TenantClient, download, example, slow
from tests.standin.pictures import tone


@pytest.fixture(scope="module")
def acme(up: Instance) -> TenantClient:
    return up.tenant("acme")


@pytest.fixture
def sdk(acme: TenantClient) -> Iterator[Any]:
    """The real `runpod` client with only its base URL changed."""
    import runpod

    before = runpod.endpoint_url_base
    runpod.endpoint_url_base = f"{acme.url}/v2"
    yield runpod
    runpod.endpoint_url_base = before


def png(name: str, width: int = 12, height: int = 10) -> dict[str, str]:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(out, "PNG")
    return {"name": name, "image": base64.b64encode(out.getvalue()).decode()}


def pictures(output: dict[str, Any]) -> list[Image.Image]:
    bodies = [download(url) for url in output["files"]]
    assert [hashlib.sha256(body).hexdigest() for body in bodies] == [asset["sha256"] for asset in output["assets"]]
    return [Image.open(io.BytesIO(body)) for body in bodies]


def test_run_sync_of_the_sdk_brings_the_picture_back(sdk: Any, acme: TenantClient) -> None:
    output = sdk.Endpoint(acme.endpoint, acme.api_key).run_sync({"input": {"workflow": example("img_chain")}})
    (picture,) = pictures(output)
    assert (picture.format, picture.size) == ("PNG", (128, 96))
    assert output["assets"][0]["node"] == "5"


def test_run_and_output_of_the_sdk(sdk: Any, acme: TenantClient) -> None:
    job = sdk.Endpoint(acme.endpoint, acme.api_key).run({"workflow": example("batch")})
    output = job.output(timeout=30)
    assert [picture.size for picture in pictures(output)] == [(32, 32)] * 3
    assert job.status() == "COMPLETED"


def test_the_asyncio_sdk(sdk: Any, acme: TenantClient) -> None:
    from runpod.http_client import AsyncClientSession

    async def main() -> tuple[str, Any]:
        sdk.api_key = acme.api_key
        async with AsyncClientSession() as session:
            job = await sdk.AsyncioEndpoint(acme.endpoint, session).run({"workflow": example("img_chain")})
            output = await job.output(timeout=30)
            return await job.status(), output

    status, output = asyncio.run(main())
    assert status == "COMPLETED"
    assert len(pictures(output)) == 1


def test_images_of_the_request_are_loaded_by_the_workflow(acme: TenantClient) -> None:
    given = {"workflow": example("load_image"), "images": [png("up.png")]}
    found = acme.call("POST", "runsync", {"input": given})
    assert found["status"] == "COMPLETED", found
    (picture,) = pictures(found["output"])
    assert picture.size == (48, 40)


def test_text_outputs_are_datas(acme: TenantClient) -> None:
    found = acme.call("POST", "runsync", {"input": {"workflow": example("text_preview")}})
    assert found["output"]["datas"]["2"]["text"] == ["hello world"]


def outputs(acme: TenantClient, name: str, files: dict[str, str] | None = None) -> list[tuple[dict[str, Any], bytes]]:
    """Each asset of an example's job, with the bytes that its URL gives."""
    found = acme.call("POST", "runsync", {"input": {"workflow": example(name), "files": files or {}}}, timeout=60)
    assert found["status"] == "COMPLETED", found
    assets, urls = found["output"]["assets"], found["output"]["files"]
    return [(asset, download(url)) for asset, url in zip(assets, urls, strict=True)]


def test_sound_comes_back_from_s3_as_it_was_made(acme: TenantClient) -> None:
    files = {"tone.wav": base64.b64encode(tone(0.5, 16000)).decode()}
    [(asset, content)] = outputs(acme, "audio_load", files)
    heard = media.sound(content)
    assert (asset["kind"], asset["content_type"], asset["subfolder"]) == ("audio", "audio/flac", "rec")
    assert (heard.codec, heard.rate, heard.channels, heard.seconds) == ("flac", 16000, 1, 0.5)
    assert media.sound(outputs(acme, "audio_mp3")[0][1]).rate == 44100


@pytest.mark.parametrize(("name", "codec"), [("video_audio_mp4", "h264"), ("webm", "vp9")])
def test_films_come_back_from_s3_as_they_were_made(acme: TenantClient, name: str, codec: str) -> None:
    [(asset, content)] = outputs(acme, name)
    seen = media.film(content)
    assert (seen.codec, seen.size, seen.frames, seen.fps) == (codec, (64, 64), 8, 8)
    assert (seen.sound is not None) == (name == "video_audio_mp4")
    assert (asset["kind"], asset["bytes"]) == ("video", len(content))


def test_latents_and_moving_pictures_come_back_from_s3(acme: TenantClient) -> None:
    [(asset, content)] = outputs(acme, "latent_save")
    assert (asset["kind"], media.latent(content)[0]) == ("latent", [1, 4, 8, 8])
    assert media.picture(outputs(acme, "anim_webp")[0][1]).form == "WEBP"


def test_tobase64_returns_the_files_in_the_answer(acme: TenantClient) -> None:
    found = acme.call("POST", "runsync", {"input": {"workflow": example("img_chain"), "tobase64": True}})
    body = base64.b64decode(found["output"]["files"][0])
    assert Image.open(io.BytesIO(body)).size == (128, 96)


def test_a_workflow_as_json_text_runs(acme: TenantClient) -> None:
    found = acme.call("POST", "runsync", {"input": {"workflow": json.dumps(example("img_chain"))}})
    assert found["status"] == "COMPLETED"


def test_a_wrong_workflow_is_refused_before_the_queue(acme: TenantClient, sdk: Any) -> None:
    graph = example("img_chain")
    graph["2"]["inputs"]["width"] = -5
    with pytest.raises(HTTPError) as refused:
        acme.run(graph)
    body = json.load(refused.value)
    assert (refused.value.code, body["code"]) == (400, "invalid_workflow")
    assert body["nodes"]["2"][0] | {"message": ""} == {
        "class_type": "ImageScale",
        "type": "value_smaller_than_min",
        "input": "width",
        "given": -5,
        "message": "",
    }
    sdk.api_key = acme.api_key
    with pytest.raises(Exception, match="400"):
        sdk.Endpoint(acme.endpoint).run({"workflow": graph})


def test_what_only_comfyui_can_reject_fails_with_its_node_class_and_message(acme: TenantClient) -> None:
    graph = example("load_image")
    graph["1"]["inputs"]["image"] = f"{secrets.token_hex(8)}.png"  # a real ComfyUI may have the example's own
    found = acme.call("POST", "runsync", {"input": {"workflow": graph}})
    assert found["status"] == "FAILED"
    assert "Node 1 (LoadImage)" in found["error"]
    assert found["output"]["nodes"]["1"][0]["type"] == "custom_validation_failed"
    assert found["output"]["error"] == found["error"]


def test_progress_is_seen_while_a_job_runs(acme: TenantClient) -> None:
    job = acme.run(slow(3))
    found = acme.until(job, lambda found: isinstance(found.get("output"), dict) and "fraction" in found["output"], 20)
    assert found["status"] == "IN_PROGRESS"
    assert 0 <= found["output"]["fraction"] <= 1
    assert acme.ended(job)["status"] == "COMPLETED"


def test_a_cancelled_job_stops_comfyui_and_the_next_one_runs(up: Instance, acme: TenantClient) -> None:
    long = acme.run(slow(60))
    acme.started(long)
    assert acme.call("POST", f"cancel/{long}")["status"] == "CANCELLED"
    found = acme.call("POST", "runsync", {"input": {"workflow": example("img_chain")}}, timeout=60)
    assert found["status"] == "COMPLETED"
    assert acme.status(long)["status"] == "CANCELLED"


def test_an_execution_time_out_stops_the_job_at_the_worker(acme: TenantClient) -> None:
    long = acme.run(slow(60), policy={"executiontimeout": 5000})
    found = acme.ended(long, 25)
    assert found["status"] == "TIMED_OUT"
    assert 5000 <= found["executionTime"] <= 10_000
    assert acme.call("POST", "runsync", {"input": {"workflow": example("img_chain")}})["status"] == "COMPLETED"


def test_the_next_job_is_made_ready_while_one_runs(up: Instance, acme: TenantClient) -> None:
    jobs = [acme.run(slow(2)) for _ in range(3)]
    for job in jobs:
        assert acme.ended(job)["status"] == "COMPLETED"
    started = [event for event in up.manage("job", jobs[1], "--json")["events"] if event["kind"] == "handed"]
    first_end = [event for event in up.manage("job", jobs[0], "--json")["events"] if event["kind"] == "completed"]
    assert started[0]["at"] < first_end[0]["at"]


def test_one_tenant_sees_nothing_of_another(up: Instance, acme: TenantClient) -> None:
    import urllib.error

    globex = up.tenant("globex")
    job = acme.run(example("img_chain"))
    acme.ended(job)
    for method, path in (("GET", "status"), ("POST", "cancel"), ("POST", "retry")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            globex.call(method, f"{path}/{job}")
        assert refused.value.code == 404
    assert globex.call("GET", "requests") == {"requests": []}


def test_a_requests_own_bucket_gets_the_files(up: Instance, acme: TenantClient) -> None:
    s3 = up.run_json()["s3"]
    tobucket = {
        "endpointUrl": s3["endpoint_url"],
        "accessId": s3["access_key_id"],
        "accessSecret": s3["secret_access_key"],
        "bucketName": "hearth",
    }
    given = {"workflow": example("img_chain"), "tobucket": tobucket}
    found = acme.call("POST", "runsync", {"input": given})
    assert found["status"] == "COMPLETED", found
    assert "X-Amz-Expires=604800" in found["output"]["files"][0]
    assert len(pictures(found["output"])) == 1
    assert s3["secret_access_key"] not in str(up.manage("job", found["id"], "--json"))
