"""One statement on Django's connection: what it returns, or how many rows it changed."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")
Row = tuple[Any, ...]


def first(sql: str, params: Any = None) -> Row | None:
    row: Row | None = _executed(sql, params, lambda cursor: cursor.fetchone())
    return row


def one(sql: str, params: Any = None) -> Row:
    """The row of a statement that always returns one."""
    row = first(sql, params)
    assert row is not None
    return row


def rows(sql: str, params: Any = None) -> list[Row]:
    found: list[Row] = _executed(sql, params, lambda cursor: cursor.fetchall())
    return found


def run(sql: str, params: Any = None) -> int:
    return int(_executed(sql, params, lambda cursor: cursor.rowcount))


def _executed(sql: str, params: Any, result: Callable[[Any], T]) -> T:
    """What `result` makes of the cursor. It is psycopg's own: around it Django's costs as much as the statement, and is
    there only for who counts statements."""
    wrapper = connections["default"]
    if wrapper.queries_logged or wrapper.execute_wrappers:
        with wrapper.cursor() as cursor:
            cursor.execute(sql, params)
            return result(cursor)
    wrapper.close_if_health_check_failed()
    wrapper.ensure_connection()
    wrapper.validate_no_broken_transaction()
    with wrapper.wrap_database_errors:
        return result(wrapper.connection.execute(sql, params))
