#!/usr/bin/env bash
# Submit, then ask now and then: ./polling.sh workflow.json. The id may be kept and asked about elsewhere.
source "$(dirname "$0")/hearth.sh"

id=$(job_of "$1" | submit)
job=$(call "$endpoint/status/$id")
while goes_on "$job"; do
    field status <<<"$job" >&2
    sleep 1
    job=$(call "$endpoint/status/$id")
done
show "$job"
