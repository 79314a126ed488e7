"""Jobs that an endpoint cannot run go to another one that it names (models.Overflow): a step of the sweeper.

A job moves while it is queued: away from where it was addressed, only to where it could run now, or back. Its grant
says in whose queue it is: its tenant's own, or elsewhere a stand-in of that, which claim() takes like any other. So
what was moved is claimed, billed and lost as what was addressed there, and is its client's as before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from accounts import sql
from jobs import budgets
from jobs.caps import GRANT_MAY, SPENT, TENANT_MAY
from jobs.history import up_for
from jobs.live import announce, news_key
from jobs.models import Endpoint, Overflow
from jobs.queue import ANY, PLACE, heads
from jobs.sight import ALIVE_S, WORKERS_SEEN
from jobs.usage import FIRST_MS
from jobs.wake import wake_endpoint

MOST = 50  # of a key's jobs that are looked at, and that move to a place, in one sweep
READY = 2  # times what runs at a place at once is what may be there from elsewhere, running or waiting
UNBOUNDED = 500  # where no number is said
PAUSE_S, MOST_PAUSE_S = 10, 600  # before a job that came back may go again: twice as long each time


def overflow() -> int:
    """Mark budgets; bring back what cannot run where it went; send away what cannot run here. How many jobs moved."""
    budgets.mark()
    ways = list(Overflow.objects.order_by("position", "id"))
    sides = _sides()
    if not sides:
        return 0
    moved = sum(_bring_back(back) for back in _backs(ways, sides))
    moved += sum(_send(way, sides) for way in ways)
    _line_up(ways, sides)
    return moved


@dataclass(frozen=True, kw_only=True)
class Side:
    """An endpoint as it is now. slots: how many jobs run there at a time. running: of those, what came from elsewhere.
    faults: why it can run none, by the trigger of an overflow. `paused` triggers none: it is said of its jobs, wherever
    they are."""

    id: int
    name: str
    backend: str
    dialect: str
    mode: str
    slots: int
    running: int
    faults: Mapping[str, str]

    @property
    def is_open(self) -> bool:
        """Takes what was not addressed to it."""
        return self.mode == Endpoint.Mode.OPEN and not self.faults

    def takes_of(self, other: "Side") -> bool:
        """What was checked for the one dialect must do for the other."""
        return self.is_open and (self.dialect == Endpoint.Dialect.RAW) == (other.dialect == Endpoint.Dialect.RAW)


SIDES = f"""
SELECT e.id, e.name, e.backend, e.dialect, e.mode, e.max_running, {SPENT}, coalesce(r.trouble, ''),
       coalesce(r.throttled, false), count(*) FILTER (WHERE there AND takes),
       (SELECT count(*) FROM jobs_grant s JOIN jobs_attempt a ON a.grant_id = s.id
         WHERE s.endpoint_id = e.id AND s.overflow_of_id IS NOT NULL AND a.released_at IS NULL)
  FROM jobs_endpoint e LEFT JOIN jobs_runpodendpoint r ON r.endpoint_id = e.id
  LEFT JOIN ({WORKERS_SEEN}) w ON w.endpoint_id = e.id
 WHERE e.id IN (SELECT endpoint_id FROM jobs_overflow UNION SELECT to_id FROM jobs_overflow
                 UNION SELECT g.endpoint_id FROM jobs_grant s JOIN jobs_grant g ON g.id IN (s.id, s.overflow_of_id)
                        WHERE s.overflow_of_id IS NOT NULL)
 GROUP BY e.id, r.endpoint_id"""


def _sides() -> dict[int, Side]:
    return {side.id: side for side in map(_side, sql.rows(SIDES))}


def _side(row: sql.Row) -> Side:
    id, name, backend, dialect, mode, max_running, spent, trouble, throttled, workers, running = row
    faults = {}
    if mode in (Endpoint.Mode.PAUSED, Endpoint.Mode.CLOSED):
        faults["paused"] = "it is paused"
    if backend == Endpoint.Backend.FLEET and not workers and up_for(ALIVE_S):
        faults["unhealthy"] = f"no worker of it has polled for {ALIVE_S} s"
    if trouble:
        faults["unhealthy"] = f"RunPod takes no jobs: {trouble}"
    if throttled:
        faults["throttled"] = "RunPod has no GPU free for it"
    if spent:
        faults["over_budget"] = "its budget of this month is used up"
    slots = [max_running] if max_running is not None else []
    slots += [workers] if backend == Endpoint.Backend.FLEET else []
    own = {"id": id, "name": name, "backend": backend, "dialect": dialect, "mode": mode}
    return Side(**own, slots=min(slots, default=UNBOUNDED), running=running, faults=faults)


# What came from elsewhere and could be taken, but waits; of those whose limits are reached nobody waits behind. That
# there are others who wait is for the clocks of the place to see to.
WAITING = f"""
SELECT count(*) FROM (
       SELECT 1 {PLACE} CROSS JOIN LATERAL ({heads(MOST)}) h
        WHERE g.endpoint_id = %(to)s AND g.overflow_of_id IS NOT NULL AND {GRANT_MAY} AND {TENANT_MAY}
        LIMIT %(most)s) q"""


def _room(side: Side) -> int:
    """How many more jobs may come to it."""
    room = READY * side.slots - side.running
    if room > 0:
        room -= sql.one(WAITING, {"to": side.id, "most": room, "least": ANY})[0]
    return min(room, MOST)


@dataclass(frozen=True, kw_only=True)
class Back:
    """From a place to where it was addressed, and why."""

    place: Side
    address: Side
    why: str


STRAYED = """
SELECT DISTINCT g.endpoint_id, s.endpoint_id FROM jobs_grant s JOIN jobs_grant g ON g.id = s.overflow_of_id
 WHERE EXISTS (SELECT 1 FROM jobs_job j WHERE j.grant_id = s.id AND j.state = 'IN_QUEUE')"""


def _backs(ways: list[Overflow], sides: Mapping[int, Side]) -> Iterator[Back]:
    """Where a place cannot run what went there, and it could run elsewhere; else it stays for whoever is back first."""
    for address_id, place_id in sql.rows(STRAYED):
        address, place = sides[address_id], sides[place_id]
        others = [way for way in ways if way.endpoint_id == address_id and way.to_id != place_id]
        if not any((way.endpoint_id, way.to_id) == (address_id, place_id) for way in ways):
            yield Back(place=place, address=address, why=f"{address.name} does not overflow there any more")
        elif place.faults and (not address.faults or any(_goes(way, sides) for way in others)):
            yield Back(place=place, address=address, why=f"at {place.name} {next(iter(place.faults.values()))}")


BRING_BACK = f"""
WITH head AS (
    SELECT j.id, g.id AS home FROM jobs_grant s JOIN jobs_grant g ON g.id = s.overflow_of_id
      JOIN jobs_job j ON j.grant_id = s.id
     WHERE s.endpoint_id = %(place)s AND g.endpoint_id = %(address)s AND j.state = 'IN_QUEUE'
     LIMIT {10 * MOST} FOR NO KEY UPDATE OF j SKIP LOCKED
), job AS (
    UPDATE jobs_job j SET grant_id = head.home FROM head WHERE j.id = head.id RETURNING j.id, j.attempt
), event AS (
    INSERT INTO jobs_event (job_id, attempt, kind, at, text)
    SELECT id, attempt, 'moved', clock_timestamp(), %(text)s FROM job
)
SELECT id FROM job"""


def _bring_back(back: Back) -> int:
    text = f"back to {back.address.name}: {back.why}"
    params = {"place": back.place.id, "address": back.address.id, "text": text[:2000]}
    with transaction.atomic():
        return _arrived(back.address, sql.rows(BRING_BACK, params))


def _arrived(side: Side, jobs: list[sql.Row]) -> int:
    """After the commit they are taken there, and their followers told."""
    if jobs:
        wake_endpoint(side.id, side.backend)
        announce(*(news_key(job) for (job,) in jobs))
    return len(jobs)


def _reason(way: Overflow, address: Side) -> tuple[str, int]:
    """Why jobs go that way, and how long they must have waited for it; "" if none go."""
    if "paused" in address.faults:
        return "", 0
    found = [text for trigger, text in address.faults.items() if getattr(way, trigger)]
    if found:
        return f"at {address.name} {found[0]}", 0
    if way.wait_s is not None:
        return f"it waited at {address.name} for {way.wait_s} s", way.wait_s
    return "", 0


def _goes(way: Overflow, sides: Mapping[int, Side]) -> bool:
    address, place = sides[way.endpoint_id], sides[way.to_id]
    return bool(_reason(way, address)[0]) and place.takes_of(address) and _room(place) > 0


# The next of each of the tenants who may run more, in the order in which the place would take them: by what their
# stand-ins have had there. Files of Hearth's are only fetched by its own worker. A job that came back waits a while.
CHOOSE = f"""
WITH here AS MATERIALIZED (
    SELECT coalesce(max(turn), 0) AS turn, avg(job_ms) AS job_ms FROM jobs_grant WHERE endpoint_id = %(to)s
)
SELECT id, home FROM (
    SELECT h.id, g.id AS home, h.priority < 0 AS low, there.queued,
           row_number() OVER (PARTITION BY g.id ORDER BY h.priority DESC, h.id) AS n,
           greatest(s.clock, here.turn) AS start,
           greatest(coalesce(s.job_ms, here.job_ms, {FIRST_MS}), 1) / g.weight AS step
      {PLACE} CROSS JOIN here LEFT JOIN jobs_grant s ON s.overflow_of_id = g.id AND s.endpoint_id = %(to)s
     CROSS JOIN LATERAL (
           SELECT count(*) FROM (
                  SELECT 1 FROM jobs_job q WHERE q.grant_id = s.id AND q.state = 'IN_QUEUE' LIMIT %(slots)s) c
           ) there (queued)
     CROSS JOIN LATERAL ({heads(MOST)}) h JOIN jobs_job j ON j.id = h.id JOIN jobs_payload p ON p.job_id = h.id
     CROSS JOIN LATERAL (
           SELECT count(*) AS n, max(v.at) AS at FROM jobs_event v
            WHERE v.job_id = h.id AND v.kind = 'moved' AND v.at >= j.queued_at) moves
     WHERE g.endpoint_id = %(from)s AND g.overflow_of_id IS NULL AND {GRANT_MAY} AND {TENANT_MAY}
       AND j.queued_at <= clock_timestamp() - %(waited)s * interval '1 s'
       AND (p.inputs IS NULL OR %(same)s::bool)
       AND (moves.n = 0 OR moves.at < clock_timestamp()
            - least({MOST_PAUSE_S}, {PAUSE_S} * 2 ^ ((moves.n + 1) / 2 - 1)) * interval '1 s')
    ) c
 WHERE n + queued <= %(slots)s ORDER BY low, start + (n - 1 + queued) * step, n, home LIMIT %(room)s"""

# A grant's first one waits for a claim that counts what runs by the grant without its tenant's lock (queue.py).
STAND_IN = """
INSERT INTO jobs_grant (tenant_id, endpoint_id, overflow_of_id, weight, max_running, price)
SELECT g.tenant_id, %(to)s, g.id, g.weight, g.max_running, own.price
  FROM jobs_grant g
  LEFT JOIN jobs_grant own ON own.tenant_id = g.tenant_id AND own.endpoint_id = %(to)s AND own.overflow_of_id IS NULL
 WHERE g.overflow_of_id IS NULL AND g.id = ANY (%(homes)s)
   AND NOT EXISTS (SELECT 1 FROM jobs_grant s WHERE s.overflow_of_id = g.id AND s.endpoint_id = %(to)s)
 ORDER BY g.id FOR NO KEY UPDATE OF g
    ON CONFLICT (overflow_of_id, endpoint_id) WHERE overflow_of_id IS NOT NULL DO NOTHING"""

SEND = """
WITH head AS (
    SELECT id, grant_id FROM jobs_job
     WHERE id = ANY (%(jobs)s) AND state = 'IN_QUEUE' AND grant_id = ANY (%(homes)s) FOR NO KEY UPDATE SKIP LOCKED
), job AS (
    UPDATE jobs_job j SET grant_id = s.id, skipped = 0 FROM head JOIN jobs_grant s ON s.overflow_of_id = head.grant_id
     WHERE j.id = head.id AND s.endpoint_id = %(to)s RETURNING j.id, j.attempt
), event AS (
    INSERT INTO jobs_event (job_id, attempt, kind, at, text)
    SELECT id, attempt, 'moved', clock_timestamp(), %(text)s FROM job
)
SELECT id FROM job"""


def _send(way: Overflow, sides: Mapping[int, Side]) -> int:
    address, place = sides[way.endpoint_id], sides[way.to_id]
    why, waited = _reason(way, address)
    if not why or not place.takes_of(address) or (room := _room(place)) <= 0:
        return 0
    params: dict[str, Any] = {"from": address.id, "to": place.id, "least": ANY, "waited": waited, "room": room}
    params |= {"slots": READY * place.slots, "same": place.dialect == address.dialect}
    with transaction.atomic():
        chosen = sql.rows(CHOOSE, params)
        if not chosen:
            return 0
        homes = sorted({home for _, home in chosen})
        there: dict[str, Any] = {"to": place.id, "homes": homes}
        sql.run(STAND_IN, there)
        there |= {"jobs": [job for job, _ in chosen], "text": f"to {place.name}: {why}"[:2000]}
        return _arrived(place, sql.rows(SEND, there))


ALL_STAND_IN = STAND_IN.replace("g.id = ANY (%(homes)s)", "g.endpoint_id = %(from)s")

# A stand-in is as its grant is, and has its tenant's price at the place.
LINE_UP = """
UPDATE jobs_grant s
   SET weight = now.weight, max_running = now.max_running, price = now.price, share_from = now.share_from,
       share_below = now.share_below
  FROM (SELECT s.id, g.weight, g.max_running, own.price, coalesce(w.share_from, 0) AS share_from,
               coalesce(w.share_below, 0) AS share_below
          FROM jobs_grant s JOIN jobs_grant g ON g.id = s.overflow_of_id
          LEFT JOIN jobs_grant own ON own.tenant_id = s.tenant_id AND own.endpoint_id = s.endpoint_id
                                  AND own.overflow_of_id IS NULL
          LEFT JOIN unnest(%(addresses)s::bigint[], %(places)s::bigint[], %(begin)s::float8[], %(end)s::float8[])
                    w (address_id, place_id, share_from, share_below)
            ON w.address_id = g.endpoint_id AND w.place_id = s.endpoint_id
         WHERE (s.weight, s.max_running, s.price, s.share_from, s.share_below) IS DISTINCT FROM
               (g.weight, g.max_running, own.price, coalesce(w.share_from, 0), coalesce(w.share_below, 0))
         ORDER BY s.id FOR NO KEY UPDATE OF s) now
 WHERE s.id = now.id"""


def _line_up(ways: list[Overflow], sides: Mapping[int, Side]) -> None:
    """Stand-ins follow their grants. Those of places that are to have a share are there before the jobs, and have it
    while the place can run more."""
    shares: list[tuple[int, int, float, float]] = []
    begins: dict[int, float] = {}
    for way in ways:
        address, place = sides[way.endpoint_id], sides[way.to_id]
        if way.share_percent <= 0 or not place.takes_of(address):
            continue
        sql.run(ALL_STAND_IN, {"to": place.id, "from": address.id})
        begin = begins.get(address.id, 0.0)
        if _room(place) > 0:
            begins[address.id] = begin + way.share_percent
            shares.append((address.id, place.id, begin, begins[address.id]))
    addresses, places, begin_at, end_at = [list(one) for one in zip(*shares, strict=True)] or [[], [], [], []]
    sql.run(LINE_UP, {"addresses": addresses, "places": places, "begin": begin_at, "end": end_at})
