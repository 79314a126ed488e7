"""Whether the client of a held request has hung up, which only reading from it tells."""

import asyncio

from starlette.requests import Request

from jobs.live import Ticket


class Gone:
    """Watches whether the request's client hangs up, which wakes its ticket at once. A body is dropped."""

    def __init__(self, request: Request) -> None:
        self.yes = False
        self._ticket: Ticket | None = None
        self._task = asyncio.create_task(self._watch(request))

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.yes = True
        if self._ticket is not None:
            self._ticket.wake()

    def wakes(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def stop(self) -> None:
        self._task.cancel()


async def wait(ticket: Ticket, gone: Gone, deadline: float) -> bool:
    """Wait for news; False when the hold is over, the process drains, or the client has hung up."""
    gone.wakes(ticket)
    left = deadline - asyncio.get_running_loop().time()
    return left > 0 and await ticket.wait(left) and not gone.yes
