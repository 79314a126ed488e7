"""manage.py prepare_local: migrate, and make sure of the operator's login and the local worker's key (hearth.local)."""

import hashlib
import json
import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from accounts.keys import WORKER, digest
from accounts.models import User
from accounts.rotation import keys_fault
from jobs.models import Endpoint, Worker, WorkerKey
from jobs.tenants import worker_environment


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="accepted; the last line is JSON in any case")

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=1, stdout=self.stderr)
        if fault := keys_fault():
            raise CommandError(fault)
        endpoint = Endpoint.objects.get(name="comfyui")
        Worker.objects.filter(name__startswith="local-").update(take_at=None)  # they ended with the instance before
        environment = worker_environment(endpoint, self.worker_key(endpoint), settings.HEARTH_URL, "local")
        admin = {"username": "admin", "password": self.admin_password()}
        self.stdout.write(json.dumps({"worker_env": environment, "admin": admin}))

    def worker_key(self, endpoint: Endpoint) -> str:
        """The local workers' key: made of a secret that HEARTH_HOME keeps, so that a new database knows it again."""
        secret = settings.HOME.secret("local-worker-key").rstrip("=")
        prefix = hashlib.sha256(secret.encode()).hexdigest()[:12]
        text = f"{WORKER}_{prefix}_{secret}"
        fields = {"endpoint": endpoint, "name": "local workers", "digest": digest(text)}
        WorkerKey.objects.get_or_create(prefix=prefix, defaults=fields)
        return text

    def admin_password(self) -> str | None:
        """A new operator's password; None if there is one already."""
        if User.objects.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser("admin", password=password)
        return password
