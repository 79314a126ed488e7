"""Play a recording again: send its requests, hear its messages, compare."""

import asyncio
import base64
import io
import json
import struct
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image, ImageChops

from .client import Client, Socket
from .recordings import Likeness, recording

FEATURES_WANTED = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
COMPARED_HEADERS = ("Content-Type", "Content-Disposition", "Accept-Ranges", "Allow")
IDLE = {"kind": "note", "text": "idle"}
"""An event of ours to put between the recorded ones: wait until nothing runs."""
SETTLE_S = 0.15
"""The recorder's pauses, shortened: before /interrupt, so that the node announced last has begun; after /free, which
the executor heeds between prompts."""
PRESENT_HEADERS = ("Etag", "Last-Modified")


def replay(url: str, name: str, **how: Any) -> None:
    """Play one recording; `how` as for play()."""
    asyncio.run(play(url, recording(name), **how))


async def play(url: str, events: list[dict[str, Any]], *, ends_idle: bool = True, **how: Any) -> None:
    """Play events one after the other; `how` as for Replay. The server is idle afterwards, if it ever gets idle."""
    async with Client.to(url) as client:
        again = Replay(client, **how)
        for event in events:
            try:
                await getattr(again, f"on_{event['kind']}")(event)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{json.dumps(event)[:600]}\n{type(error).__name__} {error}") from error
        if ends_idle:
            await client.idle()


