"""What the operator does with endpoints: opens, pauses, drains, closes one; puts one before RunPod's."""

from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.errors import Refused, bad_request
from accounts.sealed import Sealed
from jobs.backends.base import BackendError, Health
from jobs.backends.runpod import RunPod
from jobs.models import Endpoint, RunpodEndpoint
from jobs.wake import wake_endpoint

MESSAGE_CHARS = 300


def set_mode(name: str, mode: Endpoint.Mode, message: str | None = None) -> Endpoint:
    """From the next claim on, and within about a second for submissions. `message`: what tenants are told; None leaves
    it as it is. Raises Refused: 400 for too long a message, 404."""
    if message is not None and len(message) > MESSAGE_CHARS:
        raise bad_request(f"The message has {len(message)} characters; at most {MESSAGE_CHARS} are kept.")
    with transaction.atomic():
        endpoint = Endpoint.objects.select_for_update(no_key=True).filter(name=name).first()
        if endpoint is None:
            raise Refused(404, "not_found", f"There is no endpoint {name!r}.")
        endpoint.mode = mode
        if message is not None:
            endpoint.message = message
        endpoint.save(update_fields=["mode", "message"])
        wake_endpoint(endpoint.pk, endpoint.backend)
    return endpoint


@dataclass(frozen=True, kw_only=True)
class AtRunPod:
    """An endpoint of RunPod's, and how it is used: max_in_flight jobs are there at a time."""

    endpoint_id: str
    api_key: Sealed
    max_in_flight: int
    dialect: str
    wait_s: int
    keeps_keys: bool


def add_runpod(name: str, there: AtRunPod) -> Health:
    """Make or change the endpoint `name` whose jobs go there, once that is found to answer. Raises Refused: 400 for
    what cannot be used, 409 if the name is of an endpoint of another kind; then nothing changes."""
    endpoint = Endpoint.objects.filter(name=name).first() or Endpoint(name=name)
    if endpoint.pk and endpoint.backend != Endpoint.Backend.RUNPOD:
        raise Refused(409, "exists", f"There is an endpoint {name!r} already, of backend {endpoint.backend}.")
    endpoint.backend, endpoint.dialect = Endpoint.Backend.RUNPOD, there.dialect
    endpoint.max_running = there.max_in_flight
    found = {"remote_id": there.endpoint_id, "api_key": there.api_key}
    found |= {"wait_s": there.wait_s, "keeps_keys": there.keeps_keys}
    try:
        endpoint.full_clean(validate_unique=False)
        RunpodEndpoint(endpoint=endpoint, **found).full_clean(exclude=["endpoint"], validate_unique=False)
    except ValidationError as error:
        raise bad_request(" ".join(error.messages)) from error
    try:
        health = RunPod(settings.RUNPOD_URL, there.endpoint_id, there.api_key).health()
    except BackendError as error:
        raise Refused(400, "runpod", f"{settings.RUNPOD_URL}/{there.endpoint_id}: {error}") from error
    with transaction.atomic():
        endpoint.save()
        well = {"failures": 0, "trouble": "", "rest_until": None}
        RunpodEndpoint.objects.update_or_create(endpoint=endpoint, defaults=found | well)
        wake_endpoint(endpoint.pk, endpoint.backend)
    return health
