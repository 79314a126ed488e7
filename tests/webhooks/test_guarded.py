"""What a tenant's receiver may not be: whatever its URL, its name or the answer of DNS, nothing inside is reached."""

from collections.abc import Callable, Iterator

import pytest
from django.conf import settings

from jobs.models import Webhook
from jobs.webhooks.post import NOT_PUBLIC
from jobs.webhooks.register import register
from tests.cast import Client
from tests.storage.fault_server import Names, Reply, Server, serving
from tests.webhooks.sending import ended, make_due, running, states, tries, until
from worker.wire import networks

PUBLIC, PRIVATE = "127.0.0.3", "127.0.0.1"
Deliver = Callable[..., None]


@pytest.fixture(autouse=True)
def only_one_address_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "URL_ALLOW", networks([f"{PUBLIC}/32"]))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def inside() -> Iterator[Server]:
    """What must not be reached. It comes first: a port that is free at its address, where all other servers of the
    tests are, is free at the other."""
    with serving(lambda asked: Reply(204), PRIVATE) as server:
        yield server


@pytest.fixture
def theirs(inside: Server) -> Iterator[Server]:
    """On the same port."""
    with serving(lambda asked: Reply(204), PUBLIC, inside.port) as server:
        yield server


def tried(client: Client, url: str) -> str:
    """Why the first try had no answer. The URL is as one that was right when it was registered."""
    webhook = register(client.tenant, "https://example.com/", ["completed"]).webhook
    Webhook.all_tenants.filter(pk=webhook.pk).update(url=url)
    ended(client)
    (first,) = until(lambda: tries(client))
    assert first.status is None
    return first.error


LITERALS = ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
LOCAL = ["localhost", "LOCALHOST.", "a.localhost"]


@pytest.mark.parametrize("host", [*LITERALS, *LOCAL])
def test_no_way_to_write_an_address_leads_inside(acme: Client, deliver: Deliver, inside: Server, host: str) -> None:
    deliver()
    assert tried(acme, f"https://{host}:{inside.port}/") == NOT_PUBLIC
    assert inside.connections == 0


@pytest.mark.parametrize(
    "addresses", [[PRIVATE], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], [PUBLIC, PRIVATE], [PRIVATE, PUBLIC]]
)
def test_no_name_leads_inside(
    acme: Client, deliver: Deliver, names: Names, theirs: Server, inside: Server, addresses: list[str]
) -> None:
    names.answers["hooks.example.com"] = [addresses]
    deliver()
    assert tried(acme, f"https://hooks.example.com:{inside.port}/") == NOT_PUBLIC
    assert theirs.connections == inside.connections == 0


def test_dns_that_changes_its_mind_gets_nowhere(acme: Client, names: Names, theirs: Server, inside: Server) -> None:
    """What is connected to is what was answered and looked at, and nothing that is answered later."""
    names.answers["rebind.example.com"] = [[PUBLIC], [PRIVATE]]
    with running():
        assert tried(acme, f"https://rebind.example.com:{inside.port}/") != NOT_PUBLIC
    assert (theirs.connections, inside.connections, len(names.lookups)) == (1, 0, 1)
    make_due(acme)
    with running():  # another one: aiohttp keeps an answer of DNS for 10 s
        until(lambda: len(tries(acme)) == 2)
    assert tries(acme)[1].error == NOT_PUBLIC
    assert (theirs.connections, inside.connections, len(names.lookups)) == (1, 0, 2)
    assert states(acme) == ["pending"]
