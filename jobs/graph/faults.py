"""What is wrong with a workflow, and how it is told: in the shape of a failed job's `nodes`, with what was given and
the nearest valid names. Bounded, whatever the workflow holds."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

from worker.kinds import MODEL_FILE

MAX_TOLD = 50  # faults told one by one; the sentence says how many there are
MANY = 1000  # found; from then on only one of each node
MAX_NEAR = 20  # of them with nearest names: looking for those costs time
GIVEN_CHARS, NAME_CHARS = 200, 100
CANDIDATES, NEAREST = 2000, 3
LOOKED_AT = 20_000  # names; no catalogue has as many
EXACT_DIGITS = 15  # of a whole number, for every reader of JSON
NOTHING: Any = object()  # was given


Key = tuple[str, str, str]  # node, input, type


@dataclass(frozen=True, kw_only=True)
class Fault:
    """type: ComfyUI's word for it. said: a clause without the nearest names. word, among: the name that was not found
    and those it is looked for in. absent: it is a class or a model that is not installed; `said` is only its name."""

    node: str
    type: str
    said: str
    input: str = ""
    given: Any = NOTHING
    word: str = ""
    among: Collection[Any] = ()
    absent: bool = False

    @property
    def key(self) -> Key:
        return self.node, self.input, self.type


@dataclass(frozen=True)
class Verdict:
    """Why a workflow is refused. elsewhere: the faults that another worker of the endpoint does not find."""

    graph: Mapping[str, Any]
    faults: Sequence[Fault]
    elsewhere: Collection[Key] = ()

    def told(self) -> tuple[str, dict[str, list[dict[str, Any]]]]:
        """(one sentence on the first fault and how many more there are, `nodes`)."""
        nodes: dict[str, list[dict[str, Any]]] = {}
        first = ""
        for number, fault in enumerate(self.faults[:MAX_TOLD]):
            entry = self._entry(fault, near(fault.word, fault.among) if number < MAX_NEAR else [])
            first = first or self._sentence(fault, entry)
            if fault.node:
                nodes.setdefault(fault.node[:GIVEN_CHARS], []).append(entry)
        more = len(self.faults) - 1
        count = f"{'at least ' if more > MANY else ''}{more} more fault{'s' if more > 1 else ''}"
        return first + (f" And {count}: see `nodes`." if more else ""), nodes

    def _entry(self, fault: Fault, nearest: list[str]) -> dict[str, Any]:
        about = self.graph.get(fault.node, {})
        entry: dict[str, Any] = {"class_type": str(about.get("class_type"))[:GIVEN_CHARS]}
        title = about["_meta"].get("title") if isinstance(about.get("_meta"), dict) else None
        if isinstance(title, str):
            entry["title"] = title[:GIVEN_CHARS]
        entry["type"] = fault.type
        if fault.input:
            entry["input"] = fault.input[:GIVEN_CHARS]
        if fault.given is not NOTHING:
            entry["given"] = cut(fault.given)
        entry["message"] = fault.said + self._where(fault)
        if nearest:
            entry["message"] += f"; near: {quoted(nearest)}"
            entry["near"] = nearest
        return entry

    def _where(self, fault: Fault) -> str:
        if not fault.absent:
            return ""
        if fault.key in self.elsewhere:
            return " is not on the worker of this endpoint that has most of what the workflow needs"
        return " is on no worker of this endpoint"

    def _sentence(self, fault: Fault, entry: Mapping[str, Any]) -> str:
        if not fault.node:
            return f"`input.workflow`: {entry['message']}."
        title = f" “{entry['title']}”" if entry.get("title") not in (None, entry["class_type"]) else ""
        return f"Node {fault.node[:NAME_CHARS]} ({entry['class_type']}{title}): {entry['message']}."


def quoted(names: Iterable[Any]) -> str:
    return ", ".join(json.dumps(cut(name), ensure_ascii=False) for name in names)


def cut(value: Any) -> Any:
    """A value as an answer may hold it: short, and JSON that everybody reads."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > GIVEN_CHARS:
        return text[: GIVEN_CHARS - 1] + "…"
    return value if isinstance(value, str | float | bool | None) or len(text) <= EXACT_DIGITS else text


def near(word: str, among: Collection[Any]) -> list[str]:
    """The names most like this one, at most NEAREST, best first; the same file in another folder before all."""
    if not word:
        return []
    word = word[:NAME_CHARS]
    names = {_plain(name): name for name in islice(among, LOOKED_AT) if _tellable(name)}
    if len(names) > CANDIDATES:
        names = dict([pair for pair in names.items() if abs(len(pair[0]) - len(word)) <= 8][:CANDIDATES])
    file = _plain(word).rpartition("/")[2]
    same = [plain for plain in names if plain.rpartition("/")[2] == file]
    found = [*same, *get_close_matches(_plain(word), names, NEAREST)]
    return [names[plain] for plain in dict.fromkeys(found)][:NEAREST]


def _plain(name: str) -> str:
    """What of a name is compared: all models end alike."""
    return MODEL_FILE.sub(lambda found: found[0][0], name.lower().replace("\\", "/"))


def _tellable(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= NAME_CHARS * 2 and name.isprintable()
