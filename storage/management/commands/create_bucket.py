"""manage.py create_bucket: makes the operator's S3 bucket (HEARTH_S3_BUCKET) unless it is there."""

import time
from argparse import ArgumentParser
from typing import Any

from botocore.exceptions import ClientError
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from storage.faults import S3_ERRORS, Action, of_error
from storage.places import client, operators_place

OURS_ALREADY = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
MAKE = Action("create", "s3:CreateBucket")
PAUSE_S = 1.0


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--wait", type=float, default=60, help="seconds in which S3 may come up (default: 60)")

    def handle(self, *args: Any, **options: Any) -> None:
        until = time.monotonic() + options["wait"]
        while (why := made()) and time.monotonic() < until:
            time.sleep(PAUSE_S)
        if why:
            raise CommandError(f"No S3 bucket {settings.S3_BUCKET!r} at {settings.S3_ENDPOINT_URL}: {why}")
        self.stdout.write(f"The S3 bucket {settings.S3_BUCKET} is there.")


def made() -> str:
    """Why the bucket could not be made and is not there; "" if it is."""
    place = operators_place(public=False)
    try:
        client(place).create_bucket(Bucket=place.s3_bucket)
    except S3_ERRORS as error:
        already = isinstance(error, ClientError) and error.response["Error"]["Code"] in OURS_ALREADY
        return "" if already else str(of_error(error, place, MAKE))
    return ""
