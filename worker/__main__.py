"""`python -m worker`: take jobs from Hearth or RunPod and run them in the ComfyUI beside (docs/worker.md)."""

import logging
import os
import sys

from worker import sdk, settings


def main() -> None:
    try:
        read = settings.read(os.environ)
    except ValueError as error:
        sys.exit(f"worker: {error}")
    logging.basicConfig(stream=sys.stdout, level=read.log_level, format="%(asctime)s %(levelname)s %(message)s")
    sdk.prepare(os.environ, read)
    sdk.start(read)


if __name__ == "__main__":
    main()
