"""manage.py deliverer: sends tenants their webhooks, for ever. Any number may run."""

import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from jobs.webhooks.deliver import Bounds
from jobs.webhooks.deliverer import Deliverer, new_hub


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = ()  # they load every page of the admin and the API, which takes 10 MB

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(deliver())


async def deliver() -> None:
    hub = new_hub()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, hub.drain)
    async with hub.running():
        await Deliverer(Bounds(at_once=settings.DELIVERIES_AT_ONCE)).run(hub)
