"""What the holder of an API key may address: endpoints that its tenant is granted, and its own jobs there."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet

from accounts import access, sql, tenants
from accounts.errors import Refused, bad_request, not_found
from accounts.keys import GivenKey
from accounts.models import ApiKey
from jobs import absent
from jobs.ids import JobId
from jobs.models import Grant

RUN, READ = ApiKey.Scope.RUN.value, ApiKey.Scope.READ.value


def no_endpoint(name: str) -> Refused:
    return not_found(f"There is no endpoint {name!r} that this API key may use.")


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Of a good key: from its tenant every queryset starts. `endpoints`: the names that the key is limited to; none:
    whatever the tenant is granted."""

    key_id: int
    tenant_id: UUID
    endpoints: Sequence[str] = ()

    def sees(self, name: str) -> Q:
        """Of rows of its tenant with the endpoint's name at `name`, those that the key lets him see."""
        return Q(**{f"{name}__in": self.endpoints}) if self.endpoints else Q()


HOLDER = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, caller.tenant_id, caller.endpoints
  FROM (VALUES (1)) one LEFT JOIN key ON true LEFT JOIN caller ON true"""


def holder(key: GivenKey, scope: str) -> Holder:
    """Raises Refused: 401, 403."""
    row = sql.one(HOLDER, access.api_key_params(key, scope))
    access.check_api_key(key, scope, row)
    tenant_id, endpoints = row[access.API_KEY_WIDTH :]
    return Holder(key_id=row[0], tenant_id=tenant_id, endpoints=endpoints)


def grants_of(tenant_id: UUID) -> QuerySet[Grant]:
    """Its own: by which it may address endpoints."""
    return Grant.all_tenants.filter(tenant_id=tenant_id, overflow_of=None)


def checked_endpoints(tenant_id: UUID, names: Sequence[str]) -> list[str]:
    """The limit of a key, each name once. Raises Refused(400) for an endpoint that its tenant is not granted."""
    granted = tenants.endpoints_of(tenant_id)
    if unknown := [name for name in names if name not in granted]:
        yours = f"Yours are: {', '.join(granted)}." if granted else "You have none."
        raise bad_request(f"`endpoints`: there is no endpoint {unknown[0]!r} that you may use. {yours}")
    return sorted(set(names))


# What a tenant may address. Of its jobs there are some at other endpoints, by the grant's stand-ins.
GRANTED = f"""caller JOIN jobs_grant g ON g.tenant_id = caller.tenant_id AND g.overflow_of_id IS NULL
       JOIN jobs_endpoint e ON e.id = g.endpoint_id AND {access.allows("caller")}"""

OWN_GRANT = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, g.id, e.id
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN ({GRANTED}) ON e.name = %(endpoint)s"""


def own_grant(key: GivenKey, endpoint: str, scope: str) -> tuple[int, int]:
    """(grant id, endpoint id) of the caller's grant on the endpoint. Raises Refused: 401, 403, 404."""
    row = sql.one(OWN_GRANT, access.api_key_params(key, scope) | {"endpoint": endpoint})
    access.check_api_key(key, scope, row)
    grant_id, endpoint_id = row[access.API_KEY_WIDTH :]
    if grant_id is None:
        raise no_endpoint(endpoint)
    return grant_id, endpoint_id


OWN_JOB = f"""
WITH {access.API_KEY}
SELECT {access.API_KEY_COLUMNS}, j.id
  FROM (VALUES (1)) one LEFT JOIN key ON true
  LEFT JOIN (caller JOIN jobs_job j USING (tenant_id) JOIN jobs_endpoint e ON e.id = j.endpoint_id)
    ON j.id = %(job)s AND j.sync = %(sync)s AND e.name = %(endpoint)s AND {access.allows("caller")}"""


def own_job(key: GivenKey, endpoint: str, job: JobId, scope: str) -> None:
    """Raises Refused unless the job is the caller's and on this endpoint: 401, 403, 404, 410."""
    params = access.api_key_params(key, scope) | {"job": job.uuid, "sync": job.sync, "endpoint": endpoint}
    row = sql.one(OWN_JOB, params)
    access.check_api_key(key, scope, row)
    if row[access.API_KEY_WIDTH] is None:
        raise absent.why(row[0], job, endpoint)
