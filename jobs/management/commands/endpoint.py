"""manage.py endpoint NAME MODE: open, pause, drain or close an endpoint."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs.endpoints import set_mode
from jobs.models import Endpoint


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("mode", choices=Endpoint.Mode.values)
        parser.add_argument("--message", help='what tenants are told, as why and until when; "" takes it away')

    def handle(self, *args: Any, **options: Any) -> None:
        message = options["message"]
        try:
            endpoint = set_mode(options["name"], Endpoint.Mode(options["mode"]), message)
        except Refused as error:
            raise CommandError(error.error) from error
        self.stdout.write(f"{endpoint.name} is {endpoint.get_mode_display()}. {endpoint.message}".rstrip())
