"""Sends deliveries: one event loop, many at a time, so that who does not answer costs a socket and nobody's turn."""

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from django.conf import settings

from accounts.errors import Refused
from jobs.live import DELIVERIES, Hub, Key, Ticket
from jobs.models import Delivery
from jobs.webhooks.deliver import Answer, Bounds, Claimed, claim, finish, prepare, release
from jobs.webhooks.post import Poster
from jobs.wire.call import verb

log = logging.getLogger("hearth.deliverer")
POLL_S = 1.0  # whatever NOTIFY said
GRACE_S = 5.0  # at the end, for what is on its way


class Deliverer:
    """Claims what is due when it is told that there is something, when a try has ended, and every POLL_S."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._sending: dict[asyncio.Task[None], Claimed] = {}
        self._failing: set[UUID] = set()  # lanes whose last try here failed

    async def run(self, hub: Hub) -> None:
        """Until the hub drains; then what is on its way has GRACE_S, and what is left goes back."""
        # names are looked up in the loop's own threads, and each may wait for a DNS that is silent
        lookups = ThreadPoolExecutor(self._bounds.at_once, thread_name_prefix="lookup")
        asyncio.get_running_loop().set_default_executor(lookups)
        async with Poster(settings.URL_ALLOW, self._bounds.post_s) as poster, hub.waiting(DELIVERIES) as ticket:
            while not hub.draining:
                await self._claim(poster, ticket)
                await ticket.wait(POLL_S)
            await self._leave()

    async def _claim(self, poster: Poster, ticket: Ticket) -> None:
        free = self._bounds.at_once - len(self._sending)
        if free <= 0:
            return
        try:
            found = await verb(claim, free, self._bounds, self._failing)
        except Refused as error:
            log.warning("nothing is delivered: %s", error)
            return
        for claimed in found:
            task = asyncio.create_task(self._deliver(poster, claimed))
            self._sending[task] = claimed
            task.add_done_callback(lambda done: self._done(done, ticket))

    def _done(self, task: "asyncio.Task[None]", ticket: Ticket) -> None:
        del self._sending[task]
        ticket.wake()  # there is room in its lane
        if not task.cancelled() and (error := task.exception()):
            log.error("a delivery broke off; its lease runs out", exc_info=error)

    async def _deliver(self, poster: Poster, claimed: Claimed) -> None:
        """What fails here, as when the database is away, is done again when the lease has run out."""
        try:
            message = await verb(prepare, claimed)
            if message is not None:
                answer = await poster.post(message)
                self._note(claimed, answer)
                await verb(finish, claimed, answer)
        except Refused as error:
            log.warning("delivery %s is sent again later: %s", claimed.id, error)

    def _note(self, claimed: Claimed, answer: Answer) -> None:
        if answer.taken:
            self._failing.discard(claimed.lane)
        elif claimed.kind != Delivery.Kind.TEST:  # which has a lane of its own
            self._failing.add(claimed.lane)

    async def _leave(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=GRACE_S)
        left = dict(self._sending)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.gather(*(verb(release, claimed) for claimed in left.values()), return_exceptions=True)


async def _nothing(keys: list[Key]) -> Iterable[tuple[Key, str]]:
    """The deliverer looks by itself."""
    return ()


async def _quiet() -> None:
    """It takes no polls and pings, so it does not say that it could."""


def new_hub() -> Hub:
    return Hub(_nothing, _quiet)
