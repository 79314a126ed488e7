"""Deliveries of news to tenants: claimed by lease, made into a signed message, finished by what the receiver answered.

No transaction is open while a message is posted (post.py). Whoever holds a lease and dies loses it, and the delivery is
sent again under the same webhook-id: at least once, and twice only then.
"""

import logging
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from botocore.exceptions import BotoCoreError
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from accounts import sql
from accounts.sealed import SealBroken
from jobs.models import Delivery
from jobs.webhooks.message import Message, make
from storage.places import BucketRefused

log = logging.getLogger("hearth.webhooks")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many deliveries are on their way at a time: of a lane and of a tenant, over all processes, and in this one.
    post_s: how long a POST may take. A lane whose last try failed has one on its way."""

    at_once: int
    per_tenant: int = 8
    per_lane: int = 4
    post_s: float = 15.0

    @property
    def lease_s(self) -> float:
        return self.post_s + 15


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A delivery to be sent now. tries: failed ones since it began, waited_s ago."""

    id: int
    lane: UUID
    webhook_id: UUID | None
    kind: str
    tries: int
    waited_s: float
    leased_until: datetime


# The lanes with something pending are skipped through by their index. A few of each lane and tenant are chosen; who has
# the fewest on their way goes first.
CLAIM = """
WITH RECURSIVE now AS MATERIALIZED (SELECT clock_timestamp() AS at), lane AS (
    (SELECT lane, tenant_id FROM jobs_delivery WHERE state = 'pending' ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT n.lane, n.tenant_id FROM lane l CROSS JOIN LATERAL (
           SELECT d.lane, d.tenant_id FROM jobs_delivery d
            WHERE d.state = 'pending' AND d.lane > l.lane ORDER BY d.lane LIMIT 1) n
), leased AS (
    SELECT tenant_id, lane, count(*) AS n FROM jobs_delivery, now WHERE leased_until > now.at GROUP BY tenant_id, lane
), sent AS (
    SELECT tenant_id, sum(n) AS n FROM leased GROUP BY tenant_id
), due AS (
    SELECT d.id, d.next_at, lane.tenant_id
      FROM lane LEFT JOIN leased USING (tenant_id, lane) CROSS JOIN now CROSS JOIN LATERAL (
           SELECT d.id, d.next_at FROM jobs_delivery d
            WHERE d.lane = lane.lane AND d.state = 'pending' AND d.next_at <= now.at
              AND coalesce(d.leased_until <= now.at, true)
            ORDER BY d.next_at, d.id
            LIMIT greatest(0, CASE WHEN lane.lane = ANY (%(failing)s::uuid[]) THEN 1 ELSE %(per_lane)s::int END
                              - coalesce(leased.n, 0))
              FOR UPDATE SKIP LOCKED) d
), turn AS (
    SELECT due.id, due.next_at, coalesce(sent.n, 0) + row_number() OVER (
           PARTITION BY due.tenant_id ORDER BY due.next_at, due.id) AS n
      FROM due LEFT JOIN sent USING (tenant_id)
), chosen AS (
    SELECT id FROM turn WHERE n <= %(per_tenant)s ORDER BY n, next_at, id LIMIT %(free)s
)
UPDATE jobs_delivery d SET leased_until = now.at + %(lease)s * interval '1 s' FROM chosen, now WHERE d.id = chosen.id
RETURNING d.id, d.lane, d.webhook_id, d.kind, d.tries, extract(epoch FROM now.at - d.began_at)::float8,
          d.leased_until"""


