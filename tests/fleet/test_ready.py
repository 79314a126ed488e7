"""What a job shows before its end: files that are stored, and previews, to its tenant and with URLs that work."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from django.db.models import F

from jobs import loss
from jobs.models.job import Event, Preview
from jobs.sweep import forget_previews
from jobs.uploads import discard
from storage.models import Blob
from tests.cast import WORKFLOW, Client, kinds, new_client
from tests.fleet.hooks import Running, file, put
from tests.fleet.test_outputs import named
from tests.fleet.wire import WireWorker, public
from tests.wire.api import Api, check_refusal, until
from tests.wire.sse import Stream
from tests.worker.fakes import png

__all__ = ["named"]
PICTURE = png()


@pytest.fixture
def client(quick: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=quick, timeout=30) as client:
        yield client


def follow(running: Running, client: httpx.Client, after: str = "", **params: Any) -> Stream:
    return Stream(Api.of(client, running.client), public(running.job), after, **params)


def made(running: Running, *files: dict[str, Any], content: bytes = b"abc") -> list[dict[str, Any]]:
    """The assets of files that have been put, as a worker of ours tells of them: S3 was asked for them."""
    assets = running.stored(*files, content=content)
    assert running.ask("stored", {"ids": [asset["id"] for asset in assets]}).status == 200
    return assets


def preview(data: bytes = PICTURE, content_type: str = "image/png", node: Any = "3") -> dict[str, Any]:
    return {"node": node, "content_type": content_type, "data": base64.b64encode(data).decode()}


def test_a_file_is_shown_while_the_job_runs_and_is_the_results_own(running: Running, client: httpx.Client) -> None:
    running.ask("started")
    stream = follow(running, client)
    assets = made(running, file("early.png"))
    assert running.ask("outputs", {"assets": assets}).status == 200
    (shown,) = stream.has("output").data["assets"]
    assert shown.keys() >= {"id", "node", "kind", "name", "content_type", "bytes", "sha256", "url"}
    assert "key" not in shown
    assert httpx.get(shown["url"]).content == b"abc"
    ended = running.done(files=[assets[0]["key"]], assets=assets, datas={})
    assert ended["output"]["assets"][0]["id"] == shown["id"]
    said = stream.end()
    assert [x.kind for x in said if x.kind in ("output", "end")] == ["output", "end"]
    assert [x.id for x in said if x.kind == "output"] == ["4"]
    assert kinds(running.job) == ["created", "handed", "started", "output", "completed"]
    assert Event.objects.get(job_id=running.job.uuid, kind="output").text == "early.png of node 9"


def test_who_comes_later_is_told_of_the_files_that_are_there(running: Running, client: httpx.Client) -> None:
    kept, dropped = made(running, file("kept.png"), file("dropped.png"))
    running.ask("outputs", {"assets": [kept]})
    running.ask("outputs", {"assets": [dropped]})
    assert len(follow(running, client).until(lambda s: [x for x in s.said if x.kind == "output"][1:])) == 1
    running.done(files=[kept["key"]], assets=[kept], datas={})
    said = follow(running, client).end()
    assert [x.data["assets"][0]["name"] for x in said if x.kind == "output"] == ["kept.png"]
    assert follow(running, client, "3").end() == said[3:], "whoever has had it is not told again"


def test_a_lost_attempts_files_are_told_no_more_and_go(running: Running, client: httpx.Client) -> None:
    running.ask("outputs", {"assets": made(running, file("lost.png"))})
    loss.lose(running.job.uuid, 1, "test")
    second = Running(running.client, running.job, WireWorker(running.worker.url, running.client.place, "w2"))
    stream = follow(running, client)
    second.ask("outputs", {"assets": made(second, file("won.png"))})
    stream.has("output")
    assert [x.data["assets"][0]["name"] for x in stream.said if x.kind == "output"] == ["won.png"]
    Blob.all_tenants.filter(job_id=running.job.uuid).update(created_at=F("created_at") - timedelta(hours=1))
    discard(1000)
    assert [blob.attempt for blob in running.blobs()] == [2]
    running.client.cancel(running.job)
    assert stream.end()[-1].data["status"] == "CANCELLED"
    assert [x.kind for x in follow(running, client).end() if x.kind == "output"] == []


def test_only_what_this_attempt_has_stored_is_shown(running: Running, client: httpx.Client, quick: str) -> None:
    other = new_client(running.client.place, "globex")
    theirs = Running(other, other.submit(), WireWorker(quick, other.place, "w2"))
    (not_put,) = running.slots(file("not-put.png"))
    (unseen,) = running.slots(file("unseen.png"))
    assert put(unseen, b"abc").status == 200
    (own,) = made(running, file("own.png"))
    wrong = [
        file() | {"id": not_put["id"], "key": not_put["key"]},
        file() | {"id": unseen["id"], "key": unseen["key"]},
        made(theirs, file("theirs.png"))[0],
        own | {"key": not_put["key"]},
        own | {"id": str(uuid4())},
    ]
    assert running.ask("outputs", {"assets": wrong}).status == 200
    assert "output" not in kinds(running.job)
    running.ask("outputs", {"assets": [*wrong, own]})
    shown = follow(running, client).has("output").data["assets"]
    assert [asset["name"] for asset in shown] == ["own.png"]


def test_a_file_in_the_requests_own_bucket_has_an_url_too(
    own: Client, quick: str, named: dict[str, str], client: httpx.Client
) -> None:
    job = own.submit({"workflow": WORKFLOW, "tobucket": named})
    running = Running(own, job, WireWorker(quick, own.place))
    assets = made(running, file("a.png"))
    stream = follow(running, client)
    running.ask("outputs", {"assets": assets})
    assert httpx.get(stream.has("output").data["assets"][0]["url"]).content == b"abc"
    running.done(files=[assets[0]["key"]], assets=assets, datas={})
    stream.end()
    (again,) = [x for x in follow(running, client).end() if x.kind == "output"]
    assert httpx.get(again.data["assets"][0]["url"]).content == b"abc"


BAD_ASSETS: list[Any] = [None, {}, "x", [7], [{}], [{"id": "x", "key": "k"}], [{"id": str(UUID(int=1)), "key": 7}]]


@pytest.mark.parametrize("assets", BAD_ASSETS, ids=str)
def test_assets_that_cannot_be_are_refused(running: Running, assets: Any) -> None:
    assert running.ask("outputs", {"assets": assets}).status == 400
    assert kinds(running.job) == ["created", "handed"]


def test_what_a_worker_says_of_a_file_is_made_harmless(running: Running, client: httpx.Client) -> None:
    (asset,) = made(running, file())
    odd = {"name": "a\nb\u2028.png" + "x" * 1000, "node": None, "bytes": "many", "width": True, "height": 1e9}
    assert running.ask("outputs", {"assets": [asset | odd]}).status == 200
    (shown,) = follow(running, client).has("output").data["assets"]
    assert shown["name"].startswith("a b .pngx")
    assert (len(shown["name"]), shown["node"], shown["bytes"], shown["width"]) == (300, "", None, None)


def test_previews_are_shown_the_newest_only_and_nobody_elses(running: Running, client: httpx.Client) -> None:
    stream, without = follow(running, client), follow(running, client, preview="false")
    for color in ("red", "green", "blue"):
        assert running.ask("preview", preview(png(color))).status == 200
    newest = base64.b64encode(png("blue")).decode()
    assert stream.has("preview", data=newest).data == {"node": "3", "content_type": "image/png", "data": newest}
    late = follow(running, client)
    assert late.has("preview").data["data"] == newest
    running.done(files=[], assets=[], datas={})
    assert "preview" not in {x.kind for x in without.end()}
    late.end()
    assert [x.kind for x in late.said].count("preview") == 1
    assert "preview" not in {x.kind for x in follow(running, client).end()}


def test_a_preview_changes_no_hot_row_and_goes_after_the_end(running: Running) -> None:
    running.ask("preview", preview())
    assert Preview.objects.filter(job_id=running.job.uuid).exists()
    assert kinds(running.job) == ["created", "handed"]
    forget_previews()
    assert Preview.objects.filter(job_id=running.job.uuid).exists()
    running.done(files=[], assets=[], datas={})
    assert forget_previews() >= 1
    assert not Preview.objects.filter(job_id=running.job.uuid).exists()


BAD_PREVIEWS: list[Any] = [
    {},
    preview() | {"data": "no base64!"},
    preview() | {"data": 7},
    preview() | {"content_type": "image/svg+xml"},
    preview() | {"content_type": ["image/png"]},
    preview(b"<svg/>"),
    preview(PICTURE, "image/jpeg"),
    preview(PICTURE + b"\0" * 256 * 1024),
]


@pytest.mark.parametrize("body", BAD_PREVIEWS, ids=lambda body: str(body)[:40])
def test_a_preview_that_is_no_small_picture_is_refused(running: Running, body: Any) -> None:
    assert running.ask("preview", body).status in (400, 413)
    assert not Preview.objects.filter(job_id=running.job.uuid).exists()


def test_a_lost_attempts_preview_is_not_the_next_ones(running: Running, client: httpx.Client) -> None:
    running.ask("preview", preview())
    loss.lose(running.job.uuid, 1, "test")
    assert running.ask("preview", preview()).status == 409
    second = Running(running.client, running.job, WireWorker(running.worker.url, running.client.place, "w2"))
    stream = follow(running, client)
    until(lambda: "handed" in stream.moves[2:])
    second.ask("preview", preview(png("green"), node="4"))
    stream.has("preview", node="4")
    assert [x.data["node"] for x in stream.said if x.kind == "preview"] == ["4"]


def test_a_preview_parameter_that_is_neither_is_refused(running: Running, client: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {running.client.api_key}"}
    answered = client.get(f"/api/v1/jobs/{public(running.job)}/events?preview=1", headers=headers)
    assert "`preview` must be true or false" in check_refusal(answered, 400)["error"]
