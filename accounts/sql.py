"""One statement on Django's connection: what it returns, or how many rows it changed."""

from typing import Any

from django.db import connection

Row = tuple[Any, ...]


def first(sql: str, params: Any = None) -> Row | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        row: Row | None = cursor.fetchone()
        return row


def one(sql: str, params: Any = None) -> Row:
    """The row of a statement that always returns one."""
    row = first(sql, params)
    assert row is not None
    return row


def rows(sql: str, params: Any = None) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        found: list[Row] = cursor.fetchall()
        return found


def run(sql: str, params: Any = None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)
