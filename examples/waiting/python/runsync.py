"""One request that is answered when the job has ended: `python runsync.py workflow.json`."""

from hearth import call, has_ended, read_input, show

WAIT_MS = 60_000  # at most 300,000; proxies in between may allow less

job = call("POST", f"runsync?wait={WAIT_MS}", read_input(), timeout_s=WAIT_MS / 1000 + 30)
while not has_ended(job):  # it takes longer than that: wait on, for the same job
    job = call("GET", f"status-sync/{job['id']}?wait={WAIT_MS}", timeout_s=WAIT_MS / 1000 + 30)
show(job)
