"""Two things that asyncio lacks: finishing what must not be left half-done, and a bounded number at once."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


async def to_end(work: Awaitable[T]) -> T:
    """Await `work` to its end even if cancelled meanwhile, however often; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.cancelled() or task.exception()  # read, so that asyncio does not report it as forgotten
        raise asyncio.CancelledError
    return task.result()


async def at_most(number: int, do: Callable[[Item], Coroutine[Any, Any, T]], items: Iterable[Item]) -> list[T]:
    """do(item) for all, `number` at once, results in order; the first exception stops the others and is raised."""
    permits = asyncio.Semaphore(number)

    async def one(item: Item) -> T:
        async with permits:
            return await do(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