class Replay:
    """forms: the bodies of the multipart requests, in order: recordings do not hold them.

    racing: `status` messages are left out of the comparison, since what they count depends on who was quicker.
    leaves_early: sockets that the client closes while prompts run; at any other's end nothing may be left unread.
    meanwhile: called at each note of the recorder, who then did something to the server.
    """

    def __init__(
        self,
        client: Client,
        forms: Iterable[Any] = (),
        racing: bool = False,
        leaves_early: str = "",
        meanwhile: Callable[[], None] = lambda: None,
    ):
        self.client, self.forms, self.racing, self.leaves_early = client, iter(forms), racing, leaves_early
        self.meanwhile = meanwhile
        self.like = Likeness()
        self.sockets: dict[str, Socket] = {}
        self.last_prompt_id = ""

    async def on_http(self, event: dict[str, Any]) -> None:
        """Send the recorded request and compare the answer."""
        asked, answered = event["request"], event["response"]
        body = {"json": asked["json"]} if asked["json"] is not None else {"data": asked["raw"]}
        if asked["multipart"]:
            body = {"data": next(self.forms)}
        path = self.like.translate(asked["path"])
        if path == "/interrupt":
            await asyncio.sleep(SETTLE_S)
        status, response, content = await self.client.request(asked["method"], path, headers=asked["headers"], **body)
        assert status == answered["status"], (status, content[:500])
        self.headers(answered["headers"], response.headers)
        if path == "/system_stats" and status == 200:
            assert shape(json.loads(content)) == shape(answered["body"]["json"])
        else:
            self.body(answered["body"], content)
        if asked["method"] == "POST" and path == "/prompt" and status == 200:
            self.last_prompt_id = json.loads(content)["prompt_id"]
        if event["note"] == "blocker":
            await self.client.is_running(self.last_prompt_id)
        if path == "/free":
            await asyncio.sleep(SETTLE_S)

    def headers(self, recorded: dict[str, str], seen: Any) -> None:
        for name in COMPARED_HEADERS:
            if "Transfer-Encoding" not in recorded:
                assert self.like.translate(recorded.get(name, "")) == seen.get(name, ""), name
        for name in PRESENT_HEADERS:
            assert (name in recorded) == (name in seen), name
        assert recorded.get("Content-Range", "").split("/")[0] == seen.get("Content-Range", "").split("/")[0]

    def body(self, recorded: dict[str, Any], seen: bytes) -> None:
        if "json" in recorded:
            self.like.check(recorded["json"], without_prose(json.loads(seen)))
        elif "text" in recorded:
            assert recorded["text"] == seen.decode()
        else:
            assert seen[:4].hex() == recorded["head_hex"][:8]

    async def on_ws(self, event: dict[str, Any]) -> None:
        label: str = event["sock"]
        if "binary" in event:
            self.binary(base64.b64decode(event["binary"]["base64"]), await self.heard(label))
            return
        recorded = event["text"]
        if label not in self.sockets:
            sid = recorded["data"]["sid"]
            self.sockets[label] = await self.client.listen("" if len(sid) == 32 else sid)
        if recorded["type"] == "feature_flags":
            await self.sockets[label].ws.send_json(FEATURES_WANTED)
        if not (self.racing and is_plain_status(recorded)):
            self.check_text(recorded, await self.heard(label))

    def check_text(self, recorded: dict[str, Any], seen: Any) -> None:
        if self.racing and recorded["type"] == "status":
            assert recorded["data"]["sid"] == seen["data"]["sid"]
        else:
            self.like.check(recorded, seen)

    async def heard(self, label: str) -> Any:
        message = await self.sockets[label].next()
        while self.racing and is_plain_status(message):
            message = await self.sockets[label].next()
        return message

    def binary(self, recorded: bytes, seen: bytes) -> None:
        """Equal headers, metadata and pictures; a picture may be off by a level."""
        assert recorded[:4] == seen[:4]
        pictures = []
        for message in (recorded, seen):
            length = struct.unpack(">I", message[4:8])[0] if message[3] == 4 else 0
            pictures.append(Image.open(io.BytesIO(message[8 + length :])))
        if recorded[3] == 4:
            self.like.check(metadata(recorded), metadata(seen))
        else:
            assert recorded[4:8] == seen[4:8]
        assert furthest(*pictures) <= 1

    async def on_ws_closed(self, event: dict[str, Any]) -> None:
        label = event["sock"]
        if label not in self.leaves_early:
            await self.client.idle()
            await asyncio.sleep(SETTLE_S / 4)
            heard = [self.sockets[label].heard.get_nowait() for _ in range(self.sockets[label].heard.qsize())]
            assert [message for message in heard if not (self.racing and may_be_left(message))] == []
        await self.sockets[label].close()

    async def on_png_text(self, event: dict[str, Any]) -> None:
        """What travels inside the one picture that this recording made."""
        entry = (await self.client.json("GET", f"/history/{self.last_prompt_id}"))[self.last_prompt_id]
        (shown,) = [file for node in entry["outputs"].values() for file in node["images"]]
        picture = Image.open(io.BytesIO(await self.client.file(shown)))
        assert picture.info == event["text"]

    async def on_note(self, event: dict[str, Any]) -> None:
        """What the recorder did besides, in words."""
        if event is IDLE:
            await self.client.idle()
        else:
            self.meanwhile()

    async def on_result(self, event: dict[str, Any]) -> None:
        """queue_still_works: the prompt sent last was executed."""
        if event["queue_still_works"]:
            await self.client.idle()
        else:
            await asyncio.sleep(0.5)
        assert (self.last_prompt_id in await self.client.json("GET", "/history")) == event["queue_still_works"]


def is_plain_status(message: Any) -> bool:
    return isinstance(message, dict) and message["type"] == "status" and "sid" not in message["data"]


def shape(value: Any) -> Any:
    """The keys, and whether values are numbers."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) else isinstance(value, int)


def without_prose(answer: Any) -> Any:
    """What the recordings leave out of node classes."""
    if isinstance(answer, list):
        return [without_prose(value) for value in answer]
    if not isinstance(answer, dict):
        return answer
    left_out = ("tooltip", "description", "python_module")
    return {key: without_prose(value) for key, value in answer.items() if key not in left_out}


def may_be_left(message: Any) -> bool:
    """A recording may end between the last status and `executing` null."""
    return is_plain_status(message) or (message["type"], message["data"].get("node", "")) == ("executing", None)


def metadata(message: bytes) -> Any:
    return json.loads(message[8 : 8 + struct.unpack(">I", message[4:8])[0]])


def furthest(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures in any band of any pixel."""
    assert (one.size, one.mode) == (other.size, other.mode)
    return max(max(band.tobytes()) for band in ImageChops.difference(one, other).split())
