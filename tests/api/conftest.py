import pytest

from tests.api.v1 import V1
from tests.stage import _database, own_place, place
from tests.webhooks.conftest import deliver, receiver
from tests.wire.api import Api
from tests.wire.conftest import acme, globex, http, own_acme

__all__ = ["_database", "acme", "deliver", "globex", "http", "own_acme", "own_place", "place", "receiver"]


@pytest.fixture
def v1(acme: Api) -> V1:
    return V1.of(acme.http, acme.client)


@pytest.fixture
def stranger(globex: Api) -> V1:
    return V1.of(globex.http, globex.client)


@pytest.fixture
def manager(acme: Api) -> V1:
    return V1.manages(acme.http, acme.client)


@pytest.fixture
def strange_manager(globex: Api) -> V1:
    return V1.manages(globex.http, globex.client)
