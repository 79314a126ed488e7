"""Recordings of a real ComfyUI, and what may differ when they are played again.

`Likeness.check(recorded, seen)` holds if they are equal but for timestamps, tracebacks, paths on disk, the order of
what ComfyUI keeps in sets, and names it makes up (prompt ids, counters in file names, prompt numbers): those must be
of the same form, and the same wherever the recorded ones are the same.
"""

import json
import re
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "comfyui"
MADE_UP = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^[0-9a-f]{32}$|_\d{5}_\.")
FORMS = [(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"), (r"^[0-9a-f]{32}$", "<hex>")]
FORMS += [(r"_temp_[a-z]{5}_", "_temp_<letters>_"), (r"_\d{5}_\.", "_<counter>_.")]
PATH = re.compile(r"/[^\s']+")
SETS = ("executed", "current_outputs", "dependent_outputs")


def recording(name: str, *replaced: tuple[str, str]) -> list[dict[str, Any]]:
    """The events of a recording, after (old, new) texts have been replaced in it."""
    text = (GOLDEN / f"{name}.json").read_text()
    for old, new in replaced:
        assert old in text, f"{name} does not say {old}"
        text = text.replace(old, new)
    events: list[dict[str, Any]] = json.loads(text)["events"]
    return events


def names(pattern: str) -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob(f"{pattern}.json"))


class Likeness:
    def __init__(self) -> None:
        self.seen_for: dict[str, str] = {}
        self.number_offset: int | None = None

    def translate(self, text: str) -> str:
        """A recorded path or URL with the names of this run."""
        for recorded, seen in self.seen_for.items():
            text = text.replace(recorded, seen)
        return text

    def check(self, recorded: Any, seen: Any, key: str = "") -> None:
        if key == "timestamp":
            assert 1_700_000_000_000 < seen < 10_000_000_000_000
        elif key == "traceback":
            assert [type(line) for line in seen] == [str] * len(seen)
        elif key == "migrated":
            assert seen in (True, False)  # whether this server was ever started before on its folder
        elif key == "exception_message":
            assert PATH.sub("<path>", seen) == PATH.sub("<path>", recorded)
        elif key == "number":
            self.number(recorded, seen)
        elif isinstance(recorded, dict):
            self.mapping(recorded, seen)
        elif isinstance(recorded, list):
            self.sequence(recorded, seen, key)
        elif isinstance(recorded, str) and MADE_UP.search(recorded):
            self.made_up(recorded, seen)
        else:
            assert (recorded, isinstance(recorded, bool)) == (seen, isinstance(seen, bool)), key

    def number(self, recorded: float, seen: float) -> None:
        """Counted numbers all differ by as much; a number that the client chose came back as a float."""
        if isinstance(recorded, float):
            assert recorded == seen
            return
        if self.number_offset is None:
            self.number_offset = abs(int(seen)) - abs(recorded)
        assert abs(seen) == abs(recorded) + self.number_offset, (recorded, seen, self.number_offset)
        assert seen == 0 or (seen < 0) == (recorded < 0)

    def mapping(self, recorded: dict[str, Any], seen: Any) -> None:
        assert isinstance(seen, dict)
        renamed = {self.seen_for.get(key, key): value for key, value in recorded.items()}
        assert renamed.keys() == seen.keys(), (sorted(renamed), sorted(seen))
        for key, value in renamed.items():
            self.check(value, seen[key], key)

    def sequence(self, recorded: list[Any], seen: Any, key: str) -> None:
        assert isinstance(seen, list), key
        assert len(recorded) == len(seen), (key, recorded, seen)
        if key in SETS:
            recorded, seen = sorted(recorded), sorted(seen)
        if key == "errors":
            recorded, seen = (sorted(errors, key=lambda error: error["details"]) for errors in (recorded, seen))
        if len(seen) == 5 and isinstance(seen[2], dict):
            self.item(recorded, seen)
        else:
            for one, other in zip(recorded, seen, strict=True):
                self.check(one, other)

    def item(self, recorded: list[Any], seen: list[Any]) -> None:
        """[number, prompt_id, graph, extra_data, outputs], the outputs in the order of a set."""
        self.number(recorded[0], seen[0])
        for place in (1, 2, 3):
            self.check(recorded[place], seen[place])
        assert sorted(recorded[4]) == sorted(seen[4])

    def made_up(self, recorded: str, seen: str) -> None:
        assert form(recorded) == form(seen)
        assert self.seen_for.setdefault(recorded, seen) == seen
        assert list(self.seen_for.values()).count(seen) == 1, f"{seen} stands for two recorded names"


def form(text: str) -> str:
    for pattern, general in FORMS:
        text = re.sub(pattern, general, text)
    return text
