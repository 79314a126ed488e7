"""manage.py verify_bucket TENANT/NAME: whether a bucket works, and if not, what is wrong and what to do."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from storage.models import Bucket
from storage.places import operators_place
from storage.verify import Verification, check, verify


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bucket", nargs="?", help="TENANT/NAME; without: the operator's own S3")

    def handle(self, *args: Any, **options: Any) -> None:
        done = self.verified(options["bucket"])
        for step in done.steps:
            self.stdout.write(f"{'failed' if step.fault else 'ok':<7} {step.what}")
        if done.fault:
            raise CommandError(done.fault)
        self.stdout.write(f"{options['bucket'] or 'The S3 of the operator'} works.")

    def verified(self, named: str | None) -> Verification:
        if named is None:
            return check(operators_place(public=False), "hearth", operators_place())
        tenant, _, name = named.partition("/")
        bucket = Bucket.all_tenants.filter(tenant__name=tenant, name=name).first()
        if bucket is None:
            raise CommandError(f"There is no bucket {named!r}. Name it TENANT/NAME, as the admin lists them.")
        return verify(bucket)
