"""Django-Q2's tasks: two lines each. They may run twice or die half-way: sweep finishes what they leave."""

from jobs import deletion, retention, uploads
from jobs import dispatch as dispatching
from jobs.webhooks import mail


def dispatch(endpoint_id: int) -> int:
    return dispatching.dispatch(endpoint_id)


def discard_uploads() -> int:
    return uploads.discard_all()


def go_on_deleting() -> int:
    return deletion.go_on()


def retain() -> int:
    return retention.retain()


def tell_disabled() -> int:
    return mail.tell_disabled()
