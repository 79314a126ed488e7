"""A client that speaks the wire protocol and nothing more."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

WAIT_S = 60


class Socket:
    """One WebSocket; what it hears is kept until it is read."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse):
        self.ws = ws
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            self.heard.put_nowait(json.loads(message.data) if message.type == aiohttp.WSMsgType.TEXT else message.data)

    async def next(self) -> Any:
        """A dict of a text message, bytes of a binary one."""
        return await asyncio.wait_for(self.heard.get(), WAIT_S)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """The messages up to and with the first of that type."""
        messages = [await self.next()]
        while messages[-1]["type"] != kind:
            messages.append(await self.next())
        return messages

    async def close(self) -> None:
        await self.ws.close()
        self.reader.cancel()


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str):
        self.session, self.url = session, url

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator["Client"]:
        async with aiohttp.ClientSession() as session:
            yield cls(session, url)

    @classmethod
    async def forget_cached(cls, url: str) -> None:
        """The cache holds only what the last prompt named: one with a text of its own empties it."""
        async with cls.to(url) as client:
            text = {"string_a": uuid.uuid4().hex, "string_b": "", "delimiter": ""}
            shown = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
            await client.run({"1": {"class_type": "StringConcatenate", "inputs": text}, "2": shown})

    async def request(self, method: str, path: str, **how: Any) -> tuple[int, aiohttp.ClientResponse, bytes]:
        """`path` goes out exactly as it is."""
        async with self.session.request(method, URL(self.url + path, encoded=True), **how) as response:
            return response.status, response, await response.read()

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        status, _, content = await self.request(method, path, json=body)
        assert status == 200, content
        return json.loads(content) if content else None

    async def upload(self, name: str, content: bytes, **fields: str) -> Any:
        form = aiohttp.FormData()
        form.add_field("image", content, filename=name)
        for field, value in fields.items():
            form.add_field(field, value)
        status, _, answer = await self.request("POST", "/upload/image", data=form)
        assert status == 200, answer
        return json.loads(answer)

    async def listen(self, client_id: str = "") -> Socket:
        return Socket(await self.session.ws_connect(f"{self.url}/ws" + (f"?clientId={client_id}" if client_id else "")))

    async def submit(self, graph: Any, **more: Any) -> str:
        return str((await self.json("POST", "/prompt", {"prompt": graph, **more}))["prompt_id"])

    async def run(self, graph: Any, **more: Any) -> Any:
        """Submit, wait, and give the history entry."""
        prompt_id = await self.submit(graph, **more)
        async with asyncio.timeout(WAIT_S):
            while not (entry := await self.json("GET", f"/history/{prompt_id}")):
                await asyncio.sleep(0.01)
        return entry[prompt_id]

    async def idle(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while (await self.json("GET", "/prompt"))["exec_info"]["queue_remaining"]:
                await asyncio.sleep(0.01)

    async def is_running(self, prompt_id: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while prompt_id not in [item[1] for item in (await self.json("GET", "/queue"))["queue_running"]]:
                await asyncio.sleep(0.01)

    async def file(self, shown: dict[str, str]) -> bytes:
        """The bytes of a history entry's {"filename", "subfolder", "type"}."""
        path = f"/view?filename={shown['filename']}&subfolder={shown['subfolder']}&type={shown['type']}"
        status, _, content = await self.request("GET", path)
        assert status == 200
        return content
