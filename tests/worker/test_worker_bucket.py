"""Alone on RunPod, without Hearth: the caller's own bucket, in a real S3 (SeaweedFS)."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.storage.fault_server import Reply, serving
from tests.worker.fakes import FakeComfy, free_port, handled, image_workflow, job
from worker.settings import Settings, read

ACCESS = {"accessId": "alice", "accessSecret": "alice-secret"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server with the bucket `pictures`."""
    folder, ports = tmp_path_factory.mktemp("s3"), [free_port(11000, 22000) for _ in range(4)]
    identities = [identity("alice", "Admin", "Read", "Write", "List"), identity("bob", "Read:pictures")]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    command = [weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    command += [f"-s3.config={folder}/s3.json", "-volume.max=0", "-master.volumeSizeLimitMB=64"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-master.peers=none"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{ports[3]}"
    try:
        make_bucket(url)
        yield url
    finally:
        server.kill()
        server.wait()
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port + 10000}.sock"):
            left.unlink()


def identity(name: str, *actions: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}], "actions": actions}


def weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed") or "weed"


def make_bucket(url: str) -> None:
    """Tries until it has stored an object too: S3 makes buckets a while before it knows its volumes."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    keys = {"aws_access_key_id": ACCESS["accessId"], "aws_secret_access_key": ACCESS["accessSecret"]}
    quick = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=quick, **keys)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="pictures")
            client.put_object(Bucket="pictures", Key="first", Body=b"one")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
    raise AssertionError("SeaweedFS did not come up in 60 s")


async def stored(**more: Any) -> dict[str, Any]:
    settings = more.pop("settings", Settings())
    outputs = {"2": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id, outputs)) as comfy:
        given = job(image_workflow(), id="sync-7") | more.pop("beside", {})
        given["input"] |= more
        return await handled(comfy.url, given, bucket=settings.bucket)


async def fetched(url: str) -> tuple[int, str, bytes]:
    async with aiohttp.ClientSession() as session, session.get(aiohttp.client.URL(url, encoded=True)) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_tobucket_gives_a_url_that_anybody_can_read(s3: str) -> None:
    result = await stored(tobucket={**ACCESS, "endpointUrl": f"{s3}/pictures`", "bucketName": "sub/folder"})
    [url] = result["files"]
    assert url.startswith(f"{s3}/pictures/sub/folder/sync-7/")
    assert await fetched(url) == (200, "image/png", b"bytes of a.png")
    assert "X-Amz-Expires=604800" in url
    assert (result["assets"][0]["key"], result["assets"][0]["name"]) == (None, "a.png")


async def test_no_newer_checksums_are_sent_which_some_s3s_refuse() -> None:
    with serving(lambda asked: Reply(200, headers={"ETag": '"x"'})) as server:
        result = await stored(tobucket={**ACCESS, "endpointUrl": f"{server.url}/pictures"})
    assert len(result["files"]) == 1
    (put,) = server.asked
    said = f"{put.path} {put.headers}".lower()
    assert not [word for word in ("checksum", "x-amz-trailer", "aws-chunked") if word in said]


async def test_the_requests_s3config_is_used_as_well(s3: str) -> None:
    result = await stored(beside={"s3Config": {**ACCESS, "endpointUrl": s3, "bucketName": "pictures"}})
    assert result["files"][0].startswith(f"{s3}/pictures/sync-7/")


async def test_the_environments_bucket_is_the_last_choice(s3: str) -> None:
    env = {"BUCKET_ENDPOINT_URL": s3, "BUCKET_NAME": "pictures"}
    env |= {"BUCKET_ACCESS_KEY_ID": "alice", "BUCKET_SECRET_ACCESS_KEY": "alice-secret"}
    from_env = await stored(settings=read(env))
    from_job = await stored(settings=read(env), tobucket={**ACCESS, "endpointUrl": s3, "bucketName": "pictures/mine"})
    assert from_env["files"][0].startswith(f"{s3}/pictures/sync-7/")
    assert from_job["files"][0].startswith(f"{s3}/pictures/mine/sync-7/")


async def test_base64_goes_before_a_bucket_and_is_what_is_left_without_one(s3: str) -> None:
    asked = await stored(tobase64=True, tobucket={**ACCESS, "endpointUrl": s3, "bucketName": "pictures"})
    alone = await stored(tobase64=False)
    assert asked["files"] == alone["files"] == ["Ynl0ZXMgb2YgYS5wbmc="]


async def test_a_wrong_secret_is_told_with_s3s_status_and_without_the_secret(s3: str) -> None:
    wrong = {"accessId": "alice", "accessSecret": "open-sesame", "endpointUrl": s3, "bucketName": "pictures"}
    result = await stored(tobucket=wrong)
    assert result["code"] == "upload_failed"
    assert "403 SignatureDoesNotMatch" in result["error"]
    assert "open-sesame" not in str(result)


async def test_a_bucket_that_the_key_may_not_write_is_told(s3: str) -> None:
    bob = {"accessId": "bob", "accessSecret": "bob-secret", "endpointUrl": s3, "bucketName": "pictures"}
    result = await stored(tobucket=bob)
    assert "a.png of node 2 could not be uploaded" in result["error"]
    assert "403 AccessDenied" in result["error"]


async def test_a_bucket_that_cannot_be_reached_is_told() -> None:
    gone = {**ACCESS, "endpointUrl": f"http://127.0.0.1:{free_port()}", "bucketName": "pictures"}
    async with asyncio.timeout(20):
        result = await stored(tobucket=gone)
    assert result["code"] == "upload_failed"
    assert gone["endpointUrl"] in result["error"]
