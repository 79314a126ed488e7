"""`python -m worker.standin --port N --dir DIR [--delay-ms N]`: prints `READY http://127.0.0.1:N`, ends on SIGTERM."""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile

from aiohttp import web

from worker.standin import PRODUCT, log
from worker.standin.files import Folders
from worker.standin.server import Server

RECURSION_LIMIT = 10_000
"""Validation and cache keys take four Python frames for each node of a chain; ComfyUI's take one."""


class EveryLinePrefixed(logging.Formatter):
    """Says on each line, those of tracebacks too, that this is the stand-in."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(f"{PRODUCT}: {line}" for line in super().format(record).splitlines() or [""])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.standin", description=PRODUCT)
    parser.add_argument("--port", type=int, default=8188, help="on 127.0.0.1; 0 takes a free one (default 8188)")
    parser.add_argument("--dir", help="holds input/, output/ and temp/ (default: a folder that is removed at the end)")
    parser.add_argument("--delay-ms", type=int, default=0, help="extra time for each node, with progress ticks")
    return parser.parse_args()


async def serve(port: int, folder: str, delay_ms: int) -> None:
    """Serve until SIGTERM or SIGINT. OSError if the port is taken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(Folders.prepare(folder), delay_s=delay_ms / 1000)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        log.info("files are in %s", folder)
        print(f"READY http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(EveryLinePrefixed("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.setrecursionlimit(RECURSION_LIMIT)
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="standin-", ignore_cleanup_errors=True) as scratch:
        try:
            asyncio.run(serve(options.port, options.dir or scratch, options.delay_ms))
        except OSError as error:
            log.error("cannot serve on 127.0.0.1:%d: %s; choose another --port", options.port, error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
