"""Uploads and /view: which names come back, what is refused, what a node later makes of a file."""

import asyncio
import uuid
from typing import Any

import aiohttp

from .client import Client
from .pictures import CORRUPT, TRUNCATED, WAV, png
from .recordings import recording
from .replay import IDLE, play, replay
from .servers import Standin

RED, BLUE, GREY = png((200, 30, 40)), png((0, 0, 250)), png((9, 9, 9))


def form(name: str, content: bytes, field: str = "image", **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field(field, content, filename=name)
    for key, value in fields.items():
        data.add_field(key, value)
    return data


def raw(name: str) -> bytes:
    """A multipart body with the file name exactly as given: aiohttp's client would escape it."""
    head = f'--BNDRY\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
    return head.encode() + b"Content-Type: image/png\r\n\r\n" + RED + b"\r\n--BNDRY--\r\n"


def test_uploads_are_named_as_recorded(comfy: str) -> None:
    tag = uuid.uuid4().hex
    up, up2, temp, out = f"up{tag}.png", f"up2{tag}.png", f"tmpup{tag}.png", f"outup{tag}.png"
    tone = f"tone{tag}.wav"
    events = recording("02_uploads", ("up.png", up), ("up2.png", up2), ("up (", f"up{tag} ("), ("tone.wav", tone))
    forms: list[Any] = [form(up, RED), form(up, RED), form(up, BLUE)]
    forms += [form(up, BLUE, overwrite="true"), form(up, RED, overwrite="1"), form(up, GREY, overwrite="True")]
    forms += [form(up2, RED, subfolder="job1"), form(temp, RED, type="temp"), form(out, RED, type="output")]
    forms += [form(up, RED, type="bogus"), form(up, RED, subfolder="../..")]
    forms += [form("../x.png", RED), form("sub/inner.png", RED), form(up, RED, field="file")]
    forms += [form(tone, WAV), form("corrupt.png", CORRUPT), form("trunc.png", TRUNCATED), form("zero.png", b"")]
    forms += [form("big.png", bytes(101 * 2**20))]
    asyncio.run(play(comfy, events, forms=forms))


def test_bad_requests_are_answered_as_recorded(comfy: str) -> None:
    up = f"up{uuid.uuid4().hex}.png"
    before = recording("20_prompt_partial_execution_targets")
    events = [*before, IDLE, *recording("21_other_bad_requests", ("up.png", up))]
    forms = [raw("../trav.png"), raw("sub-that-is-not-there/inner.png"), raw("/srv/abs.png")]
    asyncio.run(_upload(comfy, up, RED))
    asyncio.run(play(comfy, events, forms=forms))


async def _upload(url: str, name: str, content: bytes) -> None:
    async with Client.to(url) as client:
        await client.upload(name, content)


def test_new_bytes_under_an_old_name_are_loaded_anew(comfy: str) -> None:
    name = f"ow{uuid.uuid4().hex}.png"
    forms = [form(name, content, overwrite="true") for content in (RED, RED, BLUE)]
    asyncio.run(play(comfy, recording("41_loadimage_overwrite_invalidates", ("ow.png", name)), forms=forms))


def test_a_cached_run_names_a_file_that_may_be_gone(standin: Standin) -> None:
    saved = standin.folder / "output" / "rec" / "gone_00001_.png"
    replay(standin.url, "42_cached_output_file_deleted", meanwhile=saved.unlink)
