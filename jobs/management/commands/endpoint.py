"""manage.py endpoint NAME [MODE]: open, pause, drain or close an endpoint; say what it may cost in a month."""

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs.endpoints import set_budget, set_mode
from jobs.models import Endpoint

BUDGETS = {"gpu_s_a_month": "gpu-seconds", "cost_a_month": "cost"}


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("mode", nargs="?", choices=Endpoint.Mode.values)
        parser.add_argument("--message", help='what tenants are told, as why and until when; "" takes it away')
        for name, what in BUDGETS.items():
            parser.add_argument(f"--{what}-a-month", dest=name, help="of all tenants; none: no limit")

    def handle(self, *args: Any, **options: Any) -> None:
        name, message = options["name"], options["message"]
        limits = {field: self._limit(options[field]) for field in BUDGETS if options[field] is not None}
        if (seconds := limits.get("gpu_s_a_month")) is not None and seconds % 1:
            raise CommandError(f"GPU-seconds are whole ones, not {seconds}.")
        try:
            endpoint = set_budget(name, **limits)
            if options["mode"] or message is not None:
                endpoint = set_mode(name, Endpoint.Mode(options["mode"] or endpoint.mode), message)
        except Refused as error:
            raise CommandError(error.error) from error
        self.stdout.write(f"{endpoint.name} is {endpoint.get_mode_display()}. {endpoint.message}".rstrip())
        for field, what in BUDGETS.items():
            if (limit := getattr(endpoint, field)) is not None:
                self.stdout.write(f"Its {what} a month: {limit}.")

    def _limit(self, text: str) -> Decimal | None:
        if text == "none":
            return None
        try:
            limit = Decimal(text)
        except InvalidOperation as error:
            raise CommandError(f"A limit is a number or none, not {text!r}.") from error
        if not limit.is_finite():
            raise CommandError(f"A limit is a number or none, not {text!r}.")
        return limit
