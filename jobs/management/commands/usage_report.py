"""manage.py usage_report: what tenants used in a month, as CSV for invoices."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs.report import month_before, month_of, report, tenant_named


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", help="as 2026-10 (default: the last whole month)")
        parser.add_argument("--tenant", help="only this one")
        parser.add_argument("--daily", action="store_true", help="a line for each day")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            month = month_of(options["month"]) if options["month"] else month_before(datetime.now(UTC).date())
            tenant = tenant_named(options["tenant"]) if options["tenant"] else None
        except Refused as error:
            raise CommandError(error.error) from error
        self.stdout.write(report(month, [tenant] if tenant else None, daily=options["daily"]), ending="")
