"""Who is asking: the part of a verb's one statement that reads the key, and what it refuses with.

A statement begins `WITH {API_KEY}` or `WITH {WORKER_KEY}`, joins what it does to `caller` (no row unless the key is
good and has the scope), and returns `{…_COLUMNS}` first, so that one round trip both acts and can say why it did not.
"""

from typing import Any

from accounts import sql
from accounts.errors import Refused, counted
from accounts.keys import CLIENT, WORKER, GivenKey


def address_of(request: Any) -> str | None:
    """The client's, as django-axes asks for it: the connection's, which uvicorn has from a proxy that it trusts."""
    return request.META.get("REMOTE_ADDR") or None


API_KEY = """
  key AS (
    SELECT id, tenant_id, digest, endpoints, revoked_at IS NOT NULL AS revoked,
           coalesce(expires_at <= clock_timestamp(), false) AS expired, %(scope)s::text = ANY (scopes) AS in_scope,
           coalesce(last_used_at < clock_timestamp() - interval '1 minute', true) AS unmarked,
           CASE WHEN coalesce(last_used_at, created_at) <= clock_timestamp() - interval '1 day' THEN (
                SELECT unused_key_days FROM accounts_tenant t WHERE t.id = k.tenant_id
                   AND coalesce(last_used_at, k.created_at) <= clock_timestamp() - unused_key_days * interval '1 day'
           ) END AS unused_days
      FROM accounts_apikey k WHERE prefix = %(key_prefix)s
  ), caller AS (
    SELECT id AS key_id, tenant_id, endpoints FROM key
     WHERE digest = %(key_digest)s AND NOT revoked AND NOT expired AND unused_days IS NULL AND in_scope
  )"""
API_KEY_COLUMNS = "key.id, key.digest, key.revoked, key.expired, key.in_scope, key.unmarked, key.unused_days"
API_KEY_WIDTH = 7


def allows(key: str) -> str:
    """Whether the key of these rows may address the endpoint `e`; one without a limit may address any."""
    return f"(cardinality({key}.endpoints) = 0 OR e.name = ANY ({key}.endpoints))"


def api_key_params(key: GivenKey, scope: str | None) -> dict[str, Any]:
    """The parameters of API_KEY; without a scope there is no `caller`. Raises Refused at once for what cannot be an API
    key."""
    if key.kind == WORKER:
        raise Refused(401, "unauthorized", "This is a worker key; here an API key (hth_…) is needed.")
    if key.kind != CLIENT:
        raise Refused(401, "unauthorized", "No API key: send the header `Authorization: Bearer hth_…`.")
    return {"key_prefix": key.prefix, "key_digest": key.digest, "scope": scope}


def check_api_key(key: GivenKey, scope: str | None, row: sql.Row) -> None:
    """Refuse by the API_KEY_COLUMNS at the head of `row`; mark the key as used, at most once a minute. scope None: any
    will do."""
    key_id, digest, revoked, expired, in_scope, unmarked, unused_days = row[:API_KEY_WIDTH]
    if revoked and key.matches(digest):
        _check_tenant(key_id)
    _check(key, key_id, digest, revoked, expired, "API key")
    if unused_days is not None:
        raise Refused(
            401, "unauthorized", f"This API key has expired: nobody used it for {counted(unused_days, 'day')}."
        )
    if scope is not None and not in_scope:
        raise Refused(403, "forbidden", f"This API key has not the scope {scope!r}.")
    if unmarked:
        _mark_used("accounts_apikey", key_id)


WORKER_KEY = """
  key AS (
    SELECT k.id, k.digest, k.revoked_at IS NOT NULL AS revoked,
           coalesce(k.expires_at <= clock_timestamp(), false) AS expired,
           coalesce(k.last_used_at < clock_timestamp() - interval '1 minute', true) AS unmarked,
           e.id AS endpoint_id, e.name
      FROM jobs_workerkey k JOIN jobs_endpoint e ON e.id = k.endpoint_id WHERE k.prefix = %(key_prefix)s
  ), caller AS (
    SELECT endpoint_id FROM key WHERE digest = %(key_digest)s AND NOT revoked AND NOT expired AND name = %(endpoint)s
  )"""
WORKER_KEY_COLUMNS = "key.id, key.digest, key.revoked, key.expired, key.unmarked, key.endpoint_id, key.name"
WORKER_KEY_WIDTH = 7


def worker_key_params(key: GivenKey, endpoint: str) -> dict[str, Any]:
    """The parameters of WORKER_KEY. Raises Refused at once for what cannot be a worker key."""
    if key.kind != WORKER:
        raise Refused(401, "unauthorized", "A worker key (hwk_…) is needed here, in RUNPOD_AI_API_KEY.")
    return {"key_prefix": key.prefix, "key_digest": key.digest, "endpoint": endpoint}


def check_worker(key: GivenKey, endpoint: str, row: sql.Row) -> int:
    """The id of the endpoint, by the WORKER_KEY_COLUMNS at the head of `row`; Refused unless the key is its."""
    key_id, digest, revoked, expired, unmarked, endpoint_id, name = row[:WORKER_KEY_WIDTH]
    _check(key, key_id, digest, revoked, expired, "worker key")
    if name != endpoint:
        raise Refused(404, "not_found", f"This worker key is not of an endpoint {endpoint!r}.")
    if unmarked:
        _mark_used("jobs_workerkey", key_id)
    return int(endpoint_id)


def check_worker_key(key: GivenKey, endpoint: str) -> int:
    """The id of the endpoint whose worker key this is; Refused unless it is `endpoint`'s."""
    return check_worker(key, endpoint, sql.one(_WORKER, worker_key_params(key, endpoint)))


_WORKER = f"WITH {WORKER_KEY} SELECT {WORKER_KEY_COLUMNS} FROM (VALUES (1)) one LEFT JOIN key ON true"


def _check(key: GivenKey, key_id: Any, digest: Any, revoked: bool, expired: bool, what: str) -> None:
    if key_id is None or not key.matches(digest):
        raise Refused(401, "unauthorized", f"Unknown {what}.")
    if revoked:
        raise Refused(401, "unauthorized", f"This {what} was revoked.")
    if expired:
        raise Refused(401, "unauthorized", f"This {what} has expired.")


def _check_tenant(api_key: int) -> None:
    """A tenant that was deleted is told so by his keys, which were revoked then."""
    (at,) = sql.one(_DELETED, [api_key])
    if at:
        raise Refused(410, "gone", f"The tenant of this API key was deleted at {at}.")


_DELETED = """
    SELECT to_char(t.deleted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
      FROM accounts_tenant t JOIN accounts_apikey k ON k.tenant_id = t.id WHERE k.id = %s"""


def _mark_used(table: str, key_id: int) -> None:
    sql.run(
        f"UPDATE {table} SET last_used_at = clock_timestamp() WHERE id = %s"
        " AND coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)",
        [key_id],
    )
