"""A way to Hearth on which connections with an event stream are cut."""

import re
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

LAST_ID = re.compile(rb"^last-event-id: *([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
DATA = re.compile(rb"\ndata: ")
KEEP_ALIVE = re.compile(rb"^connection: *keep-alive", re.IGNORECASE | re.MULTILINE)


class Cutter:
    """`after`: of each stream that is to be cut, how many events pass; it is cut amid the next. `asked`: the
    Last-Event-ID of each stream. `passed`: what came through of those that were cut."""

    def __init__(self, url: str, *after: int) -> None:
        self.asked: list[str] = []
        self.passed: list[bytes] = []
        self._after = list(after)
        self._to = urlsplit(url).hostname or "", urlsplit(url).port or 80
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request: its connection is not kept."""
        with client, socket.create_connection(self._to) as server, suppress(OSError):
            request = client.recv(65536)
            most = self._most(request)
            server.sendall(KEEP_ALIVE.sub(b"Connection: close", request))
            threading.Thread(target=_copy, args=[client, server], daemon=True).start()
            if most is None:
                _copy(server, client)
            else:
                self._cut(server, client, most)

    def _most(self, request: bytes) -> int | None:
        """How many events of the answer may pass; None: all of it."""
        if b"/events" not in request.partition(b"\r\n")[0]:
            return None
        found = LAST_ID.search(request)
        self.asked.append(found[1].decode() if found else "")
        return self._after.pop(0) if self._after else None

    def _cut(self, server: socket.socket, client: socket.socket, most: int) -> None:
        got = b""
        while data := server.recv(65536):
            passed, got = len(got), got + data
            begun = [found.end() for found in DATA.finditer(got)]
            got = got[: begun[most]] if len(begun) > most else got
            client.sendall(got[passed:])
            if len(begun) > most:
                break
        self.passed.append(got)
        client.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
