"""What a request is refused with: one exception, one JSON shape (design.md, Errors)."""

from decimal import Decimal
from typing import Any


def counted(number: int | Decimal, noun: str) -> str:
    """As messages say it: 1 job, 2 jobs."""
    return f"{Decimal(number):f} {noun}{'' if number == 1 else 's'}"


class Refused(Exception):
    """The request is answered with this status and `{"error", "code"}`; it has changed nothing. `nodes`: what is wrong
    with which node of a workflow; `params`: with which parameter of one that is stored.

    Whether trying again helps is in the status: 429 and 503 carry Retry-After, all others need another request.
    """

    def __init__(
        self,
        status: int,
        code: str,
        error: str,
        *,
        retry_after_s: int | None = None,
        nodes: dict[str, list[dict[str, Any]]] | None = None,
        params: dict[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.code, self.error, self.retry_after_s = status, code, error, retry_after_s
        self.more = {name: told for name, told in (("nodes", nodes), ("params", params)) if told}
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        return {"error": self.error, "code": self.code, **self.more}

    def all_headers(self) -> dict[str, str]:
        """`headers`, and those that its status and retry_after_s ask for."""
        more = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
        more |= {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return self.headers | more


def bad_request(error: str, code: str = "bad_request") -> Refused:
    return Refused(400, code, error)


def not_found(error: str) -> Refused:
    return Refused(404, "not_found", error)


def database_away() -> Refused:
    return Refused(503, "unavailable", "The database is away. Try again.", retry_after_s=2)
