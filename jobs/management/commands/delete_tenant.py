"""manage.py delete_tenant NAME: deletes a tenant with its jobs and files, and prints the receipt.

Its keys are revoked at once, and nothing of it can be read. Rows and files go in a while; run it again to see how far
it is. Its name, its keys' names and its usage stay.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from accounts.models import Tenant
from jobs import tally
from jobs.deletion import delete_tenant


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--by", default="the operator", help="who asked for it, for the receipt")
        parser.add_argument("--yes", action="store_true", help="do not ask for the name once more")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant.objects.filter(name=options["name"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['name']!r}.")
        sure = options["yes"] or tenant.deleted_at
        if not sure and input("All that is its own goes. Its name once more: ") != tenant.name:
            raise CommandError("Nothing was deleted: that is another name.")
        try:
            receipt = delete_tenant(tenant.pk, f"by {options['by']}")
        except Refused as error:
            raise CommandError(error.error) from error
        self.stdout.write(tally.text(receipt))
