"""Django-Q2's tasks: two lines each. They may run twice or die half-way: sweep finishes what they leave."""

from jobs import dispatch as dispatching
from jobs import uploads


def dispatch(endpoint_id: int) -> int:
    return dispatching.dispatch(endpoint_id)


def discard_uploads() -> int:
    return uploads.discard()
