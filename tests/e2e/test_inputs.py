"""Files that a request names, from where they are to the picture that a worker makes of them."""

import base64
import io
import json
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import pytest
from PIL import Image

from tests.e2e.instance import Instance, TenantClient, download, example, picture, saved

NOISE = Image.effect_noise((640, 480), 60)


@pytest.fixture(scope="module")
def acme(up: Instance) -> TenantClient:
    return up.tenant("acme")


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    NOISE.resize((width, height)).save(out, "PNG")
    return out.getvalue()


class Pictures(BaseHTTPRequestHandler):
    """`/<width>x<height>.png` is one; all else is missing."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/").partition(".")[0]
        body = png(*map(int, name.split("x"))) if "x" in name else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def upload(acme: TenantClient, content: bytes) -> str:
    request = urllib.request.Request(
        f"{acme.url}/api/v1/assets?name=up.png",
        content,
        {"Authorization": f"Bearer {acme.api_key}", "Content-Type": "image/png"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return f"asset:{json.load(answer)['id']}"


def sent(acme: TenantClient, name: str, **files: Any) -> dict[str, Any]:
    """What comes of a workflow that makes the picture `name` 48 pixels wide."""
    workflow = example("load_image")
    workflow["1"]["inputs"]["image"] = name
    return acme.call("POST", "runsync", {"input": {"workflow": workflow, **files}})


def size(found: dict[str, Any]) -> tuple[int, int]:
    assert found["status"] == "COMPLETED", found
    width, height = Image.open(io.BytesIO(download(found["output"]["files"][0]))).size
    return width, height


def test_an_asset_is_loaded_in_place_of_a_file_name_and_by_a_name_in_files(acme: TenantClient) -> None:
    ref = upload(acme, png(60, 40))
    assert size(sent(acme, ref)) == (48, 32)
    assert size(sent(acme, "x.png", files={"x.png": ref})) == (48, 32)
    assert size(sent(acme, "x.png", images=[{"name": "x.png", "image": ref}])) == (48, 32)


OWN_BUCKET = """
import json
from accounts.models import ApiKey
from accounts.sealed import Sealed
from storage.models import Bucket
from storage.places import client, operators_place
place = operators_place(public=False)
tenant = ApiKey.all_tenants.get(prefix={prefix!r}).tenant
name = f"renders-{{tenant.pk.hex}}"
client(place).create_bucket(Bucket=name)
client(place).put_object(Bucket=name, Key="in/a b.png", Body=bytes.fromhex({content!r}))
Bucket.all_tenants.create(
    tenant=tenant, name="own", endpoint_url=place.endpoint_url, s3_bucket=name, prefix="in",
    access_key_id=place.access_key_id, secret_access_key=Sealed.seal(place.secret_access_key),
)
print(json.dumps({{"name": name}}))
"""


def test_an_object_of_the_tenants_own_bucket_is_loaded(up: Instance, acme: TenantClient) -> None:
    prefix = acme.api_key.split("_")[1]
    name = up.manage("shell", "-c", OWN_BUCKET.format(prefix=prefix, content=png(60, 40).hex()))["name"]
    assert size(sent(acme, f"s3://{name}/in/a b.png")) == (48, 32)
    assert size(sent(acme, "x.png", files={"x.png": f"s3://{name}/in/a b.png"})) == (48, 32)
    missing = sent(acme, f"s3://{name}/in/nothing.png")
    assert (missing["status"], missing["output"]["code"]) == ("FAILED", "bad_input")
    assert f"s3://{name}/in/nothing.png" in missing["error"]
    with pytest.raises(HTTPError) as refused:
        sent(acme, f"s3://{name}/a b.png")
    assert "is in no bucket of yours" in refused.value.read().decode()


def test_a_url_is_fetched_by_the_worker(acme: TenantClient, elsewhere: str) -> None:
    assert size(sent(acme, f"{elsewhere}/90x30.png")) == (48, 16)
    assert size(sent(acme, "x", files={"x": f"{elsewhere}/60x90.png"})) == (48, 72)


def test_the_output_of_one_job_is_the_input_of_the_next(acme: TenantClient, elsewhere: str) -> None:
    first = sent(acme, f"{elsewhere}/120x80.png")
    second = sent(acme, f"asset:{first['output']['assets'][0]['id']}")
    assert size(first) == size(second) == (48, 32)


def test_a_file_that_is_not_to_be_had_fails_the_job_before_the_gpu_begins(
    up: Instance, acme: TenantClient, elsewhere: str
) -> None:
    found = sent(acme, f"{elsewhere}/nothing.png")
    assert (found["status"], found["output"]["code"]) == ("FAILED", "bad_input")
    assert f"node '1', input 'image' ({elsewhere}/nothing.png): its server answers HTTP 404" in found["error"]
    assert "started" not in up.events(found["id"])


def test_huge_datas_come_as_a_file_and_nothing_is_lost(acme: TenantClient) -> None:
    workflow, text = example("text_preview"), "long " * 600_000
    workflow["1"]["inputs"] |= {"string_a": text, "string_b": "", "delimiter": ""}
    output = acme.call("POST", "runsync", {"input": {"workflow": workflow}})["output"]
    (asset,) = output["assets"]
    assert output["datas"] == {"2": {"asset": asset["id"], "bytes": asset["bytes"]}}
    assert json.loads(download(asset["url"])) == {"text": [text]}
    assert output["files"] == [asset["url"]]


def test_pictures_come_converted_and_without_their_workflow(acme: TenantClient) -> None:
    wish = {"output_format": "webp", "output_quality": 50, "strip_metadata": True}
    output = acme.call("POST", "runsync", {"input": {"workflow": example("img_chain"), **wish}})["output"]
    (asset,), body = output["assets"], download(output["files"][0])
    assert (asset["name"].rpartition(".")[2], asset["content_type"]) == ("webp", "image/webp")
    assert Image.open(io.BytesIO(body)).format == "WEBP"
    assert b"class_type" not in body


def test_pictures_and_films_have_previews(acme: TenantClient) -> None:
    for workflow, size in ((saved(picture(1200), "1"), (512, 512)), (example("video_mp4"), None)):
        output = acme.call("POST", "runsync", {"input": {"workflow": workflow}})["output"]
        (asset,) = output["assets"]
        small = Image.open(io.BytesIO(download(asset["preview"])))
        assert (small.format, small.size) == ("WEBP", size or (asset["width"], asset["height"]))


def test_large_base64_reaches_comfyui_by_s3(up: Instance, acme: TenantClient) -> None:
    picture = png(640, 480)
    assert len(picture) > 200_000
    found = sent(acme, "big.png", files={"big.png": base64.b64encode(picture).decode()})
    assert size(found) == (48, 36)
    listed = urllib.request.Request(
        f"{acme.url}/api/v1/assets?source=input&job={found['id']}", headers={"Authorization": f"Bearer {acme.api_key}"}
    )
    with urllib.request.urlopen(listed, timeout=30) as answer:
        (asset,) = json.load(answer)["results"]
    assert (asset["name"], asset["bytes"]) == ("big.png", len(picture))
