"""How many requests were let in: a row for each scope in each window, of which processes take blocks of permits.

A row that each request wrote to would be as slow as the database; a block is many requests (rules.md 23).
"""

from dataclasses import dataclass

from accounts import sql

WINDOW_S = 10


@dataclass(frozen=True, kw_only=True)
class Quota:
    """At most `limit` requests of a scope in a window. `name`: in headers; `rule`: the same as a sentence."""

    scope: str
    name: str
    limit: int
    rule: str

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.limit};w={WINDOW_S}'


@dataclass(frozen=True, kw_only=True)
class Block:
    """Permits of the window that is now. `free`: what nobody has taken of it yet; `left_s`: until it is over."""

    permits: int
    free: int
    left_s: float


TAKE = f"""
INSERT INTO accounts_ratewindow AS w (scope, began_at, taken)
VALUES (%(scope)s, date_bin('{WINDOW_S} s', clock_timestamp(), 'epoch'), %(permits)s)
    ON CONFLICT (scope, began_at) DO UPDATE SET taken = w.taken + excluded.taken
RETURNING w.taken, extract(epoch FROM w.began_at + interval '{WINDOW_S} s' - clock_timestamp())::float"""


def take(scope: str, permits: int, limit: int) -> Block:
    """Up to so many permits, of which all processes together get no more than `limit` in a window."""
    taken, left_s = sql.one(TAKE, {"scope": scope, "permits": permits})
    before = min(limit, taken - permits)
    after = min(limit, taken)
    return Block(permits=after - before, free=limit - after, left_s=left_s)


FORGET = "DELETE FROM accounts_ratewindow WHERE began_at < clock_timestamp() - interval '1 minute'"


def forget() -> int:
    """Windows that are over."""
    return sql.run(FORGET)
