"""settle(): what a job used goes to its tenant's usage and figures and to its grant's clock, in the transaction that
ends it."""

from collections.abc import Sequence
from uuid import UUID

from django.conf import settings

from accounts import sql
from jobs import figures
from jobs.caps import limits_something
from jobs.live import announce, endpoint_key

# What a job is charged before any of its endpoint has been completed: the same for all grants, so that it favours none.
# It is made good at the job's end, and no estimate is told from it (sight.py).
FIRST_MS = 1000

# An attempt is settled once: then it has a gpu_ms. `charged_ms` is what the clock was moved by when it was handed over.
# All is counted where it ran, or waited last. Returns the tenant's other endpoints that have jobs of it queued, if it,
# the key or the grant has limits that may hold them up.
SETTLE = f"""
WITH released AS (
    SELECT a.id, a.grant_id, a.charged_ms, a.outcome, j.tenant_id, a.endpoint_id, j.api_key_id, gpu.ms,
           a.outcome IN ('lost', 'handed_back') AND NOT %(bill_lost)s::bool AS free,
           coalesce(g.price, e.price, 0) / 1000 AS price, g.max_running IS NOT NULL AS capped,
           coalesce(g.overflow_of_id, g.id) AS addressed,
           coalesce((SELECT sum(b.bytes) FROM storage_blob b
                      WHERE b.job_id = a.job_id AND b.attempt = a.number AND b.state = 'kept'), 0) AS file_bytes
      FROM jobs_attempt a JOIN jobs_job j ON j.id = a.job_id
      JOIN jobs_grant g ON g.id = a.grant_id JOIN jobs_endpoint e ON e.id = a.endpoint_id
     CROSS JOIN LATERAL (
           SELECT CASE WHEN a.outcome = 'undone' OR a.started_at IS NULL THEN 0
                       ELSE greatest(0, extract(epoch FROM a.released_at - a.started_at) * 1000) END::bigint) gpu (ms)
     WHERE a.job_id = ANY (%(jobs)s::uuid[]) AND a.released_at IS NOT NULL AND a.gpu_ms IS NULL
       FOR NO KEY UPDATE OF a
), attempt AS (
    UPDATE jobs_attempt a SET gpu_ms = r.ms, cost = CASE WHEN r.free THEN 0 ELSE r.ms * r.price END
      FROM released r WHERE a.id = r.id
), ended AS (
    SELECT j.tenant_id, g.endpoint_id, j.api_key_id,
           CASE WHEN j.retries = 0 THEN octet_length(p.input) + p.moved_bytes ELSE 0 END AS bytes_in,
           coalesce(octet_length(p.output), 0) AS bytes_out, j.delay_ms, j.execution_ms
      FROM jobs_job j JOIN jobs_payload p ON p.job_id = j.id JOIN jobs_grant g ON g.id = j.grant_id
     WHERE %(ended)s::text <> '' AND j.id = ANY (%(jobs)s::uuid[])
), used AS (
    SELECT tenant_id, endpoint_id, api_key_id, (outcome <> 'undone')::int AS attempts,
           (outcome IN ('lost', 'handed_back'))::int AS lost, CASE WHEN free THEN 0 ELSE ms END AS gpu_ms,
           CASE WHEN free THEN ms ELSE 0 END AS unbilled_gpu_ms, CASE WHEN free THEN 0 ELSE ms * price END AS cost,
           0 AS ended, 0 AS bytes_in, file_bytes AS bytes_out, NULL::bigint AS delay_ms, NULL::bigint AS execution_ms
      FROM released
    UNION ALL
    SELECT tenant_id, endpoint_id, api_key_id, 0, 0, 0, 0, 0, 1, bytes_in, bytes_out, delay_ms, execution_ms FROM ended
), usage AS (
    INSERT INTO jobs_usage AS u (tenant_id, endpoint_id, api_key_id, day, attempts, lost, gpu_ms, unbilled_gpu_ms, cost,
                                 completed, failed, cancelled, timed_out, bytes_in, bytes_out)
    SELECT tenant_id, endpoint_id, api_key_id, (clock_timestamp() AT TIME ZONE 'UTC')::date,
           sum(attempts), sum(lost), sum(gpu_ms), sum(unbilled_gpu_ms), sum(cost),
           sum(ended) * (%(ended)s = 'COMPLETED')::int, sum(ended) * (%(ended)s = 'FAILED')::int,
           sum(ended) * (%(ended)s = 'CANCELLED')::int, sum(ended) * (%(ended)s = 'TIMED_OUT')::int,
           sum(bytes_in), sum(bytes_out)
      FROM used GROUP BY tenant_id, endpoint_id, api_key_id ORDER BY tenant_id, endpoint_id, api_key_id
        ON CONFLICT (tenant_id, day, endpoint_id, api_key_id) DO UPDATE
       SET attempts = u.attempts + excluded.attempts, lost = u.lost + excluded.lost,
           gpu_ms = u.gpu_ms + excluded.gpu_ms, unbilled_gpu_ms = u.unbilled_gpu_ms + excluded.unbilled_gpu_ms,
           cost = u.cost + excluded.cost, completed = u.completed + excluded.completed,
           failed = u.failed + excluded.failed, cancelled = u.cancelled + excluded.cancelled,
           timed_out = u.timed_out + excluded.timed_out, bytes_in = u.bytes_in + excluded.bytes_in,
           bytes_out = u.bytes_out + excluded.bytes_out
), figures AS (
    {figures.ADD}
), share AS (
    SELECT grant_id, sum(CASE WHEN outcome = 'undone' THEN 0 ELSE greatest(ms, 1) END - charged_ms) AS owed_ms,
           avg(ms) FILTER (WHERE outcome = 'completed') AS job_ms
      FROM released GROUP BY grant_id ORDER BY grant_id
), clock AS (
    UPDATE jobs_grant g SET clock = g.clock + s.owed_ms / g.weight,
           job_ms = coalesce(g.job_ms + 0.2 * (s.job_ms - g.job_ms), g.job_ms, s.job_ms)
      FROM share s WHERE g.id = s.grant_id
)
SELECT DISTINCT o.endpoint_id
  FROM released r JOIN accounts_tenant t ON t.id = r.tenant_id LEFT JOIN accounts_apikey k ON k.id = r.api_key_id
  JOIN jobs_grant o ON o.tenant_id = r.tenant_id AND o.endpoint_id <> r.endpoint_id
 WHERE ({limits_something("t")} OR {limits_something("k")}
        OR r.capped AND coalesce(o.overflow_of_id, o.id) = r.addressed)
   AND EXISTS (SELECT 1 FROM jobs_job j WHERE j.grant_id = o.id AND j.state = 'IN_QUEUE')"""


def settle(jobs: Sequence[UUID], ended: str = "") -> None:
    """Write the usage of what was let go of among these jobs' attempts, and if the jobs ended now, in which state.

    In the transaction that did both, which has locked the rows that it changed. After its commit a worker of each of
    the tenant's other endpoints is woken, if a limit may have kept its jobs from it.
    """
    params = {"jobs": list(jobs), "ended": ended, "bill_lost": settings.BILL_LOST}
    if freed := sql.rows(SETTLE, params):
        announce(*(endpoint_key(endpoint) for (endpoint,) in freed))
