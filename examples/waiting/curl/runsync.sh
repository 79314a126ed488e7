#!/usr/bin/env bash
# One request that is answered when the job has ended: ./runsync.sh workflow.json
source "$(dirname "$0")/hearth.sh"

job=$(job_of "$1" | call "$endpoint/runsync?wait=60000" --data-binary @-)
while goes_on "$job"; do # it takes longer than that: wait on, for the same job
    job=$(call "$endpoint/status-sync/$(field id <<<"$job")?wait=60000")
done
show "$job"
