"""What is wrong with which parameter, told in one refusal: of a job's `params`, or of the parameters themselves."""

from collections.abc import Collection
from typing import Any

from accounts.errors import Refused
from jobs.graph.faults import GIVEN_CHARS, MAX_NEAR, NOTHING, cut, near, quoted

MAX_TOLD = 100  # faults told one by one; the sentence says how many there are


class Unfit(ValueError):
    """A value that a parameter does not take, or a parameter that cannot be. type: a word for programs. The message
    follows the parameter's name in a sentence. `given`: the value; word, among: the name that was not found and those
    it is looked for in."""

    def __init__(self, type: str, said: str, given: Any = NOTHING, word: str = "", among: Collection[Any] = ()) -> None:
        super().__init__(said)
        self.type, self.given, self.word, self.among = type, given, word, among


class Faults:
    """By the parameter's name, in the order they were found."""

    def __init__(self) -> None:
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._first = ""
        self._found = 0

    def __bool__(self) -> bool:
        return self._found > 0

    def add(self, name: str, fault: Unfit) -> None:
        self._found += 1
        nearest = near(fault.word, fault.among) if self._found <= MAX_NEAR else []
        said = str(fault) + (f"; near: {quoted(nearest)}" if nearest else "")
        self._first = self._first or f"Parameter {quoted([name])} {said}."
        if self._found <= MAX_TOLD:
            entry: dict[str, Any] = {"type": fault.type, "message": said}
            entry |= {} if fault.given is NOTHING else {"given": cut(fault.given)}
            entry |= {"near": nearest} if nearest else {}
            self._told.setdefault(name[:GIVEN_CHARS], []).append(entry)

    def more(self, count: int) -> None:
        """So many that are not told one by one."""
        self._found += count

    def refused(self, code: str, of: str = "") -> Refused:
        """400, with `params`. `of`: what has these parameters."""
        more = self._found - 1
        count = f" And {more} more fault{'s' if more > 1 else ''}: see `params`." if more else ""
        return Refused(400, code, f"{of}{self._first}{count}", params=self._told)
