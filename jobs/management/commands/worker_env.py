"""manage.py worker_env ENDPOINT: the environment that points a stock RunPod worker here. Makes a worker key."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from jobs.models import Endpoint, WorkerKey
from jobs.tenants import worker_environment

DIR_HINT = "# COMFYUI_DIR=   ComfyUI's base directory: without it the files of all tenants stay on that machine"


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("endpoint")
        parser.add_argument("--worker-key", help="use this key instead of making one")
        parser.add_argument("--name", default="worker-1", help="the worker's id; each worker needs its own")

    def handle(self, *args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(name=options["endpoint"]).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']!r}.")
        key = options["worker_key"] or WorkerKey.issue(endpoint=endpoint, name=f"worker_env {options['name']}")[1]
        for name, value in worker_environment(endpoint, key, settings.HEARTH_URL, options["name"]).items():
            self.stdout.write(f"{name}={value}")
        self.stdout.write(DIR_HINT)
