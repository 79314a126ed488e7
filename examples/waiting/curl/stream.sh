#!/usr/bin/env bash
# What a generator handler yields, while it runs: ./stream.sh input.json, on an endpoint of such workers.
# Each answer has the chunks that nobody has read yet; Hearth waits some seconds for one. The last has a final status.
source "$(dirname "$0")/hearth.sh"

chunks='import json, sys; [print(json.dumps(chunk["output"])) for chunk in json.load(sys.stdin)["stream"]]'
id=$(python3 -c 'import json, sys; print(json.dumps({"input": json.load(open(sys.argv[1]))}))' "$1" | submit)
job='{"status": "IN_QUEUE"}'
while goes_on "$job"; do
    job=$(call "$endpoint/stream/$id")
    python3 -c "$chunks" <<<"$job"
done
[[ $(field status <<<"$job") == COMPLETED ]] || {
    echo "$job" >&2
    exit 1
}
