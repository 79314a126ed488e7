"""The guard of addresses that tenants name, where connections are made: worker and control plane share it.

What `check_url` let through is looked up; a name that leads to any address that is not public is refused, and so is, as
the socket opens, the very address that is connected to. So DNS that changes its mind gets nowhere.
"""

import errno
import socket
from collections.abc import Iterable

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.connector import AddrInfoType

from worker.wire import UrlRefused, check_address, type_of_network


class Guarded(aiohttp.ThreadedResolver):
    """Looks names up and lets through only addresses that a tenant may reach."""

    def __init__(self, allowed: Iterable[type_of_network]) -> None:
        super().__init__()
        self._allowed = tuple(allowed)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for result in found:
            check_address(result["host"], self._allowed)
        return found


def connector(allowed: Iterable[type_of_network], *, once: bool = False) -> aiohttp.TCPConnector:
    """Connects only to public addresses and to the listed networks: UrlRefused for a name that leads elsewhere, and
    aiohttp's ClientConnectorError for an address that does. It counts no connections: callers do. `once`: no connection
    is used twice."""
    networks = tuple(allowed)

    def open_socket(info: AddrInfoType) -> socket.socket:
        try:
            check_address(str(info[4][0]), networks)
        except UrlRefused as error:  # the kind of error after which the next address is tried
            raise PermissionError(errno.EACCES, str(error)) from error
        return socket.socket(info[0], info[1], info[2])

    return aiohttp.TCPConnector(resolver=Guarded(networks), socket_factory=open_socket, force_close=once, limit=0)
