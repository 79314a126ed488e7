"""Small pictures beside a job's files: put by presigned URLs, shown wherever the file is, gone with it."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from django.db.models import F

from jobs.loss import lose
from jobs.uploads import discard
from storage import assets
from storage.models import Asset, Blob, preview_key
from tests.cast import WORKFLOW, Client, new_client, new_place
from tests.fleet.hooks import Running, file, put
from tests.fleet.test_outputs import exists, named
from tests.fleet.wire import WireWorker, call, public
from tests.wire.api import Api, check_refusal
from tests.wire.sse import Stream
from worker.wire import SMALL_BYTES

__all__ = ["named"]
SMALL = b"RIFF-small"


def slots(running: Running, *made: dict[str, Any]) -> list[dict[str, Any]]:
    answer = running.ask("small", {"files": [{"id": asset["id"], "bytes": len(SMALL)} for asset in made]})
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json["small"]
    return found


def with_preview(running: Running, name: str = "a.png") -> dict[str, Any]:
    """The asset of a file that has been put, and so has its small picture."""
    (asset,) = running.stored(file(name))
    (slot,) = slots(running, asset)
    assert put(slot, SMALL).status == 200
    return asset | {"preview": True}


def done(running: Running, *assets: dict[str, Any]) -> list[dict[str, Any]]:
    output = running.done(files=[asset["key"] for asset in assets], assets=list(assets))["output"]
    found: list[dict[str, Any]] = output["assets"]
    return found


def age_blobs(running: Running, seconds: int = 3600) -> None:
    old = F("created_at") - timedelta(seconds=seconds)
    Blob.all_tenants.filter(job_id=running.job.uuid).update(created_at=old)


def test_a_preview_is_shown_by_the_status_and_with_its_asset(running: Running, quick: str) -> None:
    mine = with_preview(running)
    plain = running.stored(file("plain.png"))[0]
    shown, other = done(running, mine, plain)
    answer = call("GET", shown["preview"])
    assert (answer.body, answer.headers["content-type"]) == (SMALL, "image/webp")
    assert call("GET", shown["url"]).body == b"abc"
    assert other["preview"] is None
    listed = call("GET", f"{quick}/api/v1/assets/{shown['id']}", headers=running.client.headers)
    assert call("GET", listed.json["preview"]).body == SMALL
    assert Asset.all_tenants.get(pk=other["id"]).preview is False


def test_a_preview_is_shown_while_the_job_runs(running: Running, quick: str) -> None:
    mine, plain = with_preview(running), running.stored(file("plain.png"))[0]
    running.ask("stored", {"ids": [mine["id"], plain["id"]]})
    slots(running, plain)  # which never arrives
    assert running.ask("outputs", {"assets": [mine, plain]}).status == 200
    with httpx.Client(base_url=quick, timeout=30) as http:
        shown = Stream(Api.of(http, running.client), public(running.job)).has("output").data["assets"]
    assert httpx.get(shown[0]["preview"]).content == SMALL
    assert (shown[1]["preview"], "key" in shown[1]) == (None, False)


def test_globex_sees_none_of_it(running: Running, quick: str) -> None:
    (shown,) = done(running, with_preview(running))
    globex = new_client(running.client.place, "globex")
    check_refusal(httpx.get(f"{quick}/api/v1/assets/{shown['id']}", headers=globex.headers), 404, "not_found")
    assert httpx.get(shown["preview"].partition("?")[0]).status_code == 403


def test_it_is_of_exactly_the_bytes_that_were_said(running: Running) -> None:
    (asset,) = running.stored(file())
    (slot,) = slots(running, asset)
    assert put(slot, SMALL + b"!").status == 403
    assert put(slot, SMALL, **{"Content-Type": "text/html"}).status == 403
    assert not exists(preview_key(asset["key"]))


def test_what_was_reported_without_a_place_for_it_is_none(running: Running) -> None:
    (asset,) = running.stored(file())
    assert done(running, asset | {"preview": True})[0]["preview"] is None


@pytest.mark.parametrize("odd", ["yes", 1, {"a": 1}, [], "https://example.com/x.webp"])
def test_odd_words_of_one_are_none(running: Running, odd: Any) -> None:
    assert done(running, with_preview(running) | {"preview": odd})[0]["preview"] is None


def test_a_file_in_the_requests_own_bucket_has_none(quick: str, own: Client, named: dict[str, str]) -> None:
    job = own.submit({"workflow": WORKFLOW, "tobucket": named})
    running = Running(own, job, WireWorker(quick, own.place))
    (asset,) = running.stored(file())
    assert slots(running, asset) == []
    assert done(running, asset | {"preview": True})[0]["preview"] is None


def test_others_files_and_those_of_other_attempts_have_none(quick: str, running: Running) -> None:
    globex = new_client(new_place("hearth"), "globex")
    theirs = Running(globex, globex.submit(), WireWorker(quick, globex.place))
    (lost,) = running.stored(file())
    lose(running.job.uuid, 1, "test")
    second = Running(running.client, running.job, WireWorker(quick, running.client.place, "w2"))
    assert slots(second, lost, *theirs.stored(file()), {"id": str(uuid4())}) == []
    assert running.ask("small", {"files": [{"id": lost["id"], "bytes": 9}]}).status == 409
    assert running.ask("small", {"files": []}, token="x").status == 404


@pytest.mark.parametrize(
    "files",
    [
        *(None, "x", ["x"], [None], [{}], [{"id": "x", "bytes": 9}], [{"id": 7, "bytes": 9}]),
        *([{"id": str(UUID(int=1)), "bytes": size}] for size in (0, -1, SMALL_BYTES + 1, "9", 1.5, True, None)),
        [{"id": str(UUID(int=1)), "bytes": 9}] * 5001,
    ],
    ids=lambda files: str(files)[:60],
)
def test_what_is_no_preview_is_refused(running: Running, files: Any) -> None:
    answer = running.ask("small", {"files": files})
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


def test_it_goes_with_a_lost_attempts_file(running: Running) -> None:
    mine = with_preview(running)
    running.client.cancel(running.job)
    age_blobs(running)
    discard(1000)
    assert (exists(mine["key"]), running.blobs()) == (False, [])


def test_it_goes_with_its_asset(running: Running) -> None:
    (shown,) = done(running, mine := with_preview(running))
    assets.delete(running.client.tenant.pk, UUID(shown["id"]))
    age_blobs(running)
    discard(1000)
    assert (exists(mine["key"]), running.blobs()) == (False, [])


def test_nothing_comes_by_its_url_after_its_files_end(running: Running) -> None:
    """Its URL is younger than the file's own, whose age tells when the objects may be deleted."""
    (asset,) = running.stored(file())
    age_blobs(running)
    (slot,) = slots(running, asset)
    running.client.cancel(running.job)
    discard(1000)
    assert exists(asset["key"])
    assert put(slot, SMALL).status == 200
    age_blobs(running)
    discard(1000)
    assert (exists(asset["key"]), running.blobs()) == (False, [])
