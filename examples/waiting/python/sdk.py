"""RunPod's own SDK, with its base URL changed: `python sdk.py workflow.json`. It asks for the status once a second."""

import json
import os
import sys
from pathlib import Path

import runpod

runpod.endpoint_url_base = f"{os.environ['HEARTH_URL']}/v2"
endpoint = runpod.Endpoint(os.environ.get("HEARTH_ENDPOINT", "comfyui"), os.environ["HEARTH_API_KEY"])

job = endpoint.run({"workflow": json.loads(Path(sys.argv[1]).read_text())})
output = job.output(timeout=600)  # without a timeout it does not wait
if job.status() != "COMPLETED":
    sys.exit(f"{job.status()}: {output}")
print(*output["files"], sep="\n")
