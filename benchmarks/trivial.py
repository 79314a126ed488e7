"""A worker that does nothing, for runpod's own local server: `python -m benchmarks.trivial --rp_serve_api`."""

from typing import Any

import runpod


def handler(job: dict[str, Any]) -> dict[str, Any]:
    return {}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
