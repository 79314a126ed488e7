"""Small HTTP servers that answer as a test says, and what a name resolves to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Answers = Callable[[Asked], Reply]


@contextmanager
def serving(answers: Answers, host: str = "127.0.0.1", port: int = 0) -> Iterator["Server"]:
    made = Server(answers, host, port)
    threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()


class Server:
    """`asked`: what has been asked of it. `connections`: how many were opened, whatever was said over them."""

    def __init__(self, answers: Answers, host: str, port: int) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers), body)
                outer.asked.append(asked)
                reply = answers(asked)
                self.send_response_only(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer((host, port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{self.http.server_address[0]}:{self.port}"


class Names:
    """What names resolve to: each look-up gives the next answer, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.lookups: list[str] = []
        real = socket.getaddrinfo

        def lookup(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            known = self.answers.get(host)
            if known is None:
                return real(host, port, *args, **kwargs)
            self.lookups.append(host)
            addresses = known.pop(0) if len(known) > 1 else known[0]
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [found for address in addresses for found in real(address, port, *args, **kwargs)]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
