from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cast import Place, new_client
from tests.stage import _database, own_place, place
from tests.wire.api import Api

__all__ = ["_database", "own_place", "place"]


@pytest.fixture(scope="session")
def http(web: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=90) as http:
        yield http


@pytest.fixture
def acme(http: httpx.Client, place: Place) -> Api:
    return Api.of(http, new_client(place, "acme"))


@pytest.fixture
def globex(http: httpx.Client, place: Place) -> Api:
    return Api.of(http, new_client(place, "globex"))


@pytest.fixture
def own_acme(http: httpx.Client, own_place: Place) -> Api:
    """acme at the endpoint of dialect hearth."""
    return Api.of(http, new_client(own_place, "acme"))
