"""Where webhooks of the run arrive: a real server that keeps all it is sent, and is well only at times."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from tests.chaos.plan import Mood

SLOW_S = 2.5
STATUS: dict[Mood, int] = {"well": 200, "slow": 200, "failing": 500, "busy": 429}


@dataclass(frozen=True, kw_only=True)
class Told:
    """A POST that came, whatever was answered. tenant: whose URL it came to; fault: why it was not to be believed."""

    tenant: int
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    mood: Mood
    fault: str = ""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """secrets: the tenants', each of whom has a URL of its own."""

    def __init__(self, moods: Sequence[Mood], secrets: Sequence[str]) -> None:
        self.told: list[Told] = []
        self._moods, self._lock = list(moods), threading.Lock()
        self._verifiers = [Verifier(secret) for secret in secrets]
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def url(self, tenant: int) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{tenant}"

    def recover(self) -> None:
        """It is well from now on."""
        with self._lock:
            self._moods.clear()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, tenant: int, headers: dict[str, str], body: bytes) -> str:
        try:
            self._verifiers[tenant].verify(body, headers)
        except (WebhookVerificationError, ValueError) as error:
            return str(error)
        return ""

    def mood(self) -> Mood:
        """For the next POST."""
        with self._lock:
            return self._moods.pop(0) if self._moods else "well"


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        mood = self.receiver.mood()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        tenant = int(self.path[1:])
        fault = self.receiver.fault(tenant, headers, body)
        self.receiver.told.append(Told(tenant=tenant, headers=headers, body=body, mood=mood, fault=fault))
        if mood == "deaf":
            self.close_connection = True
            return
        if mood == "slow":
            time.sleep(SLOW_S)
        self.send_response(STATUS[mood])
        if mood == "busy":
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the deliverer was killed, or has hung up

    def log_message(self, *_: Any) -> None:
        pass
