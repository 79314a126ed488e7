"""Django-Q2's tasks: two lines each. They may run twice or die half-way: sweep finishes what they leave."""

from jobs import dispatch as dispatching
from jobs import uploads
from jobs.webhooks import mail


def dispatch(endpoint_id: int) -> int:
    return dispatching.dispatch(endpoint_id)


def discard_uploads() -> int:
    return uploads.discard()


def tell_disabled() -> int:
    return mail.tell_disabled()
