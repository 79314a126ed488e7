"""/api/v1/assets: files come by a body, a form or a signed PUT; their tenant lists, fetches and deletes them."""

import hashlib
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from accounts import sql
from accounts.models import Tenant
from storage.models import Asset, Blob
from tests.api.v1 import V1
from tests.cast import Place, new_client
from tests.wire.api import Api, check_refusal, finish


@pytest.fixture
def acme(http: httpx.Client, place: Place) -> V1:
    return V1.of(http, new_client(place, "acme"))


@pytest.fixture
def globex(http: httpx.Client, place: Place) -> V1:
    return V1.of(http, new_client(place, "globex"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def announced(api: V1, content: bytes, **fields: Any) -> Any:
    about = {"name": "big.mp4", "bytes": len(content), "sha256": sha256(content)} | fields
    answered = api.call("POST", "assets", json=about)
    assert answered.status_code == 201, answered.text
    return answered.json()


def put(upload: dict[str, Any], content: bytes, **headers: str) -> httpx.Response:
    sent = {k: v for k, v in (upload["headers"] | headers).items() if k != "Content-Length"}
    return httpx.put(upload["url"], content=content, headers=sent)


def test_a_body_that_is_a_file_becomes_an_asset(acme: V1) -> None:
    made = acme.upload(b"abc", "ü .png")
    assert (made["source"], made["name"], made["content_type"], made["bytes"]) == ("upload", "ü .png", "image/png", 3)
    assert (made["sha256"], made["expires_at"]) == (sha256(b"abc"), None)
    assert httpx.get(made["url"]).content == b"abc"
    found = acme.get(f"assets/{made['id']}")
    assert {k: v for k, v in found.items() if k != "url"} == {k: v for k, v in made.items() if k != "url"}


def test_a_forms_file_becomes_an_asset(acme: V1) -> None:
    content = b"x" * 3_000_000  # more than Django keeps in memory
    answered = acme.call("POST", "assets", files={"file": ("clip.mp4", content, "video/mp4")})
    made = answered.json()
    assert (answered.status_code, made["name"], made["content_type"]) == (201, "clip.mp4", "video/mp4")
    assert httpx.get(made["url"]).content == content
    named = acme.call("POST", "assets", files={"file": ("clip.mp4", b"x")}, data={"name": "other.webm"}).json()
    assert (named["name"], named["content_type"]) == ("other.webm", "video/mp4")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_a_body_without_a_type_of_its_own_has_its_names(acme: V1, kind: str) -> None:
    assert acme.upload(b"a=b&c", "a.webp", kind)["content_type"] == "image/webp"
    assert acme.upload(b"glTF", "a.glb", kind)["content_type"] == "model/gltf-binary", "as outputs have it"


def test_a_body_in_chunks_is_taken(acme: V1) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"ab", b"", b"c")

    answered = acme.call("POST", "assets", content=chunks(), headers={"Content-Type": "image/png"})
    assert (answered.status_code, answered.json()["bytes"]) == (201, 3)


def test_an_announced_file_is_put_to_s3_and_completed(acme: V1) -> None:
    made = announced(acme, content := b"v" * 100_000)
    refused = acme.refused(409, "not_uploaded", "POST", f"assets/{made['id']}/complete")
    assert made["id"] in refused
    assert acme.get("assets")["results"] == []
    assert put(made["upload"], content).status_code == 200
    for _ in range(2):
        answered = acme.call("POST", f"assets/{made['id']}/complete")
        assert answered.status_code == 200, answered.text
    assert (answered.json()["id"], answered.json()["content_type"]) == (made["id"], "video/mp4")
    assert httpx.get(answered.json()["url"]).content == content
    assert [asset["id"] for asset in acme.get("assets")["results"]] == [made["id"]]


def test_other_bytes_than_were_announced_are_refused(acme: V1) -> None:
    made = announced(acme, b"abc")
    assert put(made["upload"], b"abcd").status_code == 403
    other = put(made["upload"], b"abd")
    assert other.status_code in (400, 200), other.text  # S3s that know no checksums take it
    if other.status_code == 200:
        assert sha256(b"abd") in acme.refused(422, "wrong_bytes", "POST", f"assets/{made['id']}/complete")
        acme.refused(410, "gone", "GET", f"assets/{made['id']}")


def test_a_second_put_to_the_same_url_is_refused(acme: V1) -> None:
    made = announced(acme, b"abc")
    assert put(made["upload"], b"abc").status_code == 200
    assert put(made["upload"], b"abd").status_code in (400, 412)


def test_the_same_bytes_by_any_way_are_stored_once(acme: V1) -> None:
    made = announced(acme, b"abc")
    put(made["upload"], b"abc")
    first = acme.upload(b"abc")
    second = acme.call("POST", f"assets/{made['id']}/complete").json()
    assert first["id"] != second["id"]
    assert Blob.objects.of(acme.client.tenant).filter(state="kept").count() == 1
    assert Blob.objects.of(acme.client.tenant).filter(state="dying").count() == 1
    assert httpx.get(second["url"]).content == b"abc"


def test_pages_go_from_the_newest_back(acme: V1) -> None:
    ids = [acme.upload(b"%d" % number)["id"] for number in range(5)]
    page = acme.get("assets", limit=2)
    seen = [asset["id"] for asset in page["results"]]
    while page["next"]:
        page = acme.http.get(page["next"], headers={"Authorization": acme.authorization}).json()
        seen += [asset["id"] for asset in page["results"]]
    assert seen == ids[::-1]


def test_an_asset_that_was_deleted_is_gone_with_the_date(acme: V1) -> None:
    made = acme.upload(b"abc")
    assert acme.call("DELETE", f"assets/{made['id']}").status_code == 204
    for method in ("GET", "DELETE"):
        assert "was deleted at 20" in acme.refused(410, "gone", method, f"assets/{made['id']}")
    assert acme.get("assets")["results"] == []


def test_an_asset_that_expired_is_gone_with_the_date(acme: V1) -> None:
    made = acme.upload(b"abc", expires_in_s=60)
    assert made["expires_at"] > made["created_at"]
    sql.run("UPDATE storage_asset SET expires_at = clock_timestamp() - interval '1 s' WHERE id = %s", [made["id"]])
    assert "expired at 20" in acme.refused(410, "gone", "GET", f"assets/{made['id']}")
    assert acme.get("assets")["results"] == []


def test_outputs_and_their_jobs_are_listed_too(acme: V1, own_acme: Api) -> None:
    api = V1.of(own_acme.http, own_acme.client)
    job = own_acme.run({"workflow": {"1": {"class_type": "SaveImage", "inputs": {}}}})
    claimed = own_acme.take()
    blob = Blob.all_tenants.create(
        tenant=api.client.tenant, job_id=claimed.job, key="k", bytes=9, content_type="image/png", state="kept"
    )
    Asset.all_tenants.create(tenant=api.client.tenant, blob=blob, job_id=claimed.job, node="9", kind="image", name="o")
    finish(own_acme, claimed)
    api.upload(b"abc")
    (found,) = api.get("assets", source="output")["results"]
    assert (found["job"], found["node"], found["kind"]) == (job, "9", "image")
    assert api.get("assets", job=job)["results"][0]["id"] == found["id"]
    assert api.get("assets", job="nonsense")["results"] == []


def test_globex_sees_and_touches_nothing_of_acmes(acme: V1, globex: V1) -> None:
    made, waits = acme.upload(b"abc"), announced(acme, b"abcd")
    for asset in (made, waits):
        globex.refused(404, "not_found", "GET", f"assets/{asset['id']}")
        globex.refused(404, "not_found", "DELETE", f"assets/{asset['id']}")
        globex.refused(404, "not_found", "POST", f"assets/{asset['id']}/complete")
    assert globex.get("assets")["results"] == []
    assert acme.get(f"assets/{made['id']}")["id"] == made["id"]
    acme.call("DELETE", f"assets/{made['id']}")
    globex.refused(404, "not_found", "GET", f"assets/{made['id']}")


def test_a_limit_of_stored_bytes_counts_them(acme: V1) -> None:
    Tenant.objects.filter(pk=acme.client.tenant.pk).update(max_stored_bytes=10)
    acme.upload(b"12345678")
    about = {"name": "a", "bytes": 3, "sha256": "0" * 64}
    assert "limit is 10" in acme.refused(429, "storage_full", "POST", "assets", json=about)
    content: dict[str, Any] = {"content": b"123", "headers": {"Content-Type": "image/png"}}
    acme.refused(429, "storage_full", "POST", "assets", **content)
    assert acme.upload(b"12")["bytes"] == 2


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({}, "`name`: This field is required."),
        ({"name": "a", "bytes": -1, "sha256": "0" * 64}, "`bytes`: "),
        ({"name": "a", "bytes": 1, "sha256": "0" * 63}, "`sha256`: 64 hex digits"),
        ({"name": "a", "bytes": 1, "sha256": "0" * 64, "content_type": "no\r\nX: y"}, "`content_type`: "),
        ({"name": "a\0", "bytes": 1, "sha256": "0" * 64}, "`name`: "),
        ({"name": "a", "bytes": 1, "sha256": "0" * 64, "expires_in_s": 1}, "`expires_in_s`: "),
        ([], "Invalid data"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(acme: V1, about: Any, said: str) -> None:
    assert said in acme.refused(400, "bad_request", "POST", "assets", json=about)


def test_a_file_that_is_too_large_is_refused(acme: V1) -> None:
    about = {"name": "a", "bytes": 1024**3 + 1, "sha256": "0" * 64}
    acme.refused(413, "too_large", "POST", "assets", json=about)
    for size in (32 * 1024**2 + 1, 34 * 1024**2):
        content: dict[str, Any] = {"content": b"x" * size, "headers": {"Content-Type": "image/png"}}
        acme.refused(413, "too_large", "POST", "assets", **content)


def test_an_empty_file_or_a_form_without_one_is_refused(acme: V1) -> None:
    acme.refused(400, "bad_request", "POST", "assets", content=b"", headers={"Content-Type": "image/png"})
    acme.refused(400, "bad_request", "POST", "assets", files={"other": b"x"})


def test_slow_uploads_hold_no_thread(acme: V1) -> None:
    """More of them than there are threads, all in the middle of their bodies."""
    go, begun = threading.Event(), threading.Semaphore(0)

    def slow() -> Iterator[bytes]:
        yield b"a"
        begun.release()
        go.wait(30)
        yield b"b"

    def one() -> None:
        with httpx.Client(base_url=acme.http.base_url, timeout=60) as http:
            headers = {"Authorization": acme.authorization, "Content-Type": "image/png"}
            statuses.append(http.post("/api/v1/assets", content=slow(), headers=headers).status_code)

    statuses: list[int] = []
    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire(timeout=30)
    assert acme.get("assets")["results"] == []
    go.set()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 10


def test_a_missing_asset_is_404(acme: V1) -> None:
    assert "There is no asset" in acme.refused(404, "not_found", "GET", f"assets/{uuid4()}")
    check_refusal(acme.call("GET", "assets/nonsense"), 404, "not_found")
