# What the examples beside this share: curl with a tenant's key, and python3 to read and write JSON.
set -euo pipefail
endpoint="$HEARTH_URL/v2/${HEARTH_ENDPOINT:-comfyui}"
key="Authorization: Bearer $HEARTH_API_KEY"

# The answer; what is refused ends the script with what Hearth says. Over a limit, or while Hearth is away for a moment,
# curl sends it again, after Retry-After, by the same Idempotency-Key, so that it makes no second job.
again=(--retry 8 --retry-connrefused --retry-max-time 120)
call() {
    local answer fault=0
    answer=$(mktemp) # a file has the last answer alone, where standard output would have each
    curl -sS --fail-with-body "${again[@]}" -o "$answer" -H "$key" -H "Idempotency-Key: $(new_id)" "$@" || fault=1
    if ((fault)); then cat "$answer" >&2; else cat "$answer"; fi
    rm "$answer"
    return "$fault"
}

new_id() { python3 -c 'import uuid; print(uuid.uuid4())'; }

# A field of the JSON on standard input: field id
field() { python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"; }

# The job that runs the workflow in this file.
job_of() { python3 -c 'import json, sys; print(json.dumps({"input": {"workflow": json.load(open(sys.argv[1]))}}))' "$1"; }

# Submit it and say its id.
submit() {
    local said
    said=$(call "$endpoint/run" --data-binary @-) && field id <<<"$said"
}

# Whether the job in this JSON goes on.
goes_on() { [[ $(field status <<<"$1") == IN_* ]]; }

# The files' URLs; or why there are none.
show() {
    python3 -c '
import json, sys
job = json.load(sys.stdin)
if job["status"] != "COMPLETED":
    sys.exit(job["status"] + ": " + str(job.get("error", "")))
print(*job["output"]["files"], sep="\n")' <<<"$1"
}
