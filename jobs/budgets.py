"""Budgets of endpoints: what all tenants together may use there in a month. A step of the sweeper."""

import logging

from django.db import transaction

from accounts import sql
from jobs.caps import ENDPOINT_HAS_LEFT, SPENT
from jobs.wake import wake_endpoint

log = logging.getLogger("hearth.budgets")

# Exact at the hand-over would be the sum over all tenants, under the endpoint's lock, at each claim.
MARK = f"""
UPDATE jobs_endpoint e SET spent_at = CASE WHEN {SPENT} THEN NULL ELSE clock_timestamp() END
 WHERE coalesce(e.gpu_s_a_month, e.cost_a_month) IS NOT NULL AND {ENDPOINT_HAS_LEFT} = {SPENT}
    OR coalesce(e.gpu_s_a_month, e.cost_a_month) IS NULL AND {SPENT}
RETURNING e.id, e.backend, e.name, e.spent_at IS NOT NULL"""


def mark() -> None:
    """Which endpoints have used what they may in this month, that of what runs there included."""
    with transaction.atomic():
        for endpoint_id, backend, name, spent in sql.rows(MARK):
            log.info("endpoint %s has %s budget of this month", name, "used its" if spent else "again")
            if not spent:
                wake_endpoint(endpoint_id, backend)
