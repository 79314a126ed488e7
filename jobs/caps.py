"""What may run now, as SQL conditions: caps and monthly limits of endpoints, grants, tenants, keys (rules.md 5, 23).

They are exact in a statement that begins when the row they belong to is locked. Aliases: e, g, t, k of jobs_endpoint,
jobs_grant, accounts_tenant, accounts_apikey.
"""

# The rows `u` of jobs_usage of this calendar month, UTC, which is what monthly limits and invoices count.
THIS_MONTH = "u.day >= date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date"

_HELD = "SELECT count(*) FROM jobs_attempt a JOIN jobs_grant h ON h.id = a.grant_id WHERE a.released_at IS NULL AND"
_HELD_BY_KEY = "SELECT count(*) FROM jobs_attempt a JOIN jobs_job i ON i.id = a.job_id WHERE a.released_at IS NULL AND"


def _monthly(owner: str, used: str, held: str) -> str:
    """Used this month and by what is held now: its time so far or, if that is more, what such a job takes."""
    return f"""({owner}.gpu_s_a_month IS NULL AND {owner}.cost_a_month IS NULL OR (
     SELECT coalesce(sum(m.ms), 0) < coalesce({owner}.gpu_s_a_month * 1000.0, 'infinity')
        AND coalesce(sum(m.cost), 0) < coalesce({owner}.cost_a_month, 'infinity')
       FROM (SELECT u.gpu_ms, u.cost FROM jobs_usage u WHERE {used} AND {THIS_MONTH}
             UNION ALL
             SELECT w.ms, w.ms / 1000 * coalesce(h.price, o.price, 0)
               FROM jobs_attempt a JOIN jobs_grant h ON h.id = a.grant_id JOIN jobs_endpoint o ON o.id = h.endpoint_id
               JOIN jobs_job i ON i.id = a.job_id CROSS JOIN LATERAL (SELECT greatest(a.charged_ms::numeric,
                    extract(epoch FROM clock_timestamp() - a.started_at) * 1000)) w (ms)
              WHERE a.released_at IS NULL AND {held}) m (ms, cost)))"""


# An endpoint's budget is looked at by the sweeper (overflow.py): its sum is over all tenants.
SPENT = "coalesce(e.spent_at >= date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', false)"

HANDS_OUT = f"""(e.mode IN ('open', 'draining') AND NOT {SPENT}
   AND (e.max_running IS NULL OR ({_HELD} h.endpoint_id = e.id) < e.max_running))"""

# With its stand-ins: what was addressed by the grant, wherever it runs.
GRANT_RUNS = f"""({_HELD} h.tenant_id = g.tenant_id
                AND coalesce(h.overflow_of_id, h.id) = coalesce(g.overflow_of_id, g.id))"""
IS_SPREAD = """(g.overflow_of_id IS NOT NULL
   OR EXISTS (SELECT 1 FROM jobs_grant s WHERE s.overflow_of_id = g.id))"""
GRANT_MAY = f"(g.max_running IS NULL OR {GRANT_RUNS} < g.max_running)"

TENANT_RUNS = f"({_HELD} h.tenant_id = t.id)"
TENANT_HAS_LEFT = _monthly("t", "u.tenant_id = t.id", "h.tenant_id = t.id")
TENANT_MAY = f"((t.max_running IS NULL OR {TENANT_RUNS} < t.max_running) AND {TENANT_HAS_LEFT})"

ENDPOINT_HAS_LEFT = _monthly("e", "u.endpoint_id = e.id", "h.endpoint_id = e.id")

KEY_RUNS = f"({_HELD_BY_KEY} i.api_key_id = k.id)"
KEY_HAS_LEFT = _monthly("k", "u.tenant_id = k.tenant_id AND u.api_key_id = k.id", "i.api_key_id = k.id")
KEY_MAY = f"((k.max_running IS NULL OR {KEY_RUNS} < k.max_running) AND {KEY_HAS_LEFT})"


def limits_something(row: str) -> str:
    """Whether a tenant or key has a limit that is looked at here, so that its tenant's row has to be locked."""
    return f"({row}.max_running IS NOT NULL OR {row}.gpu_s_a_month IS NOT NULL OR {row}.cost_a_month IS NOT NULL)"
