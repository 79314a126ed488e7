import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import Instance


@pytest.fixture(scope="module")
def up() -> Iterator[Instance]:
    """An instance as `make up` runs it, with one worker, for this module alone."""
    folder = Path(tempfile.mkdtemp(prefix="hearth-e2e-"))
    more = {"COMFYUI_URL": os.environ["COMFYUI_URL"]} if "COMFYUI_URL" in os.environ else {}
    running = Instance(folder / "home", HEARTH_LEASE_S="12", HEARTH_URL_ALLOW="127.0.0.0/8", **more)
    yield running
    running.signal(signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)
