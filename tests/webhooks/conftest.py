from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.stage import _database, acme, globex, own_place, place
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import running

__all__ = ["_database", "acme", "globex", "own_place", "place"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def deliver() -> Iterator[Callable[..., None]]:
    """Starts a deliverer in this process, with these bounds."""
    with ExitStack() as stack:
        yield lambda **bounds: stack.enter_context(running(**bounds))
