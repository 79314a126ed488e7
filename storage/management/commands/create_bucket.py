"""manage.py create_bucket: makes the operator's S3 bucket (HEARTH_S3_BUCKET) unless it is there."""

import time
from argparse import ArgumentParser
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from storage.places import client, operators_place

OURS_ALREADY = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
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
    except ClientError as error:
        return "" if error.response["Error"]["Code"] in OURS_ALREADY else str(error)
    except BotoCoreError as error:
        return str(error)
    return ""
