"""manage.py delete_job ID: deletes a job with its files, and prints the receipt."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs import tally
from jobs.deletion import delete_job
from jobs.ids import parse_job_id


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="as clients have it: <uuid>-e1 or sync-<uuid>-e1")
        parser.add_argument("--by", default="the operator", help="who asked for it, for the receipt")

    def handle(self, *args: Any, **options: Any) -> None:
        job = parse_job_id(options["id"])
        if job is None:
            raise CommandError(f"There is no job {options['id']!r}.")
        try:
            receipt = delete_job(job.uuid, f"by {options['by']}")
        except Refused as error:
            raise CommandError(error.error) from error
        self.stdout.write(tally.text(receipt))
