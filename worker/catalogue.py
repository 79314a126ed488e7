"""Tells Hearth which nodes this worker's ComfyUI has (its /object_info), so that a workflow is checked before a GPU is
used: before the first job is taken, and again when they have changed.

Hearth keeps each catalogue once, by its hash; so what changes without a meaning is left out, and what jobs leave in
ComfyUI's folders too: those names are tenants'.
"""

import asyncio
import gzip
import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from worker.kinds import is_model
from worker.settings import Settings
from worker.wire import is_core, lists_files

log = logging.getLogger("hearth.worker")
BUSY_TIMES = 5  # ComfyUI makes its catalogue on its event loop, up to a second of it: seldom while it works
FETCH_S, POST_S, TRIES, PAUSE_S = 60, 30, 3, 1.0
TAKE = "/job-take/$ID"


class Catalogue:
    """url: where Hearth takes it. What goes wrong is logged: it never keeps the worker from its jobs."""

    def __init__(self, settings: Settings, url: str, worker_key: str) -> None:
        self._comfyui, self._start_s, self._again_s = settings.comfyui_url, settings.start_s, settings.catalogue_s
        self._url, self._headers = url, {"Authorization": f"Bearer {worker_key}"}
        self._first: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._told = ""

    @classmethod
    def of(cls, env: Mapping[str, str], settings: Settings) -> "Catalogue | None":
        """None for a worker that is not Hearth's."""
        take_url = env.get("RUNPOD_WEBHOOK_GET_JOB", "")
        if not settings.worker_name or TAKE not in take_url:
            return None
        url = take_url.replace(TAKE, f"/catalogue/{quote(env['RUNPOD_POD_ID'], safe='')}")
        return cls(settings, url, env.get("RUNPOD_AI_API_KEY", ""))

    async def posted(self) -> None:
        """Returns once Hearth was told, or would not hear of it; it is told again from then on."""
        if self._first is None:
            self._first = asyncio.ensure_future(self._begin())
        await asyncio.shield(self._first)  # the SDK gives up a poll after 90 s

    async def _begin(self) -> None:
        for number in range(TRIES):
            await asyncio.sleep(PAUSE_S * number)
            if await self._round(patient=number == 0):
                break
        self._rounds = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._again_s)
            await self._round()

    async def _round(self, *, patient: bool = False) -> bool:
        """Look and tell; whether Hearth knows now, or will not."""
        try:
            async with aiohttp.ClientSession() as session:
                if not patient and await self._busy(session):
                    return True
                body = await asyncio.to_thread(normal, await self._object_info(session, patient))
                self._looked_at = time.monotonic()
                return await self._tell(session, body)
        except Exception as error:  # whatever it is, the jobs go on
            log.warning("Hearth was not told of ComfyUI's nodes: %s: %s", type(error).__name__, error)
            return isinstance(error, aiohttp.ClientResponseError)  # ComfyUI has answered that it cannot tell

    async def _busy(self, session: aiohttp.ClientSession) -> bool:
        """Whether ComfyUI works, and was looked at lately enough."""
        if time.monotonic() - self._looked_at > BUSY_TIMES * self._again_s:
            return False
        async with asyncio.timeout(FETCH_S), session.get(f"{self._comfyui}/prompt") as answer:
            return bool((await answer.json())["exec_info"]["queue_remaining"])

    async def _object_info(self, session: aiohttp.ClientSession, patient: bool) -> bytes:
        """As ComfyUI tells it; a patient look waits until it has come up."""
        deadline = time.monotonic() + (self._start_s if patient else 0)
        while True:
            try:
                async with asyncio.timeout(FETCH_S), session.get(f"{self._comfyui}/object_info") as answer:
                    answer.raise_for_status()
                    return await answer.read()
            except aiohttp.ClientConnectorError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(min(0.5, self._start_s))

    async def _tell(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        sha256 = hashlib.sha256(body).hexdigest()
        status = await self._send(session, "POST", json={"sha256": sha256})
        if status == 409:
            packed = await asyncio.to_thread(gzip.compress, body, mtime=0)
            status = await self._send(session, "PUT", data=packed)
        if status != 200:
            log.warning("Hearth did not take ComfyUI's node catalogue: HTTP %d", status)
        elif sha256 != self._told:
            log.info("Hearth has ComfyUI's node catalogue %s", sha256[:12])
            self._told = sha256
        return status < 500

    async def _send(self, session: aiohttp.ClientSession, method: str, **content: Any) -> int:
        async with (
            asyncio.timeout(POST_S),
            session.request(method, self._url, headers=self._headers, **content) as answer,
        ):
            await answer.read()
            return answer.status


def normal(object_info: bytes) -> bytes:
    """/object_info, only with what decides whether a workflow is accepted. ValueError: it is none."""
    classes = json.loads(object_info)
    if not isinstance(classes, dict):
        raise ValueError("ComfyUI's /object_info is no object")
    known = {name: info for name, info in classes.items() if isinstance(info, dict)}
    files = {file for name, info in known.items() for file in _files(name, info)}
    kept = {name: _node(name, info, files) for name, info in sorted(known.items())}
    return json.dumps(kept, separators=(",", ":")).encode()


def _inputs(info: Mapping[str, Any], category: str) -> dict[str, Any]:
    declared = info.get("input")
    inputs = declared.get(category) if isinstance(declared, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _files(name: str, info: Mapping[str, Any]) -> set[str]:
    """The files of ComfyUI's folders that a class offers."""
    inputs = (_inputs(info, "required") | _inputs(info, "optional")).items()
    lists = (config[0] for key, config in inputs if _is_list(config) and lists_files(name, key, _options(config)))
    return {file for listed in lists for file in listed if isinstance(file, str)}


def _node(name: str, info: Mapping[str, Any], files: set[str]) -> dict[str, Any]:
    core = is_core(info.get("python_module"))
    kept = {
        category: {key: _input(name, core, key, config, files) for key, config in _inputs(info, category).items()}
        for category in ("required", "optional")
    }
    told = {key: info[key] for key in ("output", "output_node", "python_module") if key in info}
    return {"input": kept, **told}


def _input(name: str, core: bool, key: str, config: Any, files: set[str]) -> list[Any]:
    """Its type or choices, and the options that bound it; choices that are not judged are only said to be some."""
    if not isinstance(config, list) or not config:
        return []
    kind, options = config[0], _options(config)
    if isinstance(kind, list):
        scalars = all(isinstance(value, str | int | float) for value in kind)
        judged = scalars and (core or any(map(is_model, kind))) and files.isdisjoint(kind)
        kind = kind if judged and not lists_files(name, key, options) else "COMBO"
    bounds = {bound: options[bound] for bound in ("min", "max") if _is_finite(options.get(bound))}
    several = ("multiselect", "multi_select")
    flags = {flag: True for flag, on in options.items() if (flag in several or flag.endswith("upload")) and on}
    return [kind, bounds | flags]


def _is_list(config: Any) -> bool:
    return isinstance(config, list) and bool(config) and isinstance(config[0], list)


def _options(config: list[Any]) -> dict[str, Any]:
    return config[1] if len(config) > 1 and isinstance(config[1], dict) else {}


def _is_finite(bound: Any) -> bool:
    return isinstance(bound, int | float) and math.isfinite(bound)
