"""Routes beyond the recordings: what classes say of themselves, who may call, pages of the history."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from .client import Client
from .replay import without_prose
from .servers import ROOT
from .test_graphs import EMPTY, preview

INFO: dict[str, Any] = json.loads((ROOT / "worker" / "standin" / "node_info.json").read_text("utf-8"))
CLASSES = {name: info for name, info in INFO.items() if not name.startswith(("Standin", "VHS_"))}
"""Those that a ComfyUI without custom nodes has too."""
LOADERS = [("LoadImage", "image"), ("LoadImageMask", "image"), ("LoadAudio", "audio"), ("LoadLatent", "latent")]


async def answer(url: str, method: str, path: str, **how: Any) -> tuple[int, bytes]:
    async with Client.to(url) as client:
        status, _, content = await client.request(method, path, **how)
        return status, content


def test_classes_are_described_as_comfyui_describes_them(comfy: str) -> None:
    async def described(names: list[str]) -> dict[str, Any]:
        async with Client.to(comfy) as client:
            return {name: (await client.json("GET", f"/object_info/{name}"))[name] for name in names}

    seen = asyncio.run(described(sorted(CLASSES)))
    for name, given in LOADERS:
        seen[name]["input"]["required"][given][0] = []
    seen["LoadVideo"]["input"]["required"]["file"][1]["options"] = []
    for name, info in seen.items():
        assert without_prose(info) == without_prose(CLASSES[name])
        assert info["python_module"] == CLASSES[name]["python_module"]


def test_all_classes_come_in_one_answer_and_loaders_offer_what_was_uploaded(comfy: str) -> None:
    async def classes() -> Any:
        async with Client.to(comfy) as client:
            await client.upload("offered.png", b"", overwrite="true")
            await client.upload("offered.txt", b"", overwrite="true")
            await client.upload("offered.mp4", b"", overwrite="true")
            return await client.json("GET", "/object_info")

    seen = asyncio.run(classes())
    assert CLASSES.keys() <= seen.keys()
    offered = [seen[name]["input"]["required"][given][0] for name, given in LOADERS[:3]]
    offered.append(seen["LoadVideo"]["input"]["required"]["file"][1]["options"])
    uploaded = [[name for name in names if name.startswith("offered.")] for names in offered]
    assert uploaded == [
        ["offered.png"],
        ["offered.mp4", "offered.png", "offered.txt"],
        ["offered.mp4"],
        ["offered.mp4"],
    ]


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://{host}:{port}", 200), ("http://{host}", 200), ("http://{host}:1", 403), ("http://evil.example", 403)],
)
def test_a_browser_may_call_from_the_same_origin_only(comfy: str, origin: str, status: int) -> None:
    host, port = comfy.removeprefix("http://").split(":")
    headers = {"Origin": origin.format(host=host, port=port)}
    assert asyncio.run(answer(comfy, "GET", "/api/prompt", headers=headers))[0] == status


def test_a_socket_from_another_origin_is_refused(comfy: str) -> None:
    async def connect() -> int:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{comfy}/ws", headers={"Origin": "http://evil.example"})
            return refused.value.status

    assert asyncio.run(connect()) == 403


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("?max_items=2", ["b", "c"]),
        ("?max_items=0", []),
        ("?max_items=9", ["a", "b", "c"]),
        ("?offset=1", ["b", "c"]),
        ("?max_items=1&offset=1", ["b"]),
        ("?max_items=0&offset=0", ["a"]),
    ],
)
def test_the_history_is_paged_oldest_first(comfy: str, query: str, expected: list[str]) -> None:
    async def page() -> list[str]:
        async with Client.to(comfy) as client:
            await client.json("POST", "/history", {"clear": True})
            for prompt_id in ("a", "b", "c"):
                await client.run({"1": EMPTY, "2": preview("1")}, prompt_id=prompt_id)
            return list(await client.json("GET", f"/history{query}"))

    assert asyncio.run(page()) == expected


def test_a_first_message_that_is_not_about_features_uses_up_the_chance(comfy: str) -> None:
    async def ask() -> list[str]:
        async with Client.to(comfy) as client:
            socket = await client.listen("me")
            for message in ({"type": "hello"}, {"type": "feature_flags", "data": {"supports_preview_metadata": True}}):
                await socket.ws.send_json(message)
            await client.run({"1": EMPTY, "2": preview("1")})
            heard = [await socket.next() for _ in range(4)]
            await socket.close()
            return [message["type"] for message in heard]

    assert "feature_flags" not in asyncio.run(ask())
