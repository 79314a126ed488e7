"""manage.py sweeper: sweeps every second or two, for ever. Any number may be started; one is at work (rules.md 16)."""

import logging
import signal
import threading
from argparse import ArgumentParser
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, close_old_connections

from accounts.rotation import keys_fault
from jobs.sweep import SLOW_STEPS, STEPS, sweep

log = logging.getLogger("hearth.sweeper")
LOCK = 0x48656172  # "Hear"
SLOW_EVERY_S = 60.0


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = ()  # as the deliverer's

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="sweep once and leave")

    def handle(self, *args: Any, **options: Any) -> None:
        if fault := keys_fault():
            raise CommandError(fault)
        if options["once"]:
            self.stdout.write(str(sweep()))
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        while not stop.is_set():
            try:
                self.lead(stop)
            except (psycopg.OperationalError, OperationalError, InterfaceError) as error:
                log.warning("the database is away: %s", error)
                close_old_connections()
                stop.wait(settings.SWEEP_S)

    def lead(self, stop: threading.Event) -> None:
        """Sweep while this process holds the lock, which goes with its session."""
        with psycopg.connect(
            settings.DATABASE_DIRECT_URL, autocommit=True, application_name="hearth sweeper"
        ) as session:
            since_slow = SLOW_EVERY_S
            while not stop.is_set():
                row = session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
                if row and row[0]:
                    slow = since_slow >= SLOW_EVERY_S
                    sweep(STEPS + SLOW_STEPS if slow else STEPS)
                    since_slow = 0.0 if slow else since_slow + settings.SWEEP_S
                    session.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
                stop.wait(settings.SWEEP_S)
