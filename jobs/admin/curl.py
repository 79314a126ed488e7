"""A job as the command that submits it once more."""

import json
import shlex

from django.conf import settings

from jobs.admin.shown import tidy
from jobs.models import Job

MOST_BYTES = 64 * 1024
MASKED = "u2026"  # MASK as JSON has it


def curl(job: Job, given: bytes | None, policy: bytes | None) -> dict[str, str]:
    """`text`: the command, with a placeholder for the key; `note`: what it lacks. {}: its input is not there any more,
    or no JSON."""
    if given is None:
        return {}
    notes = ["Set HEARTH_API_KEY to a key of the tenant's."]
    if len(given) > MOST_BYTES:
        data = "@request.json"
        notes.append('Its input is too large for a command: put it into request.json, as {"input": …}.')
    else:
        try:
            body = {"input": json.loads(given)} | ({"policy": json.loads(policy)} if policy else {})
            shown, plain = json.dumps(tidy(body, MOST_BYTES)), json.dumps(body)
        except (ValueError, RecursionError):
            return {}
        data = shlex.quote(shown)
        if shown.count(MASKED) > plain.count(MASKED):
            notes.append("What was secret in its input is masked by …, fill it in.")
    notes.append("A webhook or S3 bucket that came with the job is not in it.")
    url = f"{settings.HEARTH_URL}/v2/{job.endpoint.name}/{'runsync' if job.sync else 'run'}"
    lines = [
        f"curl -X POST {shlex.quote(url)}",
        '-H "Authorization: Bearer $HEARTH_API_KEY"',
        "-H 'Content-Type: application/json'",
        f"--data {data}",
    ]
    return {"text": " \\\n  ".join(lines), "note": " ".join(notes)}
