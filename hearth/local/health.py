"""Asking a Hearth whether it is healthy, without ever waiting for it."""

import json
import select
import socket
import time
from typing import Any

PATIENCE_S = 5.0


class Probe:
    """One open GET /healthz at a time. While web starts, the connection waits in the listening socket's queue."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host.strip("[]"), port)
        self._request = f"GET /healthz HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode()
        self._open: socket.socket | None = None
        self._asked = 0.0
        self._heard = b""

    def look(self) -> dict[str, Any]:
        """What it answers, or {} as long as it has not. Asks again at the look after an answer."""
        try:
            if self._open is None:
                self._ask()
            return self._listen()
        except OSError:
            self._close()
            return {}

    def _ask(self) -> None:
        self._open = socket.create_connection(self._address, timeout=1.0)
        self._open.sendall(self._request)
        self._asked, self._heard = time.monotonic(), b""

    def _listen(self) -> dict[str, Any]:
        while self._open and select.select([self._open], [], [], 0)[0]:
            got = self._open.recv(65536)
            self._heard += got
            if not got:
                self._close()
                return self._parsed()
        if time.monotonic() - self._asked > PATIENCE_S:
            self._close()
        return {}

    def _parsed(self) -> dict[str, Any]:
        try:
            body = json.loads(self._heard.partition(b"\r\n\r\n")[2])
            return body if isinstance(body, dict) else {}
        except ValueError:
            return {}

    def _close(self) -> None:
        if self._open:
            self._open.close()
        self._open = None
