"""manage.py job ID: a job with its timeline."""

import json
from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from accounts.errors import Refused
from jobs import history
from jobs.ids import parse_job_id
from jobs.models import Job


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", help="as clients have it: <uuid>-e1 or sync-<uuid>-e1")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        found = self.find(options["id"])
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        for event in found.pop("events"):
            self.stdout.write(f"{event['ms']:>9} ms  {event['kind']:<11} attempt {event['attempt']}  {event['text']}")
        for name, value in found.items():
            self.stdout.write(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")

    def find(self, text: str) -> dict[str, Any]:
        job_id = parse_job_id(text)
        job = (
            job_id
            and Job.all_tenants.select_related("tenant", "endpoint").filter(pk=job_id.uuid, sync=job_id.sync).first()
        )
        if not job:
            raise CommandError(f"There is no job {text!r}.")
        try:
            status: dict[str, Any] = orjson.loads(history.result(job.pk).json())
        except Refused as gone:
            status = {"id": job.public_id, "status": job.state, "error": gone.error}
        status |= {"tenant": job.tenant.name, "endpoint": job.endpoint.name, "created_at": job.created_at.isoformat()}
        return status | {"attempt_count": job.attempt, "events": history.timeline(job)}
