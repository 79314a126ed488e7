"""Who asks for acme's things, and how an answer is taken."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
from django.utils import timezone

from accounts.models import ApiKey
from jobs.models import WorkerKey
from tests.cast import WORKFLOW, new_client, new_place
from tests.walk.routes import Walked
from tests.walk.things import Acme

EVENTS, SCOPES = "text/event-stream", ApiKey.Scope.values
BODIES: dict[str, Any] = {  # where `{}` is refused before it is looked who asks for what
    "/v2/{endpoint}/run": {"input": {"workflow": WORKFLOW}},
    "/v2/{endpoint}/runsync": {"input": {"workflow": WORKFLOW}},
    "/api/v1/workflows/{name}/versions": {"workflow": WORKFLOW},
}


@dataclass(frozen=True)
class Answer:
    status: int
    kind: str
    body: str

    def without(self, names: Iterable[str]) -> "Answer":
        """The same, whatever of these it tells."""
        body = self.body
        for name in names:
            body = body.replace(name, "…")
        return replace(self, body=body)


def ask(http: httpx.Client, route: Walked, method: str, values: dict[str, str], authorization: str) -> Answer:
    """`values`: of the route's parameters. Of an event stream its head."""
    sent = {"json": BODIES.get(route.path, {})} if method in ("POST", "PUT", "PATCH") else {}
    headers = {"Authorization": authorization} if authorization else {}
    with http.stream(method, route.url(values), headers=headers, params={"wait": 1000}, **sent) as answered:
        kind = answered.headers.get("Content-Type", "")
        body = "" if kind.startswith(EVENTS) else answered.read().decode(errors="replace")
    return Answer(answered.status_code, kind, body)


@dataclass(frozen=True)
class Asker:
    """Somebody with a key, or without. `good`: the key opens something. `home`: the name of an endpoint of his own;
    `granted`: he may use acme's too."""

    name: str
    authorization: str = ""
    good: bool = False
    home: str = ""
    granted: bool = False


def strangers(acme: Acme) -> list[Asker]:
    home = new_place("hearth")
    globex = f"Bearer {new_client(home, 'globex').new_key(scopes=SCOPES)}"
    neighbour = f"Bearer {new_client(acme.place, 'globex').new_key(scopes=SCOPES)}"
    return [
        Asker("globex", globex, good=True, home=home.name),
        Asker("nobody"),
        Asker("a neighbour", neighbour, good=True, granted=True),
        Asker("a worker of globex's endpoint", home.worker_key, good=True, home=home.name),
        *_wrong(),
        *_closed(acme),
    ]


def _wrong() -> Iterator[Asker]:
    yield Asker("nonsense", "Bearer nonsense")
    yield Asker("an API key that never was", "Bearer hth_0123456789ab_" + "a" * 43)
    yield Asker("a worker key that never was", "hwk_0123456789ab_" + "a" * 43)


def _closed(acme: Acme) -> Iterator[Asker]:
    """Keys of acme's own that open nothing."""
    past, place = timezone.now() - timedelta(seconds=1), {"endpoint": acme.place.endpoint}
    yield Asker("acme's key without scopes", f"Bearer {acme.client.new_key(scopes=[])}")
    yield Asker("acme's revoked key", f"Bearer {acme.client.new_key(scopes=SCOPES, revoked_at=past)}")
    yield Asker("acme's expired key", f"Bearer {acme.client.new_key(scopes=SCOPES, expires_at=past)}")
    yield Asker("a revoked worker key", WorkerKey.issue(**place, revoked_at=past)[1])
    yield Asker("an expired worker key", WorkerKey.issue(**place, expires_at=past)[1])


def owners(acme: Acme) -> dict[str, str]:
    """Each right of acme's, alone: the scopes of its keys, its endpoint's worker key, and the path itself."""
    scopes = {scope: f"Bearer {acme.client.new_key(scopes=[scope])}" for scope in SCOPES}
    return scopes | {"worker": acme.place.worker_key, "path": ""}
