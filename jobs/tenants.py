"""create_tenant(): a tenant ready to work: granted an endpoint, with an API key and, for its operator, a worker key."""

from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.errors import Refused
from accounts.models import ApiKey, Tenant
from jobs.models import Endpoint, Grant, WorkerKey


@dataclass(frozen=True, kw_only=True)
class NewTenant:
    """Keys are shown this once. `worker_key` is the endpoint's, not the tenant's."""

    tenant: str
    endpoint: str
    api_key: str
    worker_key: str


def create_tenant(name: str, endpoint: str, *, manages: bool = False) -> NewTenant:
    """manages: its key may do that too. Raises Refused: 400 for a bad name, 404 for no such endpoint, 409 if the name
    is taken; then nothing changes."""
    tenant = Tenant(name=name)
    try:
        tenant.clean_fields()
    except ValidationError as error:
        raise Refused(400, "bad_name", f"Tenant name {name!r}: {' '.join(error.messages)}") from error
    with transaction.atomic():
        found = Endpoint.objects.filter(name=endpoint).first()
        if found is None:
            raise Refused(404, "not_found", f"There is no endpoint {endpoint!r}.")
        try:
            tenant.save(force_insert=True)
        except IntegrityError as error:
            raise Refused(409, "exists", f"There is a tenant {name!r} already.") from error
        Grant.all_tenants.create(tenant=tenant, endpoint=found)
        scopes = [ApiKey.Scope.RUN, ApiKey.Scope.READ] + [ApiKey.Scope.MANAGE] * manages
        _, api_key = ApiKey.issue(tenant=tenant, name="first", scopes=scopes)
        _, worker_key = WorkerKey.issue(endpoint=found, name=f"made with tenant {name}")
    return NewTenant(tenant=name, endpoint=endpoint, api_key=api_key, worker_key=worker_key)


def worker_environment(endpoint: Endpoint, worker_key: str, base_url: str, name: str) -> dict[str, str]:
    """What points a stock RunPod worker, or ours, here (protocol/runpod.md 0). `name`: of our worker."""
    url = f"{base_url}/v2/{endpoint.name}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?hearth=1",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?hearth=1",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?hearth=1",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID?hearth=1",
        "RUNPOD_AI_API_KEY": worker_key,
        "RUNPOD_POD_ID": name,
        "RUNPOD_PING_INTERVAL": "5000",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true",
        "HEARTH_WORKER_NAME": name,
    }
