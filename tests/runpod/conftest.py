"""Endpoints of backend runpod, of each test's own, at a RunPod in this process."""

from collections.abc import Iterator

import pytest
from django.conf import settings

from tests.cast import Client, new_client
from tests.runpod.cloud import Cloud
from tests.runpod.pushed import Pushed, new_pushed
from tests.stage import _database

__all__ = ["_database"]


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    running = Cloud()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _at_cloud(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "RUNPOD_URL", cloud.url)


@pytest.fixture
def acme(cloud: Cloud) -> Pushed:
    """acme at an endpoint of dialect raw, of which 4 jobs are at RunPod at a time."""
    return new_pushed(cloud)


@pytest.fixture
def own(cloud: Cloud) -> Pushed:
    """acme at such an endpoint of dialect hearth."""
    return new_pushed(cloud, "hearth")


@pytest.fixture
def globex(acme: Pushed) -> Client:
    return new_client(acme.client.place, "globex")
