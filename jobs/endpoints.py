"""What the operator does with endpoints: opens, pauses, drains, closes one; limits what it costs; puts one before
RunPod's; names others for its jobs."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.errors import Refused, bad_request
from accounts.sealed import Sealed
from jobs.backends.base import BackendError, Health
from jobs.backends.runpod import RunPod
from jobs.models import Endpoint, Overflow, RunpodEndpoint
from jobs.wake import wake_endpoint

MESSAGE_CHARS = 300


def set_mode(name: str, mode: Endpoint.Mode, message: str | None = None) -> Endpoint:
    """From the next claim on, and within about a second for submissions. `message`: what tenants are told; None leaves
    it as it is. Raises Refused: 400 for too long a message, 404."""
    if message is not None and len(message) > MESSAGE_CHARS:
        raise bad_request(f"The message has {len(message)} characters; at most {MESSAGE_CHARS} are kept.")
    with transaction.atomic():
        endpoint = _locked(name)
        endpoint.mode = mode
        if message is not None:
            endpoint.message = message
        endpoint.save(update_fields=["mode", "message"])
        wake_endpoint(endpoint.pk, endpoint.backend)
    return endpoint


def _locked(name: str) -> Endpoint:
    return _found(name, Endpoint.objects.select_for_update(no_key=True).filter(name=name).first())


def _found(name: str, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise Refused(404, "not_found", f"There is no endpoint {name!r}.")
    return endpoint


def set_budget(name: str, **limits: int | Decimal | None) -> Endpoint:
    """gpu_s_a_month, cost_a_month: what all tenants may use there in a calendar month; None: no limit. Within about a
    second. Raises Refused: 400, 404."""
    with transaction.atomic():
        endpoint = _locked(name)
        for field, limit in limits.items():
            setattr(endpoint, field, limit)
        try:
            endpoint.clean_fields(exclude=["name"])
        except ValidationError as error:
            raise bad_request(" ".join(error.messages)) from error
        endpoint.save(update_fields=list(limits))
    return endpoint


def ways_of(name: str) -> list[Overflow]:
    """Where the endpoint's jobs may go, in order. Raises Refused(404)."""
    endpoint = _found(name, Endpoint.objects.filter(name=name).first())
    return list(endpoint.overflows.select_related("to"))


def set_overflow(name: str, to: str, **fields: Any) -> Overflow:
    """Let the endpoint's jobs run at another. Raises Refused: 400 for what cannot be, 404."""
    with transaction.atomic():
        endpoint, other = _locked(name), _found(to, Endpoint.objects.filter(name=to).first())
        way = Overflow.objects.filter(endpoint=endpoint, to=other).first() or Overflow(endpoint=endpoint, to=other)
        for field, value in fields.items():
            setattr(way, field, value)
        try:
            way.full_clean()
        except ValidationError as error:
            raise bad_request(" ".join(error.messages)) from error
        way.save()
    return way


def drop_overflow(name: str, to: str) -> None:
    """Raises Refused(404)."""
    if not Overflow.objects.filter(endpoint__name=name, to__name=to).delete()[0]:
        raise Refused(404, "not_found", f"{name} does not overflow to {to}.")


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
