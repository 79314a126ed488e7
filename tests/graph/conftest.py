from pathlib import Path

import pytest

from jobs.graph.classes import Catalogue
from tests.graph.judges import ComfyJudge, Judge, StandinJudge, comfyui_url


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """The ComfyUI that COMFYUI_URL names, else the stand-in's own check of a prompt."""
    url = comfyui_url()
    return ComfyJudge(url) if url else StandinJudge(Path(tmp_path_factory.mktemp("judge")))


@pytest.fixture(scope="session")
def catalogue(judge: Judge) -> Catalogue:
    return Catalogue(judge.object_info())
