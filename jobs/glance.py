"""How it all stands now, for who looks whether all is well: each part one bounded statement, of some tenants or of all.

`tenants`: whose jobs, deliveries and budgets; None is the operator's view, of all. What is counted is counted to MOST.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from accounts import sql
from jobs.caps import SPENT
from jobs.catalogue import models_in
from jobs.history import IS_UP
from jobs.ids import public_id
from jobs.models import Catalogue
from jobs.sight import ALIVE_S, WORKERS_SEEN

Tenants = Sequence[UUID] | None
MOST = 10_000
ENDPOINTS_MOST, WORKERS_MOST, WEBHOOKS_MOST, BUDGETS_MOST, TASKS_MOST = 200, 50, 10, 20, 1000
HEAD, HEADS = 100, 1000  # queued jobs of a tenant, and of all, whose waits are looked at
GONE_FOR_S = 600  # a worker that has gone is shown for so long


@dataclass(frozen=True)
class Place:
    """An endpoint. `oldest_s`: how long the oldest of the queued jobs that were looked at waits, None: none does.
    takers: workers that take jobs."""

    id: int
    name: str
    mode: str
    message: str
    spent: bool
    pushed: bool
    trouble: str
    queued: int
    looked_at: int
    oldest_s: float | None
    running: int
    takers: int
    seen_ago_s: float | None


def _whose(column: str, tenants: Tenants) -> str:
    return "true" if tenants is None else f"{column} = ANY (%(tenants)s::uuid[])"


# Of each tenant's queue the head is looked at, where those are that were submitted first.
PLACES = f"""
SELECT e.id, e.name, e.mode, e.message, {SPENT}, e.backend <> 'fleet', coalesce(p.trouble, ''), q.n, h.n, h.oldest_s,
       r.n, coalesce(w.takers, 0), w.ago_s
  FROM jobs_endpoint e LEFT JOIN jobs_runpodendpoint p ON p.endpoint_id = e.id CROSS JOIN LATERAL (
       SELECT count(*) FROM (
              SELECT 1 FROM jobs_grant g CROSS JOIN LATERAL (
                     SELECT 1 FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE' LIMIT {MOST}) j
               WHERE g.endpoint_id = e.id AND {{whose}} LIMIT {MOST}) few) q (n)
 CROSS JOIN LATERAL (
       SELECT count(*), extract(epoch FROM clock_timestamp() - min(at))::float8 FROM (
              SELECT j.queued_at AS at FROM jobs_grant g CROSS JOIN LATERAL (
                     SELECT queued_at FROM jobs_job j WHERE j.grant_id = g.id AND j.state = 'IN_QUEUE'
                      ORDER BY j.grant_id, j.api_key_id, j.priority DESC, j.id LIMIT {HEAD}) j
               WHERE g.endpoint_id = e.id AND {{whose}} LIMIT {HEADS}) few) h (n, oldest_s)
 CROSS JOIN LATERAL (
       SELECT count(*) FROM jobs_grant g JOIN jobs_attempt a ON a.grant_id = g.id AND a.released_at IS NULL
        WHERE g.endpoint_id = e.id AND {{whose}}) r (n)
  LEFT JOIN (SELECT endpoint_id, count(*) FILTER (WHERE there AND takes) AS takers,
                    extract(epoch FROM clock_timestamp() - max(seen_at))::float8 AS ago_s
               FROM ({WORKERS_SEEN}) seen GROUP BY endpoint_id) w ON w.endpoint_id = e.id
 WHERE EXISTS (SELECT 1 FROM jobs_grant g WHERE g.endpoint_id = e.id AND {{whose}}) OR %(all)s
 ORDER BY e.name LIMIT {ENDPOINTS_MOST}"""


def places(tenants: Tenants) -> list[Place]:
    """The endpoints that these tenants may use."""
    text = PLACES.format(whose=_whose("g.tenant_id", tenants))
    return [Place(*row) for row in sql.rows(text, {"tenants": list(tenants or ()), "all": tenants is None})]


@dataclass(frozen=True)
class Hand:
    """A worker. Times are seconds ago. `job`: the id and public id of what it runs, or else holds."""

    id: int
    name: str
    endpoint: str
    version: str
    unhealthy: str
    take_s: float | None
    ping_s: float | None
    alive: bool
    held: int
    job: tuple[UUID, str] | None
    models: list[str]


HANDS = f"""
SELECT w.id, w.name, e.name, w.version, w.unhealthy, ago.take_s, ago.ping_s,
       w.unhealthy = '' AND s.at > now.at - interval '{ALIVE_S} s', h.n, h.id, h.sync, w.catalogue_id, w.model_hashes
  FROM jobs_worker w JOIN jobs_endpoint e ON e.id = w.endpoint_id CROSS JOIN (SELECT clock_timestamp()) now (at)
 CROSS JOIN LATERAL (SELECT greatest(w.take_at, w.stop_at, w.ping_at)) s (at)
 CROSS JOIN LATERAL (SELECT extract(epoch FROM now.at - w.take_at)::float8,
                            extract(epoch FROM now.at - w.ping_at)::float8) ago (take_s, ping_s)
 CROSS JOIN LATERAL (
       SELECT count(*), (array_agg(j.id ORDER BY a.started_at, a.handed_at))[1],
              (array_agg(j.sync ORDER BY a.started_at, a.handed_at))[1]
         FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id
        WHERE a.worker_id = w.id AND a.released_at IS NULL) h (n, id, sync)
 WHERE s.at > now.at - {GONE_FOR_S} * interval '1 s' OR h.n > 0
 ORDER BY w.unhealthy = '', s.at < now.at - interval '{ALIVE_S} s', e.name, w.name LIMIT {WORKERS_MOST}"""


def hands() -> list[Hand]:
    """Workers, those first that need to be looked at: unhealthy, alive, gone."""
    return [
        Hand(*[*row, (job, public_id(job, sync)) if job else None, _models(catalogue, hashes or ())])
        for *row, job, sync, catalogue, hashes in sql.rows(HANDS)
    ]


def _models(catalogue: int | None, hashes: Sequence[int]) -> list[str]:
    """By name, where the worker's catalogue has them."""
    known = _names(catalogue) if catalogue and hashes else {}
    named = sorted(known[one] for one in hashes if one in known)
    unknown = len(hashes) - len(named)
    return [*named, *([f"{unknown} of no known name"] if unknown else [])]


@lru_cache(maxsize=64)
def _names(catalogue: int) -> dict[int, str]:
    """What a catalogue says never changes."""
    found = Catalogue.objects.filter(pk=catalogue).first()
    return models_in(bytes(found.body)) if found else {}


@dataclass(frozen=True)
class Receiver:
    """A webhook that fails, or that Hearth has disabled."""

    id: UUID
    tenant: str
    url: str
    disabled: bool
    since_s: float


@dataclass(frozen=True)
class Post:
    """Deliveries: those that wait, of them due for a minute while nobody sends them; of the last MOST that ended within
    a day, how many failed."""

    waiting: int
    overdue: int
    ended: int
    failed: int
    receivers: list[Receiver]


POST = f"""
SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs_delivery d WHERE d.state = 'pending' AND {{whose}} LIMIT {MOST}) few),
       (SELECT count(*) FROM (
               SELECT 1 FROM jobs_delivery d WHERE d.state = 'pending' AND {{whose}}
                  AND d.next_at < clock_timestamp() - interval '1 minute'
                  AND coalesce(d.leased_until < clock_timestamp(), true) LIMIT {MOST}) few),
       count(*), count(*) FILTER (WHERE state = 'failed')
  FROM (SELECT d.state FROM jobs_delivery d
         WHERE d.ended_at > (SELECT clock_timestamp() - interval '1 day') AND {{whose}}
         ORDER BY d.ended_at DESC LIMIT {MOST}) few"""
RECEIVERS = f"""
SELECT w.id, t.name, w.url, NOT w.enabled,
       extract(epoch FROM clock_timestamp() - coalesce(w.disabled_at, w.failing_since))::float8 AS since_s
  FROM jobs_webhook w JOIN accounts_tenant t ON t.id = w.tenant_id
 WHERE (w.enabled AND w.failing_since IS NOT NULL OR NOT w.enabled AND w.disabled_at IS NOT NULL) AND {{whose}}
 ORDER BY since_s LIMIT {WEBHOOKS_MOST}"""


def post(tenants: Tenants) -> Post:
    params = {"tenants": list(tenants or ())}
    waiting, overdue, ended, failed = sql.one(POST.format(whose=_whose("d.tenant_id", tenants)), params)
    found = sql.rows(RECEIVERS.format(whose=_whose("w.tenant_id", tenants)), params)
    return Post(waiting, overdue, ended, failed, [Receiver(*row) for row in found])


@dataclass(frozen=True)
class Parts:
    """web: processes that answer. sweeper_s: seconds since one last began a sweep, None: none is there. clusters: of
    tasks, how many of each name are there. late_s: since when the oldest task is due; failed: tasks within a day."""

    web: int
    sweeper_s: float | None
    clusters: dict[str, int]
    late: int
    late_s: float | None
    failed: int


# A sweeper asks for its lock, on a session of its own, before each sweep.
SESSIONS = """
SELECT application_name, count(*), extract(epoch FROM clock_timestamp() - max(query_start))::float8
  FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'hearth %%' GROUP BY 1"""
TASKS = f"""
SELECT (SELECT count(*) FROM jobs_webprocess WHERE {IS_UP}),
       (SELECT count(*) FROM (SELECT 1 FROM django_q_task
                               WHERE NOT success AND stopped > clock_timestamp() - interval '1 day'
                               LIMIT {TASKS_MOST}) few),
       count(*), extract(epoch FROM clock_timestamp() - min(lock))::float8
  FROM (SELECT lock FROM django_q_ormq WHERE lock < clock_timestamp() ORDER BY id LIMIT {TASKS_MOST}) few"""
SWEEPER, CLUSTERS = "hearth sweeper", ("fast", "slow")


def parts() -> Parts:
    sessions = {name: (number, ago_s) for name, number, ago_s in sql.rows(SESSIONS, [])}
    web, failed, late, late_s = sql.one(TASKS)
    sweeper = sessions.get(SWEEPER)
    sweeper_s = None if sweeper is None else sweeper[1] or 0.0  # hidden from a role of few rights
    clusters = {name: sessions.get(f"hearth tasks {name}", (0, 0))[0] for name in CLUSTERS}
    return Parts(web, sweeper_s, clusters, late, late_s, failed)


@dataclass(frozen=True)
class Budget:
    """Of this month (UTC). `of`: the label of its model; part: used of what may be, of GPU time or of cost."""

    of: str
    id: str
    name: str
    most_gpu_s: int | None
    most_cost: Any
    gpu_s: Any
    cost: Any
    part: Any


_MONTH = "(SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date)"
_LIMITED = "(o.gpu_s_a_month IS NOT NULL OR o.cost_a_month IS NOT NULL)"


def _budgets(of: str, name: str, rows: str, used: str) -> str:
    return f"""
SELECT '{of}' AS of, o.id::text AS id, {name} AS name, o.gpu_s_a_month, o.cost_a_month,
       u.gpu_s, u.cost, greatest(u.gpu_s / nullif(o.gpu_s_a_month, 0), u.cost / nullif(o.cost_a_month, 0)) AS part
  FROM {rows} CROSS JOIN LATERAL (
       SELECT coalesce(sum(u.gpu_ms), 0) / 1000, coalesce(sum(u.cost), 0)
         FROM jobs_usage u WHERE u.day >= {_MONTH} AND {used}) u (gpu_s, cost)
 WHERE {_LIMITED} AND {{whose}}"""


OF_ENDPOINTS = _budgets("jobs.endpoint", "o.name", "jobs_endpoint o", "u.endpoint_id = o.id").format(whose="true")
OF_TENANTS = _budgets("accounts.tenant", "o.name", "accounts_tenant o", "u.tenant_id = o.id")
OF_KEYS = _budgets(
    "accounts.apikey",
    "t.name || ' hth_' || o.prefix",
    "accounts_apikey o JOIN accounts_tenant t ON t.id = o.tenant_id",
    "u.tenant_id = o.tenant_id AND u.api_key_id = o.id",
)


def budgets(tenants: Tenants, from_part: float) -> list[Budget]:
    """Those that are used up to this part or more, the fullest first. What runs now is not in it."""
    owners = [OF_TENANTS.format(whose=_whose("o.id", tenants)), OF_KEYS.format(whose=_whose("o.tenant_id", tenants))]
    owners += [OF_ENDPOINTS] if tenants is None else []
    text = f"SELECT * FROM ({' UNION ALL '.join(owners)}) b WHERE part >= %(part)s ORDER BY part DESC"
    params = {"tenants": list(tenants or ()), "part": from_part, "most": BUDGETS_MOST}
    return [Budget(*row) for row in sql.rows(f"{text} LIMIT %(most)s", params)]