def claim(free: int, bounds: Bounds, failing: Collection[UUID] = ()) -> list[Claimed]:
    """Take up to `free` deliveries that are due; `failing`: the lanes whose last try failed."""
    params = {"free": free, "failing": list(failing), "lease": bounds.lease_s}
    params |= {"per_lane": bounds.per_lane, "per_tenant": bounds.per_tenant}
    return [
        Claimed(id=id, lane=lane, webhook_id=webhook, kind=kind, tries=tries, waited_s=waited_s, leased_until=leased)
        for id, lane, webhook, kind, tries, waited_s, leased in sql.rows(CLAIM, params)
    ]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one POST. answer: the first bytes of the body; error: why there is no HTTP answer."""

    ms: int
    status: int | None = None
    answer: str = ""
    error: str = ""
    retry_after_s: float | None = None

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        return self.status == 410


def prepare(claimed: Claimed) -> Message | None:
    """The message as it is now, with fresh URLs and signatures; None if there is nothing to send any more."""
    try:
        message = make(claimed.id)
    except (BotoCoreError, BucketRefused, SealBroken, ValueError, TypeError) as error:
        log.warning("delivery %s could not be made: %s", claimed.id, error)
        finish(claimed, Answer(ms=0, error=f"Hearth could not make it: {error}"[:300]))
        return None
    if message is None:
        _set(claimed, Delivery.State.OUTDATED)
    return message


FIRST_S, FACTOR, LONGEST_S, WITHIN_S, JITTER = 5.0, 3.0, 3 * 3600.0, 24 * 3600.0, 0.2


def next_after(tries: int, waited_s: float, dice: float, retry_after_s: float | None = None) -> float | None:
    """Seconds from the latest of `tries` failed tries to the next; None if that were more than a day after the news.

    dice: 0 to 1. What the receiver asks for (Retry-After) counts if it is longer, up to LONGEST_S.
    """
    pause = min(FIRST_S * FACTOR ** min(tries - 1, 20), LONGEST_S) * (1 - JITTER + 2 * JITTER * dice)
    pause = max(pause, min(retry_after_s or 0, LONGEST_S))
    return pause if waited_s + pause <= WITHIN_S else None


def finish(claimed: Claimed, answer: Answer) -> None:
    """Keep the try, and what follows from it: delivered, tried again later, or given up. 410 ends a webhook."""
    with transaction.atomic():
        _judge_webhook(claimed, answer)  # locks its row first, as whoever disables it does
        _keep_try(claimed, answer)
        if answer.taken:
            _set(claimed, Delivery.State.DELIVERED, tried=True)
            return
        tries = claimed.tries + 1
        pause = next_after(tries, claimed.waited_s, random.random(), answer.retry_after_s)
        if pause is None or answer.gone or claimed.kind == Delivery.Kind.TEST:
            _set(claimed, Delivery.State.FAILED, tried=True)
        else:
            params = {"id": claimed.id, "lease": claimed.leased_until, "pause": pause}
            sql.run(AGAIN, params)


AGAIN = """
UPDATE jobs_delivery
   SET tries = tries + 1, leased_until = NULL, next_at = clock_timestamp() + %(pause)s::float8 * interval '1 s'
 WHERE id = %(id)s AND state = 'pending' AND leased_until = %(lease)s"""

# A success counts whoever has the lease by now; for all else it must be ours still.
SET = """
UPDATE jobs_delivery
   SET state = %(state)s::text, tries = tries + %(tried)s::bool::int, leased_until = NULL, next_at = NULL,
       ended_at = clock_timestamp()
 WHERE id = %(id)s AND state = 'pending' AND (%(state)s::text = 'delivered' OR leased_until = %(lease)s)"""


def _set(claimed: Claimed, state: Delivery.State, *, tried: bool = False) -> None:
    sql.run(SET, {"id": claimed.id, "state": state.value, "tried": tried, "lease": claimed.leased_until})


KEEP_TRY = """
WITH kept AS (
    INSERT INTO jobs_deliverytry (tenant_id, delivery_id, at, ms, status, answer, error)
    SELECT tenant_id, id, clock_timestamp(), %(ms)s, %(status)s, %(answer)s, %(error)s
      FROM jobs_delivery WHERE id = %(id)s FOR KEY SHARE
)
DELETE FROM jobs_deliverytry WHERE id IN (
       SELECT id FROM jobs_deliverytry WHERE delivery_id = %(id)s ORDER BY id DESC OFFSET %(most)s)"""
TRIES_KEPT = 100  # of one delivery, the latest: it may be replayed again and again


def _keep_try(claimed: Claimed, answer: Answer) -> None:
    params = {"id": claimed.id, "ms": answer.ms, "status": answer.status, "most": TRIES_KEPT - 1}
    sql.run(KEEP_TRY, params | {"answer": answer.answer.replace("\0", "�"), "error": answer.error[:300]})


FAILING = """
UPDATE jobs_webhook SET failing_since = CASE WHEN %(taken)s::bool THEN NULL
                                             ELSE coalesce(failing_since, clock_timestamp()) END
 WHERE id = %(id)s
