"""What the examples beside this share: requests to Hearth with a tenant's key. Python's standard library alone."""

import json
import os
import sys
import time
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = os.environ["HEARTH_URL"]
ENDPOINT = os.environ.get("HEARTH_ENDPOINT", "comfyui")
HEADERS = {"Authorization": f"Bearer {os.environ['HEARTH_API_KEY']}", "Content-Type": "application/json"}
LATER = (429, 502, 503, 504)  # over a limit, or Hearth is away for a moment: ask again, after Retry-After
TRIES, LONGEST_S = 8, 60.0


def call(method: str, path: str, body: Any = None, *, timeout_s: float = 30) -> dict[str, Any]:
    """The answer of the endpoint. A request that is refused ends the program with what Hearth says."""
    sent = None if body is None else json.dumps(body).encode()
    headers = HEADERS | {"Idempotency-Key": str(uuid.uuid4())}  # what is sent again makes no second job
    for tried in range(TRIES):
        pause_s = 2.0**tried / 2
        try:
            request = Request(f"{URL}/v2/{ENDPOINT}/{path}", sent, headers, method=method)
            with urlopen(request, timeout=timeout_s) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except HTTPError as error:
            said, later = f"HTTP {error.code}: {error.read().decode()}", error.code in LATER
            pause_s = float(error.headers.get("Retry-After", pause_s))
        except (OSError, HTTPException) as error:
            said, later = f"no answer from {URL}: {error}", True
        if not later or pause_s > LONGEST_S:
            break
        print(f"{said}; asking again in {pause_s:g} s", file=sys.stderr)
        time.sleep(pause_s)
    sys.exit(said)


def read_input() -> dict[str, Any]:
    """The job that the program is to run: a workflow in ComfyUI's API format, from the file that is named."""
    return {"input": {"workflow": json.loads(Path(sys.argv[1]).read_text())}}


def has_ended(job: dict[str, Any]) -> bool:
    return job["status"] not in ("IN_QUEUE", "IN_PROGRESS")


def show(job: dict[str, Any]) -> None:
    """The files' URLs; or why there are none, and then the program has failed."""
    if job["status"] != "COMPLETED":
        sys.exit(f"{job['status']}: {job.get('error', '')}")
    print(*job["output"]["files"], sep="\n")
