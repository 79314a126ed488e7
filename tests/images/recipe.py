"""The Dockerfile as its builder reads it, and an image's folder made by its own commands, outside Docker."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from hearth.local.instance import ROOT

# What needs root, Debian, GitHub or a GPU stays out of a test run.
NOT_HERE = ("useradd", "apt-get", "comfy", "chown")


@dataclass(frozen=True)
class Stage:
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages() -> dict[str, Stage]:
    """Each stage by its name, with its instructions in order."""
    found: dict[str, Stage] = {}
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", "")
    for line in filter(None, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        elif found:
            found[name].steps.append((instruction, rest))
    return found


def steps(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of the stages that it is made from."""
    stage = stages()[name]
    return (steps(stage.base) if stage.base in stages() else []) + stage.steps


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps this path of the repository out of the build."""
    out = False
    for pattern in (ROOT / ".dockerignore").read_text().split():
        if fnmatch(path.split("/")[0], pattern.lstrip("!")) or fnmatch(path, pattern):
            out = not pattern.startswith("!")
    return out


def kept_out(folder: str, names: list[str]) -> set[str]:
    """Of these names in a folder of the repository, those that .dockerignore keeps out."""
    return {name for name in names if ignored(str((Path(folder) / name).relative_to(ROOT)))}


class Image:
    """What the image would hold: `folder` its working directory, `venv` its Python."""

    def __init__(self, name: str, folder: Path, venv: Path) -> None:
        self.folder, self.venv = folder, venv
        folder.mkdir()
        for instruction, rest in steps(name):
            if instruction == "COPY":
                self._copy(*rest.split())
            elif instruction == "RUN" and not any(word in rest for word in NOT_HERE):
                self._run(rest)

    @property
    def env(self) -> dict[str, str]:
        """What its processes see of this machine."""
        return {"PATH": f"{self.venv}/bin:{os.defpath}", "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}

    @property
    def _replaced(self) -> dict[str, str]:
        """What does here the same in less time: this Python's own pip, and nothing is compiled before it is used."""
        pip = f"{sys.executable} -m pip --python {self.venv}/bin/python install --no-compile"
        return {
            "python -m venv": f"{sys.executable} -m venv --without-pip",
            "pip install": pip,
            "/opt/venv": str(self.venv),
        }

    def _copy(self, *paths: str) -> None:
        *sources, target = paths
        if target.startswith("/"):
            return
        for source in sources:
            assert not ignored(source), f"{source} is kept out by .dockerignore"
            place = self.folder / target / (Path(source).name if target.endswith("/") else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=kept_out)
            else:
                shutil.copy(ROOT / source, place)

    def _run(self, command: str) -> None:
        for there, here in self._replaced.items():
            command = command.replace(there, here)
        argv = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(argv, cwd=self.folder, env={**os.environ, **self.env}, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
