"""What a generator handler yields, while it runs: `python stream.py input.json`, on an endpoint of such workers.

Each answer has the chunks that nobody has read yet; Hearth waits some seconds for one. The last has a final status.
"""

import json
import sys
from pathlib import Path

from hearth import call, has_ended

job = call("POST", "run", {"input": json.loads(Path(sys.argv[1]).read_text())})
while not has_ended(job):
    job = call("GET", f"stream/{job['id']}")
    for chunk in job["stream"]:
        print(json.dumps(chunk["output"], ensure_ascii=False), flush=True)
if job["status"] != "COMPLETED":
    sys.exit(f"{job['status']}: {job.get('error', '')}")
