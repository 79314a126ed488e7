"""Requests that may hold a thread while S3 hangs are few at a time; all others go on."""

import asyncio
from typing import Any

import httpx
from starlette.responses import PlainTextResponse

from hearth.asgi import looks_at_bucket, speaks_to_s3
from jobs.wire.whole import AtMost


class Hangs:
    """An app whose uploads hang until `ends` is set."""

    def __init__(self) -> None:
        self.inside, self.ends = 0, asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            self.inside += 1
            await self.ends.wait()
        await PlainTextResponse("done")(scope, receive, send)


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web")


def test_two_uploads_hang_a_third_is_refused_and_reads_go_on() -> None:
    asyncio.run(two_hang_and_a_third_comes())


async def two_hang_and_a_third_comes() -> None:
    app = Hangs()
    async with client(AtMost(app, speaks_to_s3, at_once=2, wait_s=0.2)) as http:
        hanging = [asyncio.ensure_future(http.post("/api/v1/assets")) for _ in range(2)]
        while app.inside < 2:
            await asyncio.sleep(0.01)
        refused = await http.post("/api/v1/assets")
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
        assert refused.headers["Retry-After"] == "5"
        assert (await http.get("/api/v1/assets")).text == "done"
        app.ends.set()
        assert [(await answered).text for answered in hanging] == ["done", "done"]
        assert (await http.post("/api/v1/assets")).text == "done"


def test_verifying_a_bucket_and_deleting_one_wait_for_their_turn_and_reading_does_not() -> None:
    def held(method: str, path: str) -> bool:
        return looks_at_bucket({"method": method, "path": path})

    assert held("POST", "/api/v1/buckets/prod/verify")
    assert held("DELETE", "/api/v1/buckets/prod")
    assert held("POST", "/admin/storage/bucket/7/verify_now/")
    assert held("GET", "/admin/storage/bucket/7/delete/")
    assert not held("GET", "/admin/storage/bucket/7/verify_now/")
    assert not held("GET", "/admin/storage/bucket/")
    assert not held("GET", "/api/v1/buckets/prod")
    assert not held("POST", "/api/v1/buckets")
    assert not held("DELETE", "/api/v1/assets/prod")


def test_a_client_that_goes_away_leaves_its_place_to_the_next() -> None:
    asyncio.run(one_goes_and_another_comes())


async def one_goes_and_another_comes() -> None:
    app = Hangs()
    async with client(AtMost(app, speaks_to_s3, at_once=1, wait_s=5)) as http:
        gone = asyncio.ensure_future(http.post("/api/v1/assets"))
        while not app.inside:
            await asyncio.sleep(0.01)
        waits = asyncio.ensure_future(http.post("/api/v1/assets"))
        gone.cancel()
        app.ends.set()
        assert (await waits).text == "done"
