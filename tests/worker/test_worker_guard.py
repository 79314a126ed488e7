"""The guard of tenants' URLs: what is refused when it is read, and what when it is connected to."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from worker.guard import connector
from worker.wire import UrlRefused, check_address, check_url, networks

LOOPBACK = networks(["127.0.0.0/8"])
PUBLIC = "93.184.215.14"

REFUSED = [
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://10.0.0.8:8443/x",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://198.18.0.1/",
    "https://0.0.0.0/",
    "https://255.255.255.255/",
    "https://224.0.0.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1%25eth0]/",
    "https://[fec0::1]/",
    "https://[fd00::1]/",
    "https://[ff0e::1]/",
    "https://[2001:db8::1]/",
    "https://localhost/",
    "https://LocalHost:8000/",
    "https://localhost./",
    "https://a.localhost/",
    "https://127.0.0.1./",
    "https://user@example.com/",
    "https://user:pw@example.com/",
    "https://@example.com/",
    "https://example.com:99999/",
    "https://example.com:0/",
    "https://example.com\\@127.0.0.1/",
    "https://exa mple.com/",
    "https://example.com/\r\nX: y",
    "https:///x",
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "//example.com/",
    "example.com",
    "https://example.com/" + "a" * 2048,
    "",
    None,
    5,
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_leads_inside_or_is_none_is_refused(url: Any) -> None:
    with pytest.raises(UrlRefused):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://example.com/hook?a=%2F", f"https://{PUBLIC}:8443/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/"],
)
def test_a_public_url_passes(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost.", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_listed_network_may_be_reached_by_http_too(host: str) -> None:
    check_url(f"https://{host}:8000/", LOOPBACK)
    if host != "[::ffff:127.0.0.1]":
        check_url(f"http://{host}:8000/", LOOPBACK)
    with pytest.raises(UrlRefused):
        check_url("https://10.0.0.1/", LOOPBACK)


@pytest.mark.parametrize("address", ["::1%lo", "fe80::1%eth0", "::ffff:10.0.0.1", "not an address", "2130706433", ""])
def test_an_address_that_is_connected_to_must_be_public(address: str) -> None:
    with pytest.raises(UrlRefused):
        check_address(address)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A server on this machine which nobody may reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def reached(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
        return True
    except BlockingIOError:
        return False


async def post(url: str, allowed: Any = ()) -> Exception | int:
    async with aiohttp.ClientSession(connector=connector(allowed, once=True)) as session:
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with session.post(url, data=b"x", allow_redirects=False, timeout=timeout) as response:
                return response.status
        except (aiohttp.ClientError, UrlRefused, OSError) as error:
            return error


class Dns:
    """getaddrinfo that answers with the next of these each time, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        addresses = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if family == socket.AF_INET6 else (address, port))
            for family, address in zip(families, addresses, strict=True)
        ]


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
def test_a_name_that_leads_inside_is_refused_before_a_connection(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    with listening() as server:
        monkeypatch.setattr(socket, "getaddrinfo", Dns(addresses))
        error = asyncio.run(post(f"https://rebind.example:{server.getsockname()[1]}/"))
        assert isinstance(error, UrlRefused)
        assert not reached(server)


def test_dns_that_changes_after_the_look_does_not_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the guard's resolver saw is what is connected to; whoever asks again, the socket itself looks once more."""
    with listening() as server:
        dns = Dns(["127.0.0.2"], ["127.0.0.1"])
        monkeypatch.setattr(socket, "getaddrinfo", dns)
        allowed = networks(["127.0.0.2/32"])
        url = f"http://rebind.example:{server.getsockname()[1]}/"
        first, second = (asyncio.run(post(url, allowed)) for _ in range(2))
        assert dns.asked == 2
        assert isinstance(first, aiohttp.ClientConnectorError), "let through, but nobody listens there"
        assert isinstance(second, UrlRefused)
        assert not reached(server), "127.0.0.1 was never allowed, whatever the second answer said"


def test_an_address_behind_the_resolver_is_looked_at_as_its_socket_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the resolver had been passed by: a literal address is never looked up."""
    with listening() as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "127.1", "0x7f.1"):
            error = asyncio.run(post(f"http://{host}:{port}/"))
            assert isinstance(error, Exception), host
        assert not reached(server)
        asyncio.run(asyncio.wait_for(knock(port), 5))
        assert reached(server), "a listed network is reached"


async def knock(port: int) -> None:
    async with aiohttp.ClientSession(connector=connector(LOOPBACK)) as session:
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            await session.get(f"http://127.0.0.1:{port}/", timeout=aiohttp.ClientTimeout(total=0.3))
