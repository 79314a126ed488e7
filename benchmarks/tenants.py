"""Who asks, in the instance's own database: tenants with a key each, on endpoints that only the benchmarks use."""

import secrets
from dataclasses import dataclass
from typing import Any

from django.db import connection

from accounts.models import Tenant
from jobs.models import Endpoint
from jobs.tenants import create_tenant, worker_environment

ANY_NUMBER = 1_000_000_000  # of requests: they are counted, and none is refused


@dataclass(frozen=True, kw_only=True)
class Place:
    """An endpoint, its worker key, and the API keys of its tenants."""

    endpoint: Endpoint
    worker_key: str
    api_keys: list[str]

    @property
    def path(self) -> str:
        return f"/v2/{self.endpoint.name}"

    def worker_environment(self, url: str) -> dict[str, str]:
        return worker_environment(self.endpoint, self.worker_key, url, "bench")


def new_place(tenants: int = 1, **fields: Any) -> Place:
    endpoint = Endpoint.objects.create(name=f"bench-{secrets.token_hex(4)}", **fields)
    made = [create_tenant(f"{endpoint.name}-{number}", endpoint.name) for number in range(tenants)]
    Tenant.objects.filter(name__in=[tenant.tenant for tenant in made]).update(requests_per_10s=ANY_NUMBER)
    return Place(endpoint=endpoint, worker_key=made[0].worker_key, api_keys=[tenant.api_key for tenant in made])


def forget_jobs() -> None:
    """All jobs of the instance, at once, so that every measure of `run` finds the same empty tables."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE jobs_job CASCADE")
