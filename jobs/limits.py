"""What a tenant, its key and an endpoint allow, as the edge asks for it (wire/rates.py, wire/gate.py; rules.md 23)."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

from django.conf import settings

from accounts import access, sql
from accounts.errors import Refused, counted
from accounts.keys import CLIENT, GivenKey
from accounts.rates import WINDOW_S, Quota
from jobs.caps import THIS_MONTH
from jobs.granted import GRANTED, no_endpoint
from jobs.models import Endpoint
from storage.assets import STORED_S


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A good key at an endpoint that it may use. `quotas`: by operation, the narrowest first; none: no limit."""

    key_id: int
    tenant_id: UUID
    endpoint_id: int
    dialect: str
    scopes: frozenset[str]
    quotas: dict[str, tuple[Quota, ...]]


API = "api"  # the kind of every request to /api/v1


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A good key and its tenant, and how many requests of a kind each may make in WINDOW_S, if it has such a limit."""

    key_id: int
    key: GivenKey
    tenant_id: UUID
    tenant: str
    of_tenant: int | None
    of_key: int | None

    def quotas(self, operation: str, scope: str, where: str = "") -> tuple[Quota, ...]:
        """Of a kind of requests; scope: what they are counted by, beside the key or the tenant."""
        number = self.of_tenant if self.of_tenant is not None else settings.RATE_LIMITS[operation] or None
        every = (
            (f"key {self.key_id}", f"{operation}-key", key_named(self.key.prefix), self.of_key),
            (f"tenant {self.tenant_id}", operation, f"Tenant {self.tenant!r}", number),
        )
        return tuple(
            Quota(
                scope=f"{of}/{scope}",
                name=name,
                limit=limit,
                rule=f"{whose} may make {counted(limit, f'`{operation}` request')} in {WINDOW_S} s{where}",
            )
            for of, name, whose, limit in every
            if limit is not None
        )


CALLER = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, e.id, e.dialect, t.id, t.name, k.scopes, t.requests_per_10s, k.requests_per_10s
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN ({GRANTED}
             JOIN accounts_tenant t ON t.id = g.tenant_id JOIN accounts_apikey k ON k.id = caller.key_id)
    ON e.name = %(endpoint)s"""


def caller(key: GivenKey, endpoint: str, scope: str) -> Caller:
    """Who calls. Raises Refused: 401, 403, 404."""
    row = sql.one(CALLER, access.api_key_params(key, scope) | {"endpoint": endpoint})
    access.check_api_key(key, scope, row)
    endpoint_id, dialect, tenant_id, tenant, scopes, of_tenant, of_key = row[access.API_KEY_WIDTH :]
    if endpoint_id is None:
        raise no_endpoint(endpoint)
    asker = Asker(key_id=row[0], key=key, tenant_id=tenant_id, tenant=tenant, of_tenant=of_tenant, of_key=of_key)
    where = f" at endpoint {endpoint!r}"
    return Caller(
        key_id=asker.key_id,
        tenant_id=tenant_id,
        endpoint_id=endpoint_id,
        dialect=dialect,
        scopes=frozenset(scopes),
        quotas={
            kind: asker.quotas(kind, f"{endpoint_id}/{kind}", where) for kind in settings.RATE_LIMITS if kind != API
        },
    )


ASKER = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, t.id, t.name, t.requests_per_10s, k.requests_per_10s
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (accounts_apikey k JOIN accounts_tenant t ON t.id = k.tenant_id) ON k.id = key.id"""


def of_api(key: GivenKey) -> tuple[Quota, ...]:
    """The quotas of a request to /api/v1, whichever scope it needs. Raises Refused(401)."""
    row = sql.one(ASKER, access.api_key_params(key, None))
    access.check_api_key(key, None, row)
    tenant_id, tenant, of_tenant, of_key = row[access.API_KEY_WIDTH :]
    asker = Asker(key_id=row[0], key=key, tenant_id=tenant_id, tenant=tenant, of_tenant=of_tenant, of_key=of_key)
    return asker.quotas(API, API)


def key_named(prefix: str) -> str:
    return f"API key {CLIENT}_{prefix}_…"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why no job is taken now, to be said to more than one request."""

    status: int
    code: str
    error: str
    retry_after_s: int

    def refused(self) -> Refused:
        return Refused(self.status, self.code, self.error, retry_after_s=self.retry_after_s)


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Queued jobs of a tenant, a key or an endpoint, and how many there may be. `whose`: as a sentence begins."""

    of: str
    id: Any
    limit: int
    whose: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What stands between a caller and the queue: a refusal, queues with a limit, and how much it may store."""

    refusal: Refusal | None = None
    queues: tuple[Queue, ...] = ()
    tenant: str = ""
    max_stored_bytes: int | None = None


TERMS = f"""
SELECT e.name, e.mode, e.message, e.max_queued, t.name, t.max_queued, t.max_stored_bytes, k.prefix, k.max_queued,
       ARRAY[t.gpu_s_a_month, t.cost_a_month, k.gpu_s_a_month, k.cost_a_month], used.sums,
       to_char(month.ends, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       extract(epoch FROM month.ends - clock_timestamp() AT TIME ZONE 'UTC')::float
  FROM jobs_endpoint e JOIN accounts_tenant t ON t.id = %(tenant)s JOIN accounts_apikey k ON k.id = %(key)s
 CROSS JOIN LATERAL (
       SELECT ARRAY[coalesce(sum(u.gpu_ms), 0) / 1000, coalesce(sum(u.cost), 0),
                    coalesce(sum(u.gpu_ms) FILTER (WHERE u.api_key_id = k.id), 0) / 1000,
                    coalesce(sum(u.cost) FILTER (WHERE u.api_key_id = k.id), 0)]
         FROM jobs_usage u
        WHERE u.tenant_id = t.id AND {THIS_MONTH}
          AND coalesce(t.gpu_s_a_month, t.cost_a_month, k.gpu_s_a_month, k.cost_a_month) IS NOT NULL) used (sums)
 CROSS JOIN (SELECT date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 month') month (ends)
 WHERE e.id = %(endpoint)s"""


