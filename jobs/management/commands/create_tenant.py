"""manage.py create_tenant NAME: a tenant with a grant and keys, which are shown this once."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs.tenants import create_tenant


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="1–63 of a–z, 0–9 and -")
        parser.add_argument("--endpoint", default="comfyui", help="the endpoint it is granted (default: comfyui)")
        parser.add_argument("--manage", action="store_true", help="its key has the scope manage too")
        parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = asdict(create_tenant(options["name"], options["endpoint"], manages=options["manage"]))
        except Refused as error:
            raise CommandError(error.error) from error
        made["base_url"] = settings.HEARTH_URL
        lines = [json.dumps(made)] if options["json"] else [f"{name}: {value}" for name, value in made.items()]
        self.stdout.write("\n".join(lines))
