"""claim() itself: the price of a hand-over with a short and a long queue, and with many tenants who want nothing."""

import secrets
import time
from statistics import median

from accounts import sql
from benchmarks.bench import Bench
from benchmarks.measure import Figure, Row, interleaved, ratios
from benchmarks.tenants import forget_jobs
from jobs import queue
from jobs.models import Endpoint

TENANTS = """
INSERT INTO accounts_tenant (id, name)
SELECT gen_random_uuid(), %(name)s || '-' || i FROM generate_series(1, %(n)s::int) i"""
KEYS = """
INSERT INTO accounts_apikey (name, prefix, digest, scopes, tenant_id)
SELECT '', left(md5(id::text), 12), '', '{run}', id FROM accounts_tenant WHERE name LIKE %(name)s || '-%%'"""
GRANTS = """
INSERT INTO jobs_grant (tenant_id, endpoint_id, weight)
SELECT id, %(endpoint)s, 1 FROM accounts_tenant WHERE name LIKE %(name)s || '-%%'"""
JOBS = """
WITH job AS (
    INSERT INTO jobs_job (id, sync, tenant_id, endpoint_id, grant_id, api_key_id, ttl_ms, execution_timeout_ms,
                          deadline_at)
    SELECT uuidv7(), false, g.tenant_id, g.endpoint_id, g.id, k.id, 86400000, 600000,
           clock_timestamp() + interval '1 day'
      FROM generate_series(%(first)s::int, %(last)s::int) i, jobs_grant g JOIN accounts_apikey k USING (tenant_id)
     WHERE g.endpoint_id = %(endpoint)s AND g.id <= coalesce(%(until)s, g.id) ORDER BY i, g.id RETURNING id
)
INSERT INTO jobs_payload (job_id, input) SELECT id, '{}' FROM job WHERE %(whole)s"""
ENOUGH = 20  # jobs of a tenant that have a payload: no more of it are taken


def claim(bench: Bench) -> Row:
    """One claim and its commit: 1,000 and 1,000,000 jobs over the same tenants, and with only one of them busy."""
    name, tenants, long = f"claim-{secrets.token_hex(3)}", bench.count(1000, 20), bench.count(1000, 50)
    sql.run(TENANTS, {"name": name, "n": tenants})
    sql.run(KEYS, {"name": name})
    short, million, one = (_endpoint(name, part) for part in ("short", "long", "one"))
    _queue(short, 1, ENOUGH if bench.quick else 1)
    _queue(million, 1, ENOUGH)
    _queue(million, ENOUGH + 1, long, whole=False)
    _queue(one, 1, 1000, until=sql.one("SELECT min(id) FROM jobs_grant WHERE endpoint_id = %s", [one])[0])
    sql.run("VACUUM ANALYZE")
    claims = bench.count(150, 5)
    variants = {"short": short, "long": million, "one": one}
    found = interleaved(bench.rounds, {part: lambda at=at: _ms(at, claims) for part, at in variants.items()})  # type: ignore[misc]
    forget_jobs()
    over = ratios(found["long"], found["short"])
    figures = [
        Figure(name="1,000 queued, of 1,000 tenants", unit="ms", rounds=found["short"]),
        Figure(name="1,000,000 queued, of the same", unit="ms", rounds=found["long"]),
        Figure(name="1,000,000 / 1,000", unit="×", rounds=over, at_most=1.5),
        Figure(name="999 tenants with nothing queued, one busy", unit="ms", rounds=found["one"]),
    ]
    return Row(figures=figures, raw=found)


def _endpoint(name: str, part: str) -> int:
    endpoint = Endpoint.objects.create(name=f"{name}-{part}", dialect="raw")
    sql.run(GRANTS, {"name": name, "endpoint": endpoint.pk})
    return endpoint.pk


def _queue(endpoint: int, first: int, last: int, *, whole: bool = True, until: int | None = None) -> None:
    sql.run(JOBS, {"endpoint": endpoint, "first": first, "last": last, "whole": whole, "until": until})


def _ms(endpoint: int, claims: int) -> float:
    """The median of so many claims one after the other, from this process, over its one connection."""
    holder = queue.Holder(name="bench")
    for _ in range(6):  # after five times PostgreSQL keeps the plan
        _claim(endpoint, holder)
    return median(_claim(endpoint, holder) for _ in range(claims))


def _claim(endpoint: int, holder: queue.Holder) -> float:
    begun = time.perf_counter()
    taken = queue.claim(endpoint, holder, 1)
    took = time.perf_counter() - begun
    if not taken.jobs:
        raise RuntimeError("a claim found nothing")
    return took * 1000
