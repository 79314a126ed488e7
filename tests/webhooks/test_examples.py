"""The receivers and scripts of examples/webhooks, given what a deliverer has really sent."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from django.db.models import F
from standardwebhooks import Webhook as Signer

from hearth.local.instance import ROOT
from hearth.local.process import Child, Part, stop
from hearth.local.seaweed import free_ports
from jobs.models import WebhookSecret
from jobs.webhooks.register import first_secret, new_secret, replay, roll_secret
from tests.cast import Client
from tests.conftest import answers, start, wait
from tests.fleet.wire import call
from tests.js.node import NODE
from tests.webhooks.receiver import Got, Receiver
from tests.webhooks.sending import ended, states, tries, until

EXAMPLES = ROOT / "examples" / "webhooks"
RECEIVERS = {
    "python": [sys.executable, str(EXAMPLES / "receive.py")],
    "js": [str(NODE / "bin" / "node"), str(EXAMPLES / "receive.mjs")],
}
SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
Headers = dict[str, str]
Deliver = Callable[..., None]


class Receiving:
    """An example's receiver, which knows this secret."""

    def __init__(self, name: str, secret: str) -> None:
        port = free_ports(1)[0]
        env = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
        self.child = start(Part(name=f"{name}-{port}", argv=RECEIVERS[name], env=env, cwd=ROOT, grace_s=5))
        self.url = f"http://127.0.0.1:{port}/"
        wait(30, lambda: answers(port), self.child)

    def believes(self, headers: Headers, body: bytes) -> bool:
        answer = call("POST", self.url, body, {name: headers[name] for name in SIGNED if name in headers})
        assert answer.status in (200, 400), answer.body
        return answer.status == 200

    @property
    def printed(self) -> list[str]:
        """What it did, without what its server notes of each request."""
        return [line for line in self.child.log.read_text().splitlines() if " HTTP/1.1" not in line]


class Script:
    """verify.sh with this secret."""

    def __init__(self, secret: str, folder: Path) -> None:
        self.env, self.folder = {**os.environ, "WEBHOOK_SECRET": secret}, folder

    def believes(self, headers: Headers, body: bytes) -> bool:
        (self.folder / "headers").write_text("".join(f"{name.title()}: {value}\r\n" for name, value in headers.items()))
        (self.folder / "body").write_bytes(body)
        argv = [str(EXAMPLES / "verify.sh"), str(self.folder / "headers"), str(self.folder / "body")]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout[:9]) in ((0, "Verified:"), (1, "")), done.stderr
        return done.returncode == 0


Judge = Callable[[str], Receiving | Script]


@pytest.fixture(params=[*RECEIVERS, "shell"])
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Judge]:
    """An example, for the secret that it is given."""
    children: list[Child] = []

    @cache
    def made(secret: str) -> Receiving | Script:
        if request.param == "shell":
            return Script(secret, tmp_path)
        receiving = Receiving(request.param, secret)
        children.append(receiving.child)
        return receiving

    yield made
    stop(children)


def delivered(client: Client, receiver: Receiver, deliver: Deliver) -> Got:
    """What arrives when a job of the client's has ended."""
    deliver()
    ended(client, output={"text": "größer 🔥"}, webhook=receiver.url)
    until(lambda: states(client) == ["delivered"])
    return receiver.got[0]


def signed(secret: str, got: Got, at: datetime) -> Headers:
    """The same message as it would have been at that time."""
    signature = Signer(secret).sign(got.id, at, got.body.decode())
    return got.headers | {"webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def test_what_was_sent_is_believed_and_what_was_altered_is_not(
    acme: Client, receiver: Receiver, deliver: Deliver, judge: Judge
) -> None:
    example = judge(first_secret(acme.tenant))
    got = delivered(acme, receiver, deliver)
    assert example.believes(got.headers, got.body)
    assert not example.believes(got.headers, got.body.replace(b"COMPLETED", b"FAILED"))
    assert not example.believes(got.headers, got.body + b" ")
    assert not example.believes(got.headers | {"webhook-id": "msg_other"}, got.body)
    for wrong in ("", "nonsense", "v1,", "v1,AAAA", "v2," + got.headers["webhook-signature"].removeprefix("v1,")):
        assert not example.believes(got.headers | {"webhook-signature": wrong}, got.body), wrong
    for name in SIGNED:
        assert not example.believes({key: value for key, value in got.headers.items() if key != name}, got.body)


def test_what_is_old_is_not_believed_though_it_is_signed(
    acme: Client, receiver: Receiver, deliver: Deliver, judge: Judge
) -> None:
    secret = first_secret(acme.tenant)
    example, got, now = judge(secret), delivered(acme, receiver, deliver), datetime.now(UTC)
    for minutes, believed in ((0, True), (-4, True), (-6, False), (6, False), (-60 * 24, False)):
        assert example.believes(signed(secret, got, now + timedelta(minutes=minutes)), got.body) is believed, minutes
    assert not example.believes(got.headers | {"webhook-timestamp": "soon"}, got.body)


def test_while_a_secret_is_rolled_who_knows_either_believes(
    acme: Client, receiver: Receiver, deliver: Deliver, judge: Judge
) -> None:
    old, new = first_secret(acme.tenant), roll_secret(acme.tenant)
    got = delivered(acme, receiver, deliver)
    assert [judge(secret).believes(got.headers, got.body) for secret in (old, new, new_secret())] == [True, True, False]
    WebhookSecret.objects.of(acme.tenant).update(expires_at=F("expires_at") - timedelta(hours=25))
    ended(acme, webhook=receiver.url)
    until(lambda: len(receiver.got) == 2)
    after = receiver.got[1]
    assert [judge(secret).believes(after.headers, after.body) for secret in (old, new)] == [False, True]


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_receiver_takes_what_it_can_verify_and_does_its_work_once(acme: Client, deliver: Deliver, name: str) -> None:
    secret = first_secret(acme.tenant)
    with ExitStack() as stack:
        right, wrong = Receiving(name, secret), Receiving(name, new_secret())
        stack.callback(stop, [right.child, wrong.child])
        job = ended(acme, webhook=right.url)
        ended(acme, webhook=wrong.url)
        deliver()
        until(lambda: len(tries(acme)) == 2)
        refused, taken = sorted(tries(acme), key=lambda each: -(each.status or 0))
        assert (taken.status, refused.status) == (200, 400)
        assert refused.answer.startswith("Not verified")
        replay(acme.tenant, taken.delivery_id)
        until(lambda: len(tries(acme)) == 3)
        assert right.printed == [f"{job.uuid}-e1 COMPLETED"], "it came twice"


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_receiver_is_tried_without_hearth(name: str) -> None:
    secret = new_secret()
    receiving = Receiving(name, secret)
    body = '{"id": "x-e1", "status": "COMPLETED", "output": "größer"}'
    for given, code in ((secret, 0), (new_secret(), 22)):
        argv = [str(EXAMPLES / "send.sh"), receiving.url, body]
        done = subprocess.run(argv, env={**os.environ, "WEBHOOK_SECRET": given}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    stop([receiving.child])
    assert receiving.printed == ["x-e1 COMPLETED"]