def terms(caller: Caller) -> Terms:
    """The terms of now; none for what is gone, which the verb will say."""
    ids = {"tenant": caller.tenant_id, "key": caller.key_id, "endpoint": caller.endpoint_id}
    row = sql.first(TERMS, ids)
    if row is None:
        return Terms()
    endpoint, mode, message, of_endpoint, tenant, of_tenant, max_stored_bytes, prefix, of_key, *month = row
    names = {"tenant": f"Tenant {tenant!r}", "key": key_named(prefix), "endpoint": f"Endpoint {endpoint!r}"}
    limits = {"tenant": of_tenant, "key": of_key, "endpoint": of_endpoint}
    return Terms(
        refusal=_closed(endpoint, mode, message) or _spent(names["tenant"], names["key"], *month),
        queues=tuple(
            Queue(of=of, id=ids[of], limit=limit, whose=names[of]) for of, limit in limits.items() if limit is not None
        ),
        tenant=names["tenant"],
        max_stored_bytes=max_stored_bytes,
    )


CLOSED_S = 60


def _closed(endpoint: str, mode: str, message: str) -> Refusal | None:
    if mode not in (Endpoint.Mode.DRAINING, Endpoint.Mode.CLOSED):
        return None
    error = f"Endpoint {endpoint!r} takes no jobs at this time{f': {message}' if message else '.'}"
    return Refusal(status=503, code="endpoint_closed", error=error, retry_after_s=CLOSED_S)


def _spent(tenant: str, key: str, limits: list[Any], used: list[Any], ends: str, left_s: float) -> Refusal | None:
    for (whose, is_time), limit, spent in zip(product((tenant, key), (True, False)), limits, used, strict=True):
        if limit is not None and spent >= limit:
            said = counted(spent.normalize(), "GPU-second") if is_time else f"{spent.normalize():f} of cost"
            error = (
                f"{whose} has used {said} this month; its limit is {limit.normalize():f}."
                f" The next month begins at {ends}."
            )
            return Refusal(status=429, code="monthly_limit", error=error, retry_after_s=math.ceil(left_s))
    return None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A queue as it was just now: how many jobs it had, at most counted to its limit, and the refusal if it is full."""

    queued: int
    refusal: Refusal | None = None


JOBS_OF = {
    "tenant": "jobs_grant g JOIN jobs_job j ON j.grant_id = g.id WHERE g.tenant_id = %(id)s",
    "key": "accounts_apikey k JOIN jobs_grant g ON g.tenant_id = k.tenant_id"
    " JOIN jobs_job j ON j.grant_id = g.id AND j.api_key_id = k.id WHERE k.id = %(id)s",
    "endpoint": "jobs_grant g JOIN jobs_job j ON j.grant_id = g.id WHERE g.endpoint_id = %(id)s",
}
QUEUED = "SELECT count(*) FROM (SELECT 1 FROM {} AND j.state = 'IN_QUEUE' LIMIT %(most)s) q"
PACE = """
SELECT count(*) FROM (SELECT 1 FROM {} AND j.finished_at > clock_timestamp() - interval '1 minute'
                         AND j.state IN ('COMPLETED', 'FAILED') LIMIT %(most)s) q"""
PACE_MOST = 10_000


def look(queue: Queue) -> Seen:
    """Count the queue."""
    (queued,) = sql.one(QUEUED.format(JOBS_OF[queue.of]), {"id": queue.id, "most": queue.limit})
    if queued < queue.limit:
        return Seen(queued=queued)
    (ended,) = sql.one(PACE.format(JOBS_OF[queue.of]), {"id": queue.id, "most": PACE_MOST})
    return Seen(queued=queued, refusal=_full(queue, ended))


def _full(queue: Queue, ended: int) -> Refusal:
    """`ended`: jobs of the last minute, whose pace the estimate is."""
    retry_after_s = math.ceil(60 / ended) if ended else 60
    through_s = math.ceil(queue.limit * 60 / ended) if ended else 0
    estimate = (
        f"At the last minute's pace there is room in about {retry_after_s} s, and all are done in {through_s} s."
        if ended
        else "None of its jobs was done in the last minute; there is room when a worker takes one or one is cancelled."
    )
    of_all = " of all tenants" if queue.of == "endpoint" else ""
    return Refusal(
        status=429,
        code="endpoint_queue_full" if queue.of == "endpoint" else "queue_full",
        error=f"{queue.whose} has {counted(queue.limit, 'queued job')}{of_all}, which is its limit. {estimate}",
        retry_after_s=retry_after_s,
    )


def storage_full(whose: str, limit: int, stored: int) -> Refusal:
    used = f"{whose} has {counted(stored, 'byte')} of files here; its limit is {limit}."
    error = f"{used} There is room when files are deleted."
    return Refusal(status=429, code="storage_full", error=error, retry_after_s=STORED_S)
