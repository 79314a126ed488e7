import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.running import new_home


@pytest.fixture
def home_path() -> Iterator[Path]:
    """A HEARTH_HOME that does not exist yet."""
    folder = new_home()
    yield folder / "home"
    shutil.rmtree(folder)
