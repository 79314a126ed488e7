"""manage.py add_runpod_endpoint NAME --id ID: an endpoint whose jobs run at an endpoint of RunPod's, once that answers.

The API key is read from RUNPOD_API_KEY, or from the first line of the standard input with --key -. Run it again to
change the id, the key or a number.
"""

import sys
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused, counted
from accounts.sealed import Sealed
from jobs.endpoints import AtRunPod, add_runpod
from jobs.models import Endpoint
from jobs.models.runpod import api_key

UNREACHABLE = "HEARTH_URL is {}: RunPod's webhooks and workers will not reach it. Results come when RunPod is asked."


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="the endpoint's name here, as clients address it")
        parser.add_argument("--id", required=True, dest="endpoint_id", help="the endpoint's id at RunPod")
        parser.add_argument("--key", choices=["-"], help="- reads the API key from the standard input")
        parser.add_argument("--max-in-flight", type=int, default=10, help="jobs at RunPod at a time (default: 10)")
        parser.add_argument("--dialect", choices=Endpoint.Dialect.values, default=Endpoint.Dialect.HEARTH.value)
        parser.add_argument("--wait", type=int, default=1800, help="seconds a job may wait there (default: 1800)")
        parser.add_argument("--hearth", action="store_true", help="the other side is a Hearth (docs/runpod.md)")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        there = AtRunPod(
            endpoint_id=options["endpoint_id"],
            api_key=Sealed.seal(self._key(from_input=options["key"] == "-")),
            max_in_flight=options["max_in_flight"],
            dialect=options["dialect"],
            wait_s=options["wait"],
            keeps_keys=options["hearth"],
        )
        if there.max_in_flight < 1 or there.wait_s < 1:
            raise CommandError("--max-in-flight and --wait must be at least 1.")
        try:
            health = add_runpod(name, there)
        except Refused as error:
            raise CommandError(error.error) from error
        workers = f"{counted(health.workers, 'worker')}, {health.throttled} throttled"
        jobs = f"jobs: {health.queued} queued, {health.running} running"
        self.stdout.write(f"RunPod's endpoint {there.endpoint_id} answers: {workers}; {jobs}.")
        most = counted(there.max_in_flight, "job")
        self.stdout.write(f"{name} sends it at most {most} at a time, of dialect {there.dialect}.")
        if (urlsplit(settings.HEARTH_URL).hostname or "") in ("127.0.0.1", "localhost", "::1"):
            self.stderr.write(UNREACHABLE.format(settings.HEARTH_URL))

    def _key(self, *, from_input: bool) -> str:
        key: str = sys.stdin.readline().strip() if from_input else settings.RUNPOD_API_KEY
        if not key:
            raise CommandError("There is no API key: set RUNPOD_API_KEY, or write it to the input with --key -.")
        try:
            api_key(key)
        except ValidationError as error:
            raise CommandError(error.message) from error
        return key
