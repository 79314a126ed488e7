"""Receives Hearth's webhooks and believes only what is signed. `pip install standardwebhooks`, then:

WEBHOOK_SECRET=whsec_… PORT=9000 python receive.py
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()  # a message may come twice: keep the ids where they outlive this process


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))  # as it came: written anew it may differ
        try:
            job = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError) as error:  # ValueError: a header that makes no sense
            return self.answer(400, f"Not verified: {error}")
        if self.headers["webhook-id"] not in seen:
            print(job["id"], job["status"], flush=True)  # your work; if it is long, keep the message and do it later
            seen.add(self.headers["webhook-id"])
        return self.answer(200, "thanks")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver).serve_forever()
