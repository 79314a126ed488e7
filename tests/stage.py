"""Fixtures of the folders whose tests use the database; each folder's conftest.py takes what it needs."""

import pytest

from tests.cast import Client, Place, new_client, new_place


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


@pytest.fixture
def acme(place: Place) -> Client:
    return new_client(place, "acme")


@pytest.fixture
def globex(place: Place) -> Client:
    return new_client(place, "globex")