RETURNING enabled AND failing_since < clock_timestamp() - %(days)s * interval '1 day', failing_since"""


def _judge_webhook(claimed: Claimed, answer: Answer) -> None:
    """A registered webhook that answers 410, or has failed for days on end, is disabled. Tests do not count."""
    if claimed.webhook_id is None or claimed.kind == Delivery.Kind.TEST:
        return
    days = settings.WEBHOOK_DISABLE_DAYS
    row = sql.first(FAILING, {"id": claimed.webhook_id, "taken": answer.taken, "days": days})
    if row is None:
        return
    too_long, since = row
    if answer.gone:
        disable(claimed.webhook_id, "It answered 410 (Gone).")
    elif too_long:
        last = f"It answered {answer.status}." if answer.status else answer.error
        when = f"{since.astimezone(UTC):%Y-%m-%d %H:%M}"
        disable(claimed.webhook_id, f"Every try since {when} (UTC) has failed. The last: {last}")


DISABLE = """
UPDATE jobs_webhook SET enabled = false, disabled_at = clock_timestamp(), disabled_why = %(why)s, told_at = NULL
 WHERE id = %(id)s AND enabled"""
GIVE_UP = """
UPDATE jobs_delivery SET state = 'failed', next_at = NULL, leased_until = NULL, ended_at = clock_timestamp()
 WHERE lane = %(id)s AND state = 'pending'"""


def disable(webhook_id: UUID, why: str) -> None:
    """No more news goes there, and what is pending has failed. The sweeper mails why (mail.py)."""
    with transaction.atomic():
        if sql.run(DISABLE, {"id": webhook_id, "why": why[:300]}):
            sql.run(GIVE_UP, {"id": webhook_id})
            log.info("webhook %s is disabled: %s", webhook_id, why)


def release(claimed: Claimed) -> None:
    """It was not sent after all: whoever asks next may."""
    sql.run(
        "UPDATE jobs_delivery SET leased_until = NULL WHERE id = %s AND state = 'pending' AND leased_until = %s",
        [claimed.id, claimed.leased_until],
    )


FORGET = """
WITH old AS (
    SELECT id FROM jobs_delivery WHERE ended_at < clock_timestamp() - %(days)s * interval '1 day'
     ORDER BY ended_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), tries AS (
    DELETE FROM jobs_deliverytry t USING old WHERE t.delivery_id = old.id
)
DELETE FROM jobs_delivery d USING old WHERE d.id = old.id"""


def forget(batch: int) -> int:
    """Deliveries that ended long ago, with their tries."""
    return sql.run(FORGET, {"days": settings.DELIVERY_DAYS, "batch": batch})


OVERDUE_S = 60
COUNTED = 10_000


def is_overdue() -> Q:
    """Due for OVERDUE_S, and nobody sends it."""
    unsent = Q(leased_until=None) | Q(leased_until__lt=Now())
    return unsent & Q(state=Delivery.State.PENDING, next_at__lt=Now() - timedelta(seconds=OVERDUE_S))


def overdue() -> int:
    """How many have been due for OVERDUE_S without anybody sending them, counted to COUNTED."""
    return Delivery.all_tenants.filter(is_overdue())[:COUNTED].count()
