"""What a picture, a film or a sound says of itself: its size in pixels and its length."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import av
from PIL import Image

from worker.aside import at_most
from worker.files import OutputFile

log = logging.getLogger("hearth.worker")
T = TypeVar("T")
LONGEST_S, AT_ONCE = 30, 2
MOST_PIXELS = 100_000_000  # of a picture that is decoded here


def pool(name: str) -> ThreadPoolExecutor:
    """What hangs in it on a strange file keeps nothing else waiting."""
    return ThreadPoolExecutor(AT_ONCE, name, _behind_others)


def _behind_others() -> None:
    """A thread that has the CPU when ComfyUI leaves it some."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


POOL = pool("media")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is not known, or makes no sense for the file, is None. Pictures that move have no duration here: only
    decoding all of one would tell it."""

    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None


async def facts_of(files: Sequence[OutputFile]) -> list[Facts]:
    """Of each file, in order. Never raises: facts are nice to have."""
    return await each_aside(_facts, files, Facts())


async def each_aside(do: Callable[[OutputFile], T], files: Sequence[OutputFile], otherwise: T) -> list[T]:
    """do(file) of each in a thread, in order; `otherwise` for what fails or takes longer than LONGEST_S."""
    return await at_most(AT_ONCE, lambda file: aside(POOL, do, file, otherwise), files)


async def aside(pool: ThreadPoolExecutor, do: Callable[[OutputFile], T], file: OutputFile, otherwise: T) -> T:
    """The same of one."""
    try:
        async with asyncio.timeout(LONGEST_S):
            return await asyncio.get_running_loop().run_in_executor(pool, do, file)
    except Exception as error:  # whatever a library makes of a file that a custom node wrote
        log.info("%s of node %s: %s says %r", file.name, file.node, do.__name__.strip("_"), error)
        return otherwise


def _facts(file: OutputFile) -> Facts:
    if file.kind == "image":
        with Image.open(file.body.reader()) as image:
            return Facts(width=image.width, height=image.height)
    if file.kind not in ("video", "audio"):
        return Facts()
    with av.open(file.body.reader(), "r") as container:
        pictures = container.streams.video if file.kind == "video" else ()  # a sound may have the picture of its album
        width, height = next(((each.width, each.height) for each in pictures), (0, 0))
        duration_ms = container.duration and round(container.duration * 1000 / av.time_base)
    return Facts(width=width or None, height=height or None, duration_ms=duration_ms)
