"""Django-Q2's broker on PostgreSQL's LISTEN/NOTIFY: a task starts within milliseconds of its commit (rules.md 17).

Enqueueing joins the caller's transaction, since tasks are rows. Dequeueing waits for a NOTIFY at most POLL_S, claims in
one statement, and never raises for a lost connection: Django-Q2 would sleep 10 s and give its pusher up.
"""

import logging
import time
from typing import Any

import psycopg
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, transaction
from django_q.brokers.orm import ORM
from django_q.conf import Conf

log = logging.getLogger("hearth.broker")
POLL_S = 1.0

CLAIM = """
UPDATE django_q_ormq SET lock = clock_timestamp() + %(retry)s * interval '1 s'
 WHERE id IN (SELECT id FROM django_q_ormq WHERE key = %(key)s AND lock <= clock_timestamp()
               ORDER BY id LIMIT %(bulk)s FOR UPDATE SKIP LOCKED)
RETURNING id, payload"""


class NotifyBroker(ORM):  # type: ignore[misc]
    """`list_key` is the cluster's name (fast, slow), and names its channel."""

    _session: psycopg.Connection[Any] | None = None

    @property
    def channel(self) -> str:
        return f"hearth_tasks_{self.list_key}"

    def enqueue(self, task: str) -> int:
        pk: int = super().enqueue(task)
        transaction.on_commit(self._notify)
        return pk

    def _notify(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [self.channel])

    def dequeue(self) -> list[tuple[int, str]] | None:
        """Tasks as (id, payload), or None after POLL_S without one."""
        try:
            session = self._listening()
            return self._claim() or (self._claim() if self._told(session) else None)
        except (psycopg.Error, DatabaseError, InterfaceError) as error:
            log.warning("no tasks: the database is away: %s", error)
            self._session = None
            close_old_connections()
            time.sleep(POLL_S)
            return None

    def _listening(self) -> psycopg.Connection[Any]:
        """This process's own session, listening before the queue is looked at, so that no NOTIFY is missed."""
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(
                settings.DATABASE_DIRECT_URL, autocommit=True, application_name=f"hearth tasks {self.list_key}"
            )
            self._session.execute(f'LISTEN "{self.channel}"')
        return self._session

    def _told(self, session: psycopg.Connection[Any]) -> bool:
        return any(True for _ in session.notifies(timeout=POLL_S, stop_after=1))

    def _claim(self) -> list[tuple[int, str]]:
        close_old_connections()
        with connection.cursor() as cursor:
            cursor.execute(CLAIM, {"retry": Conf.RETRY, "key": self.list_key, "bulk": Conf.BULK})
            return list(cursor.fetchall())
