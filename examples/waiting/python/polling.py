"""Submit, then ask now and then: `python polling.py workflow.json`. The id may be kept and asked about elsewhere."""

import sys
import time

from hearth import call, has_ended, read_input, show

EVERY_S = 1.0

job = call("POST", "run", read_input())
while not has_ended(job):
    time.sleep(EVERY_S)
    job = call("GET", f"status/{job['id']}")
    if waits := job.get("queue"):
        print(f"{job['status']}, place {waits['position']}: {waits['text']}", file=sys.stderr)
    else:
        print(job["status"], file=sys.stderr)
show(job)
