"""What a request is refused with: one exception, one JSON shape (design.md, Errors)."""

from typing import Any


class Refused(Exception):
    """The request is answered with this status and `{"error", "code"}`; it has changed nothing.

    Whether trying again helps is in the status: 429 and 503 carry Retry-After, all others need another request.
    """

    def __init__(self, status: int, code: str, error: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(error)
        self.status, self.code, self.error, self.retry_after_s = status, code, error, retry_after_s

    def body(self) -> dict[str, Any]:
        return {"error": self.error, "code": self.code}


def bad_request(error: str, code: str = "bad_request") -> Refused:
    return Refused(400, code, error)


def not_found(error: str) -> Refused:
    return Refused(404, "not_found", error)
