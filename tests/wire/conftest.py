from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cast import Place, new_client, new_place
from tests.wire.api import Api


@pytest.fixture(autouse=True)
def _database(database: str) -> None:
    """Every test here uses the database."""


@pytest.fixture
def place() -> Place:
    """An endpoint of dialect raw, of this test alone."""
    return new_place()


@pytest.fixture
def own_place() -> Place:
    """An endpoint of dialect hearth, of this test alone."""
    return new_place("hearth")


@pytest.fixture(scope="session")
def http(web: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=30) as http:
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
