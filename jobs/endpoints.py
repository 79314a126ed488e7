"""set_mode(): the operator opens, pauses, drains or closes an endpoint."""

from django.db import transaction

from accounts.errors import Refused, bad_request
from jobs.lifecycle import wake_endpoint
from jobs.models import Endpoint

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
