"""ComfyUI's HTTP API and the opening of its WebSocket, as protocol/comfyui.md records them.

Every failure is a JobError that says which way ComfyUI failed: unreachable (never came up), crashed (no longer
accepts connections), hangs (accepts, does not answer), disk_full or rejected.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from worker.errors import JobError, disk_full
from worker.rejected import rejected, says_disk_full
from worker.settings import Settings
from worker.spool import Spool
from worker.wire import takes_files

T = TypeVar("T")
Place = Literal["running", "pending"]
UPLOAD_BYTES_A_SECOND = 1024**2  # slower than this is taken for hanging
HISTORY_ENTRIES = 1000  # ComfyUI keeps ten times as many, each with its workflow
ALWAYS_TAKEN_BYTES, FORM_BYTES = 32 * 1024**2, 4096  # ComfyUI takes 100 MiB by default, the form around it included


class Comfy:
    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._node_classes: dict[str, dict[str, Any]] = {}
        self._shown = str(URL(settings.comfyui_url).with_user(None))  # messages carry no password

    async def connect(self, client_id: str) -> aiohttp.ClientWebSocketResponse:
        """A new socket for this client id; frames of any size, since whole images come over it."""
        limits = aiohttp.ClientWSTimeout(ws_close=1.0)
        url = self._url("/ws").with_query(clientId=client_id)

        async def attempt() -> aiohttp.ClientWebSocketResponse:
            socket = await self._session.ws_connect(url, max_msg_size=0, timeout=limits)
            # Images on the socket then name their prompt and node; it must be the first message.
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            return socket

        return await self._patiently(attempt)

    async def when_up(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do it as soon as ComfyUI accepts connections, for which it may take start_s: it may still be booting."""
        deadline = time.monotonic() + self.settings.start_s
        while True:
            try:
                return await attempt()
            except JobError as error:
                if error.code != "comfyui_crashed":
                    raise
                if time.monotonic() > deadline:
                    raise self._unreachable() from error
            await asyncio.sleep(min(0.5, self.settings.start_s))

    async def upload(self, folder: str, name: str, body: Spool) -> str:
        """Put an input file there; how a workflow refers to it, which is what ComfyUI answers, not what was asked."""
        subfolder, _, filename = f"{folder}/{name}".rpartition("/")
        await self._check_upload(name, body.size)

        async def attempt() -> tuple[int, str]:
            form = aiohttp.FormData({"subfolder": subfolder, "type": "input"})
            form.add_field("image", body.reader(), filename=filename, content_type="application/octet-stream")
            return await self._post("/upload/image", data=form)

        seconds = self.settings.http_s + body.size / UPLOAD_BYTES_A_SECOND
        status, said = await self.when_up(lambda: self._patiently(attempt, seconds=seconds))
        if says_disk_full(said):
            raise disk_full(f"ComfyUI could not take the input file {name!r}")
        if status != 200:
            raise JobError(f"ComfyUI refused the input file {name!r}: HTTP {status} {said[:200]}".strip(), "bad_input")
        given = json.loads(said)
        return f"{given['subfolder']}/{given['name']}"

    async def _check_upload(self, name: str, size: int) -> None:
        """ComfyUI breaks off what is too large for it, which would look like a fault of its own."""
        if size <= ALWAYS_TAKEN_BYTES:
            return
        most = (await self.when_up(lambda: self._get("/features"))).get("max_upload_size")
        if isinstance(most, int) and size > most - FORM_BYTES:
            raise JobError(
                f"the input file {name!r} has {size} bytes, and this worker's ComfyUI takes at most {most}; send a"
                " smaller one, or have ComfyUI started with a larger --max-upload-size",
                "bad_input",
            )

    async def takes_files(self, node_class: str, name: str) -> bool:
        """Whether this input of the class names an uploaded file."""
        if node_class not in self._node_classes:
            path = f"/object_info/{quote(node_class, safe='')}"
            found = (await self.when_up(lambda: self._get(path))).get(node_class)
            if not isinstance(found, dict):  # it will be refused as unknown
                return False
            self._node_classes[node_class] = found.get("input") or {}
        declared = self._node_classes[node_class]
        for category in ("required", "optional"):
            config = (declared.get(category) or {}).get(name)
            if isinstance(config, list) and len(config) > 1 and isinstance(config[1], dict):
                return takes_files(node_class, name, config[1])
        return takes_files(node_class, name, {})

    async def submit(
        self, prompt_id: str, client_id: str, workflow: dict[str, Any], *, previews: bool = False
    ) -> dict[str, Any]:
        """POST /prompt, once: ComfyUI may answer 500 and queue it all the same (comfyui.md [53]), so what became of
        an unclear answer is looked up. Returns the node_errors of a workflow that was accepted in part.

        previews: of samplers, which ComfyUIs since the end of 2025 make for a prompt that asks; older ones by their
        own setting only."""
        prompt = {"prompt": workflow, "prompt_id": prompt_id, "client_id": client_id}
        prompt |= {"extra_data": {"preview_method": "auto"}} if previews else {}
        try:
            async with asyncio.timeout(self.settings.http_s * self.settings.http_tries):
                status, body = await self._post("/prompt", json=prompt)
        except (aiohttp.ClientError, TimeoutError) as error:
            if await self.has(prompt_id):
                return {}
            raise self._no_answer(error) from error
        if status == 200:
            errors: dict[str, Any] = json.loads(body).get("node_errors") or {}
            return errors
        if status >= 500 and await self.has(prompt_id):
            return {}
        raise rejected(status, body, workflow)

    async def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The entry of a prompt that has ended; ComfyUI writes it up to half a second after saying so."""
        entry: dict[str, Any] | None = (await self._get(f"/history/{prompt_id}")).get(prompt_id)
        return entry

    async def place(self, prompt_id: str) -> Place | None:
        """Where in ComfyUI's queue the prompt is; None if it ended or was never there."""
        queue = await self._get("/queue")
        for place, key in (("running", "queue_running"), ("pending", "queue_pending")):
            if any(item[1] == prompt_id for item in queue[key]):
                return place  # type: ignore[return-value]
        return None

    async def has(self, prompt_id: str) -> bool:
        # The queue first: a prompt leaves it for the history, never the other way.
        return await self.place(prompt_id) is not None or await self.history(prompt_id) is not None

    async def sent_by(self, client_ids: str) -> dict[str, Any]:
        """The graphs of the prompts in the queue and the newest of the history, by prompt id, that were sent with a
        client id that begins so."""
        queue = await self._get("/queue")
        history = await self._get(f"/history?max_items={HISTORY_ENTRIES}")
        ended = (entry.get("prompt") for entry in history.values() if isinstance(entry, dict))
        items = [*queue["queue_running"], *queue["queue_pending"], *ended]
        return {item[1]: item[2] for item in items if _client_id(item).startswith(client_ids)}

    async def let_go(self, prompt_id: str) -> bool:
        """Take this prompt and no other out of the queue or off the machine. True: it was still there, since it runs on
        to its next node."""
        place = await self.place(prompt_id)
        if place == "pending":
            await self._tell("/queue", {"delete": [prompt_id]})
        elif place == "running":
            await self._tell("/interrupt", {"prompt_id": prompt_id})
        return place is not None

    async def is_free(self) -> bool:
        """Whether it answers now, at the first try, and has nothing to do."""
        async with asyncio.timeout(self.settings.http_s), self._session.get(self._url("/queue")) as response:
            response.raise_for_status()
            queue = await response.json()
            return not queue["queue_running"] and not queue["queue_pending"]

    async def free(self, *, models: bool) -> None:
        """Have it empty its node cache, and unload its models, after the prompt that runs."""
        await self._tell("/free", {"unload_models": models, "free_memory": True})

    async def forget(self, prompt_id: str) -> None:
        """Delete its history entry: the next tenant's prompt runs on the same ComfyUI."""
        await self._tell("/history", {"delete": [prompt_id]})

    async def view(self, where: dict[str, str], write: Callable[[bytes], None]) -> int:
        """Stream a file of /view into `write`; the HTTP status, and nothing was written unless it is 200."""
        quiet = self.settings.http_s * self.settings.http_tries
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self.settings.http_s, sock_read=quiet)
        try:
            async with self._session.get(self._url("/view").with_query(where), timeout=limits) as response:
                if response.status == 200:
                    async for chunk in response.content.iter_any():
                        write(chunk)
                return response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._no_answer(error) from error

    async def _get(self, path: str) -> dict[str, Any]:
        async def attempt() -> dict[str, Any]:
            async with self._session.get(self._url(path)) as response:
                response.raise_for_status()
                found: dict[str, Any] = await response.json()
                return found

        return await self._patiently(attempt)

    async def _tell(self, path: str, body: dict[str, Any]) -> None:
        await self._patiently(lambda: self._post(path, json=body))

    async def _post(self, path: str, **content: Any) -> tuple[int, str]:
        async with self._session.post(self._url(path), **content) as response:
            return response.status, await response.text()

    async def _patiently(self, attempt: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        """Try http_tries times, http_s each. A refused connection is not tried again: nobody is there."""
        for left in reversed(range(self.settings.http_tries)):
            try:
                async with asyncio.timeout(seconds or self.settings.http_s):
                    return await attempt()
            except (aiohttp.ClientError, TimeoutError) as error:
                if not left or _refused(error):
                    raise self._no_answer(error) from error
            await asyncio.sleep(min(1.0, self.settings.http_s / 10))
        raise AssertionError("http_tries is at least 1")

    def _url(self, path: str) -> URL:
        return URL(self.settings.comfyui_url + path)

    def _unreachable(self) -> JobError:
        return JobError(
            f"ComfyUI could not be reached at {self._shown} for {self.settings.start_s:g} s; "
            "start it, or set COMFYUI_URL",
            "comfyui_unreachable",
        )

    def _no_answer(self, error: Exception) -> JobError:
        if isinstance(error, aiohttp.ClientConnectorError):
            return JobError(
                f"ComfyUI at {self._shown} no longer accepts connections: it crashed or was stopped "
                f"({error.os_error}); look at its log and run the job again",
                "comfyui_crashed",
            )
        if isinstance(error, aiohttp.ClientResponseError):
            reason = f"answers HTTP {error.status} {error.message}"
        else:
            reason = "does not answer" if isinstance(error, TimeoutError) else f"breaks off ({type(error).__name__})"
        tries = f"{self.settings.http_tries} × {self.settings.http_s:g} s"
        return JobError(
            f"ComfyUI at {self._shown} accepts connections but {reason} (tried {tries}); "
            "restart it and run the job again",
            "comfyui_hangs",
        )


def _client_id(item: Any) -> str:
    """Of a prompt as the queue and the history show it: [number, prompt id, graph, extra_data, …]."""
    extra_data = item[3] if isinstance(item, list) and len(item) > 3 else None
    return str(extra_data.get("client_id")) if isinstance(extra_data, dict) else ""


def _refused(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)
