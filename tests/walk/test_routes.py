"""Every route of the instance, asked for acme's things by whoever has no right to them: nothing is told, nothing is
changed, and what is not theirs looks like what is not there. Then by acme, so that it was no wall without a door."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import httpx
import pytest

from accounts.models import ApiKey
from tests.walk.askers import SCOPES, Answer, Asker, ask, owners, strangers
from tests.walk.routes import METHODS, Walked, every_route
from tests.walk.rows import difference, written
from tests.walk.things import Acme, Thing, thing

ROUTES = [route for route in every_route() if not route.path.startswith("/admin/")]
PUBLIC = {"/healthz", "/api/schema/", "/api/docs/"}
REFUSED = {401, 403, 404}
AT_ONCE = 64  # a worker's wrong poll is answered slowly
ID_CHARS = 9  # names from so long on are ids, or as good as one


@dataclass(frozen=True)
class Request:
    """What somebody asks of a route. `at_home`: at an endpoint that he may use."""

    route: Walked
    method: str
    asker: Asker
    things: dict[str, Thing]
    at_home: bool = False

    def values(self, *, absent: bool) -> dict[str, str]:
        """What stands in the path: acme's things, or what is not there."""
        return {name: self._value(of, absent) for name, of in self.things.items()}

    def _value(self, of: Thing, absent: bool) -> str:
        if of.is_place and self.at_home:
            return self.asker.home or of.real
        return of.absent if absent else of.real if of.forged is None else of.forged

    @property
    def is_for_acme(self) -> bool:
        """Whether its path names something that the asker may not use."""
        return any(not (of.is_anybodys or (of.is_place and self.at_home)) for of in self.things.values())

    @property
    def allowed(self) -> set[int]:
        """What it may be answered with."""
        known = {*self.route.methods, *(("HEAD",) if "GET" in self.route.methods else ())}
        if self.method not in known:
            return {*REFUSED, 405, *((200,) if self.method == "OPTIONS" else ())}
        reports = self.at_home and "{worker}" in self.route.path  # whatever a worker reports at home, he is told 200
        if self.route.path in PUBLIC or (self.asker.good and (reports or not self.is_for_acme)):
            return set(range(200, 500))
        return REFUSED


@dataclass(frozen=True)
class Asked:
    """What came of a request, and of the same for what is not there; without the names that were asked for."""

    request: Request
    told: Answer
    absent: Answer

    def __str__(self) -> str:
        asker, where = self.request.asker.name, " at home" if self.request.at_home else ""
        answers = [f"{answer.status} {answer.body[:300]}" for answer in (self.told, self.absent)]
        return f"{self.request.method} {self.request.route} by {asker}{where}: {' | not there: '.join(answers)}"


class Walk:
    """What strangers asked of all routes."""

    def __init__(self, http: httpx.Client) -> None:
        self.http, self.acme = http, Acme()
        self.askers = strangers(self.acme)
        requests = list(self._requests())
        before = self._written()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self.asked = list(pool.map(self._ask, requests))
        self.changed = difference(before, self._written())

    def _written(self) -> dict[tuple[str, object], str]:
        """But for when the key without scopes, which is acme's own, was used last."""
        rows = written(self.acme.tenant, self.acme.place.endpoint)
        used = {("accounts.ApiKey", key.pk) for key in ApiKey.objects.of(self.acme.tenant).filter(scopes=[])}
        return {row: by for row, by in rows.items() if row not in used}

    def _requests(self) -> Iterator[Request]:
        """Methods that a route has not, only by the first two."""
        for route in ROUTES:
            things = {name: thing(self.acme, name) for name in route.parameters}
            for method in METHODS:
                for asker in self.askers if method in route.methods else self.askers[:2]:
                    yield Request(route, method, asker, things, at_home=asker.granted)
                    at_home = Request(route, method, asker, things, at_home=True)
                    if asker.home and any(of.is_place for of in things.values()) and at_home.is_for_acme:
                        yield at_home

    def _ask(self, request: Request) -> Asked:
        told = self._told(request, absent=False)
        return Asked(request, told, self._told(request, absent=True) if request.is_for_acme else told)

    def _told(self, request: Request, *, absent: bool) -> Answer:
        values = request.values(absent=absent)
        told = ask(self.http, request.route, request.method, values, request.asker.authorization)
        return told.without(values.values())

    @cached_property
    def names(self) -> set[str]:
        """Of what acme has, but for its endpoint, which is no secret."""
        acme = self.acme
        known = {acme.tenant.name, str(acme.tenant.pk), str(acme.attempt.job)}
        things = (of for asked in self.asked for of in asked.request.things.values() if not of.is_place)
        return {name for name in known | {of.real for of in things} if len(name) >= ID_CHARS}


@pytest.fixture(scope="module")
def walk(database: str, http: httpx.Client) -> Walk:
    return Walk(http)


def none(asked: list[Asked]) -> None:
    if asked:
        pytest.fail("\n".join(str(one) for one in asked), pytrace=False)


def test_strangers_are_refused_on_every_route(walk: Walk) -> None:
    none([asked for asked in walk.asked if asked.told.status not in asked.request.allowed])


def test_what_is_not_theirs_looks_like_what_is_not_there(walk: Walk) -> None:
    none([asked for asked in walk.asked if asked.request.is_for_acme and asked.told != asked.absent])


def test_strangers_are_told_nothing_of_acme(walk: Walk) -> None:
    none([asked for asked in walk.asked if any(name in asked.told.body for name in walk.names)])


def test_strangers_have_changed_nothing_of_acmes(walk: Walk) -> None:
    assert walk.changed == []


class Door:
    """A method of a route, as a new acme asks for what it has, with each of its rights alone."""

    def __init__(self, route: Walked, method: str) -> None:
        acme = Acme()
        self.route, self.method = route, method
        self.values = {name: thing(acme, name).real for name in route.parameters}
        self.rights = owners(acme)

    def ask(self, http: httpx.Client, right: str) -> Answer:
        return ask(http, self.route, self.method, self.values, self.rights[right])

    def is_opened_by(self, rights: set[str]) -> bool:
        """The path alone where it has a token; the worker key where it names a worker; else scopes of an API key."""
        if "{token}" in self.route.path:
            return "path" in rights
        return rights == {"worker"} if "{worker}" in self.route.path else bool(rights) and rights <= set(SCOPES)


def test_acme_is_let_in_on_every_route_by_its_own_right_and_no_other(database: str, http: httpx.Client) -> None:
    doors = [Door(route, method) for route in ROUTES if route.path not in PUBLIC for method in route.methods]
    tried = [(door, right) for door in doors for right in door.rights]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda each: each[0].ask(http, each[1]), tried))
    said = [f"{door.method} {door.route} by {right}: {a}" for (door, right), a in zip(tried, answers, strict=True)]
    assert [line for line, answer in zip(said, answers, strict=True) if answer.status >= 500] == []
    opened = [each for each, answer in zip(tried, answers, strict=True) if answer.status not in {*REFUSED, 405}]
    for door in doors:
        rights = {right for other, right in opened if other is door}
        assert door.is_opened_by(rights), "\n".join(
            line for line in said if line.startswith(f"{door.method} {door.route} ")
        )
