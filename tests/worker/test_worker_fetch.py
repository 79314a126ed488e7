"""Inputs that are elsewhere: URLs past the guard, assets and s3:// by what Hearth tells; all before the GPU begins."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.worker.fakes import FAST, FakeComfy, FakeHearth, Server, handled, job, load_workflow, png
from worker import comfy as comfy_module
from worker import fetch

ASSET = "asset:01234567-89ab-7def-8123-456789abcdef"
PICTURE = png()


class Files(Server):
    """Serves what the test says by path: (status, body, headers), one after the other, the last for ever."""

    def __init__(self, **answers: list[tuple[int, bytes, dict[str, str]]]) -> None:
        super().__init__()
        self.answers, self.asked = answers, []
        self.app.router.add_get("/{name}", self._answer)
        self.asked: list[str] = []

    async def _answer(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.asked.append(name)
        listed = self.answers[name.partition(".")[0]]
        status, body, headers = listed.pop(0) if len(listed) > 1 else listed[0]
        return web.Response(status=status, body=body, headers=headers)


class Silent(Server):
    """Takes a request and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.app.router.add_get("/{name}", self._hang)

    async def _hang(self, request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()


def ok(body: bytes = PICTURE, **headers: str) -> list[tuple[int, bytes, dict[str, str]]]:
    return [(200, body, headers)]


@asynccontextmanager
async def comfy() -> AsyncIterator[Any]:
    async with FakeComfy(lambda fake, prompt_id: fake.finish(prompt_id)) as fake:
        yield fake


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE_S", 0.01)


async def run(fake: Any, given: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return await handled(fake.url, given, **{**FAST, **settings})


async def test_a_url_in_files_is_fetched_and_put_under_its_name() -> None:
    async with comfy() as fake, Files(a=ok()) as files:
        given = job(load_workflow("in.png"), files={"in.png": f"{files.url}/a?sig=%2F"})
        assert "error" not in await run(fake, given)
        assert fake.uploaded == [PICTURE]
        assert fake.prompts[0]["prompt"]["1"]["inputs"]["image"] == fake.uploads[0]
        assert fake.uploads[0].endswith("/in.png")


async def test_a_url_stands_for_an_uploaded_file_in_the_workflow_and_is_text_elsewhere() -> None:
    async with comfy() as fake, Files(a=ok()) as files:
        url = f"{files.url}/a.png"
        workflow = load_workflow(url) | {"7": {"class_type": "CLIPTextEncode", "inputs": {"text": url}}}
        workflow |= {"8": {"class_type": "LoadImage", "inputs": {"image": url}}}
        workflow |= {"9": {"class_type": "Unknown", "inputs": {"image": url, "s3": "s3://b/k"}}}
        assert "error" not in await run(fake, job(workflow))
        sent = fake.prompts[0]["prompt"]
        assert fake.uploads == [sent["1"]["inputs"]["image"]] == [sent["8"]["inputs"]["image"]]
        assert fake.uploads[0].endswith("/a.png")
        assert sent["7"]["inputs"]["text"] == sent["9"]["inputs"]["image"] == url
        assert sent["9"]["inputs"]["s3"] == "s3://b/k"
        assert files.asked == ["a.png"]


async def test_a_url_without_an_ending_gets_its_types() -> None:
    async with comfy() as fake, Files(a=ok(**{"Content-Type": "image/png"})) as files:
        await run(fake, job(load_workflow(f"{files.url}/a")))
        assert fake.uploads[0].endswith("/a.png")


async def test_assets_and_objects_are_had_where_hearth_says() -> None:
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    async with comfy() as fake, Files(a=ok(), b=ok(b"film")) as files, FakeHearth() as hearth:
        told = {"url": f"{files.url}/a", "trusted": True, "name": "seed.png", "bytes": len(PICTURE), "sha256": sha256}
        sources = {ASSET: told, "s3://in/f.mp4": {"url": f"{files.url}/b"}}
        field = hearth.field | {"inputs": sources}
        given = job(load_workflow(ASSET), files={"clip.mp4": "s3://in/f.mp4"}, _hearth=field)
        assert "error" not in await run(fake, given)
        assert sorted(fake.uploaded) == sorted([PICTURE, b"film"])
        assert {name.rpartition("/")[2] for name in fake.uploads} == {"seed.png", "clip.mp4"}
        assert "started" in hearth.verbs()


async def test_an_asset_is_one_wherever_it_stands() -> None:
    async with comfy() as fake, Files(a=ok()) as files, FakeHearth() as hearth:
        field = hearth.field | {"inputs": {ASSET: {"url": f"{files.url}/a", "trusted": True, "name": "x.png"}}}
        workflow = {"1": {"class_type": "Unknown", "inputs": {"anything": ASSET, "other": f" {ASSET}"}}}
        await run(fake, job(workflow, _hearth=field))
        sent = fake.prompts[0]["prompt"]["1"]["inputs"]
        assert sent == {"anything": fake.uploads[0], "other": f" {ASSET}"}


BAD: dict[str, Any] = {
    "missing": ([(404, b"", {})], "bad_input", "answers HTTP 404"),
    "moved": ([(302, b"", {"Location": "/ok"})], "bad_input", "a redirect, which is not followed"),
    "ill": ([(503, b"", {})], "input_unavailable", "answers HTTP 503, tried 3 times"),
    "large": (ok(b"x" * 2001), "bad_input", "may have 2000 bytes together"),
    "empty": (ok(b""), "bad_input", "it is empty"),
    "page": (ok(b"\n<!DOCTYPE html><html>login"), "bad_input", "an HTML page"),
    "packed": (ok(b"x", **{"Content-Encoding": "gzip"}), "bad_input", "compressed, unasked"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_cannot_be_had_fails_the_job_before_it_starts(name: str) -> None:
    answers, code, said = BAD[name]
    async with comfy() as fake, Files(**{name: answers}, ok=ok()) as files, FakeHearth() as hearth:
        given = job(load_workflow("x.png"), files={"x.png": f"{files.url}/{name}?secret"}, _hearth=hearth.field)
        result = await run(fake, given, input_max_bytes=2000)
        assert result["code"] == code
        assert said in result["error"]
        assert "input file 'x.png'" in result["error"]
        assert "secret" not in result["error"]
        assert "started" not in hearth.verbs()
        assert fake.prompts == []


async def test_all_files_of_a_job_count_together() -> None:
    async with comfy() as fake, Files(a=ok(b"x" * 1200), b=ok(b"y" * 1200)) as files:
        urls = {name: f"{files.url}/{name}" for name in "ab"}
        given = job(load_workflow("a"), files=urls)
        assert "may have 2000 bytes together" in (await run(fake, given, input_max_bytes=2000))["error"]
        assert "error" not in await run(fake, given, input_max_bytes=2400)


async def test_what_a_broken_try_has_read_counts_no_more() -> None:
    told = [(500, b"x" * 1900, {}), *ok(b"x" * 1900)]
    async with comfy() as fake, Files(a=told) as files:
        assert "error" not in await run(fake, job(load_workflow(f"{files.url}/a.png")), input_max_bytes=2000)


async def test_a_server_that_sends_nothing_fails_the_job_in_time() -> None:
    async with comfy() as fake, Silent() as silent:
        result = await run(fake, job(load_workflow("a"), files={"a": f"{silent.url}/x"}), input_s=0.3)
        assert result["code"] == "input_unavailable"
        assert "too slow; a job's input files may take 0.3 s together" in result["error"]
        assert fake.prompts == []


async def test_no_more_than_a_hundred_files_are_fetched() -> None:
    async with comfy() as fake, Files() as files:
        urls = {f"{number}.png": f"{files.url}/{number}" for number in range(101)}
        result = await run(fake, job(load_workflow("1.png"), files=urls))
        assert "names 101 files" in result["error"]
        assert files.asked == []


async def test_what_is_too_large_for_comfyui_is_not_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI would break the connection off, and look as if it had crashed."""
    monkeypatch.setattr(comfy_module, "ALWAYS_TAKEN_BYTES", 5000)
    async with comfy() as fake, Files(a=ok(b"x" * 6000), b=ok(b"x" * 5001)) as files:
        result = await run(fake, job(load_workflow("a"), files={"a": f"{files.url}/a"}))
        assert result["code"] == "bad_input"
        assert "takes at most 10000" in result["error"]
        assert fake.uploads == []
        assert "error" not in await run(fake, job(load_workflow("b"), files={"b": f"{files.url}/b"}))


async def test_a_server_that_comes_back_is_asked_again() -> None:
    async with comfy() as fake, Files(a=[(500, b"", {}), (429, b"", {}), *ok()]) as files:
        assert "error" not in await run(fake, job(load_workflow(f"{files.url}/a.png")))
        assert len(files.asked) == 3


async def test_other_bytes_than_were_uploaded_are_refused() -> None:
    async with comfy() as fake, Files(a=ok()) as files, FakeHearth() as hearth:
        for wrong in ({"sha256": "0" * 64}, {"bytes": 3}):
            field = hearth.field | {"inputs": {ASSET: {"url": f"{files.url}/a", "trusted": True} | wrong}}
            result = await run(fake, job(load_workflow(ASSET), _hearth=field))
            assert result["code"] == "bad_input"
            assert "came" in result["error"]


@pytest.mark.parametrize("ref", [ASSET, "s3://bucket/key.png"])
async def test_what_only_hearth_knows_is_refused_without_it(ref: str) -> None:
    async with comfy() as fake:
        result = await run(fake, job(load_workflow("x.png"), files={"x.png": ref}))
        assert result["code"] == "bad_input"
        assert f"'x.png' ({ref})" in result["error"]
        assert "Hearth has told no place of it" in result["error"]


async def test_the_reason_that_hearth_gives_is_told() -> None:
    async with comfy() as fake, FakeHearth() as hearth:
        field = hearth.field | {"inputs": {"s3://b/k": {"url": "", "fault": "its bucket was deleted"}}}
        result = await run(fake, job(load_workflow("x.png"), files={"x.png": "s3://b/k"}, _hearth=field))
        assert result["error"].endswith("its bucket was deleted")


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/x.png", "http://example.com/x.png", "https://[::1]/x"])
async def test_private_addresses_and_plain_http_are_refused(url: str) -> None:
    async with comfy() as fake:
        result = await run(fake, job(load_workflow(url)), url_allow=())
        assert result["code"] == "bad_input"
        assert "its address is refused" in result["error"]


async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]

    async def looked_up(self: Any, host: str, *args: Any, **more: Any) -> Any:
        return found if host == "files.example.com" else await real(self, host, *args, **more)

    real = asyncio.BaseEventLoop.getaddrinfo
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    async with comfy() as fake:
        result = await run(fake, job(load_workflow("https://files.example.com/x.png")), url_allow=())
        assert "address 10.0.0.7 is not public" in result["error"]


async def test_a_url_is_fetched_by_a_worker_alone_too() -> None:
    async with comfy() as fake, Files(a=ok()) as files:
        given = {
            "id": "1",
            "input": {"workflow": load_workflow("x"), "images": [{"name": "x", "url": f"{files.url}/a"}]},
        }
        assert "error" not in await run(fake, given)
        assert fake.uploaded == [PICTURE]
