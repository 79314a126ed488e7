"""What a deliverer does with each answer: real POSTs to a real receiver."""

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from standardwebhooks import Webhook as Verifier

from accounts import sql
from jobs import history
from jobs.models import Delivery, Webhook
from jobs.states import State
from jobs.webhooks.register import first_secret, register, send_test
from tests.cast import Client
from tests.webhooks.receiver import Receiver
from tests.webhooks.sending import deliveries, ended, make_due, only, states, tries, until

Deliver = Callable[..., None]


def settled(client: Client) -> Delivery:
    """The only delivery, once nobody sends it."""
    return until(lambda: tries(client) and [d for d in deliveries(client) if d.leased_until is None])[0]


def test_a_delivery_arrives_signed_at_once_and_is_kept_with_its_try(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    secret = first_secret(acme.tenant)
    deliver()
    job = ended(acme, output={"n": 1}, webhook=receiver.url)
    until(lambda: states(acme) == ["delivered"])
    (got,) = receiver.got
    assert got.path == "/hook?token=T0KEN"
    assert got.body == history.status(acme.key, acme.place.name, job).json()
    Verifier(secret).verify(got.body, got.headers)
    assert (got.id, got.headers["content-type"]) == (only(acme).message_id, "application/json")
    assert not {"cookie", "accept-encoding", "authorization"} & got.headers.keys()
    (tried,) = tries(acme)
    assert (tried.status, tried.answer, tried.error) == (200, "thanks", "")
    assert 0 <= tried.ms < 15_000


def test_the_first_try_is_at_once(
    acme: Client, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the job wakes the deliverer, which looks by itself once in a long while here."""
    monkeypatch.setattr("jobs.webhooks.deliverer.POLL_S", 1000)
    monkeypatch.setattr("django.conf.settings.RECHECK_S", 1000)
    with Receiver() as first:
        ended(acme, webhook=first.url)
        deliver()
        until(lambda: first.got)  # so it waits by now
    ended(acme, webhook=receiver.url)
    until(lambda: receiver.got)


OPEN = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND (xact_start IS NOT NULL OR state LIKE 'idle in transaction%%')"""


def test_no_transaction_is_open_while_the_receiver_takes_its_time(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    receiver.hold = threading.Event()
    for _ in range(4):
        ended(acme, webhook=receiver.url)
    deliver(post_s=300)
    until(lambda: len(receiver.got) == 4)
    until(lambda: sql.one(OPEN)[0] == 0)  # while it claims, one is open for a moment
    receiver.hold.set()
    until(lambda: states(acme) == ["delivered"] * 4)


@pytest.mark.parametrize("status", [201, 204, 299])
def test_any_2xx_is_success(acme: Client, receiver: Receiver, deliver: Deliver, status: int) -> None:
    receiver.status, receiver.body = status, b""
    ended(acme, webhook=receiver.url)
    deliver()
    assert settled(acme).state == "delivered"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_any_other_status_is_tried_again_later(acme: Client, receiver: Receiver, deliver: Deliver, status: int) -> None:
    receiver.status = status
    ended(acme, webhook=receiver.url)
    deliver()
    first = settled(acme)
    assert (first.state, first.tries) == ("pending", 1)
    assert timedelta(seconds=3) < first.next_at - first.created_at < timedelta(seconds=10)
    receiver.status = 200
    make_due(acme)
    until(lambda: states(acme) == ["delivered"])
    assert [each.status for each in tries(acme)] == [status, 200]
    assert len({got.id for got in receiver.got}) == 1


def test_retry_after_is_honoured(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "1800"}
    ended(acme, webhook=receiver.url)
    deliver()
    found = settled(acme)
    assert timedelta(minutes=29) < found.next_at - found.created_at < timedelta(minutes=31)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(acme: Client, receiver: Receiver, deliver: Deliver, status: int) -> None:
    with Receiver() as inside:
        receiver.status, receiver.headers = status, {"Location": inside.url}
        ended(acme, webhook=receiver.url)
        deliver()
        assert settled(acme).state == "pending"
        assert [each.status for each in tries(acme)] == [status]
        assert inside.got == []


def test_410_ends_the_delivery_to_a_requests_own_url(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.status = 410
    ended(acme, webhook=receiver.url)
    deliver()
    assert settled(acme).state == "failed"
    assert len(receiver.got) == 1


def test_410_disables_a_webhook_and_gives_up_what_waits_for_it(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    for _ in range(3):
        ended(acme)
    Delivery.objects.of(acme.tenant).filter(pk__gt=deliveries(acme)[0].pk).update(next_at=F("next_at") + timedelta(1))
    receiver.status = 410
    deliver()
    until(lambda: states(acme) == ["failed"] * 3)
    webhook.refresh_from_db(from_queryset=Webhook.all_tenants.all())
    assert (webhook.enabled, webhook.disabled_why) == (False, "It answered 410 (Gone).")
    ended(acme)
    assert len(deliveries(acme)) == 3
    assert len(receiver.got) == 1


@pytest.fixture
def closed() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_receiver_that_is_down_is_tried_again(acme: Client, deliver: Deliver, closed: int) -> None:
    ended(acme, webhook=f"http://127.0.0.1:{closed}/")
    deliver()
    assert settled(acme).state == "pending"
    (tried,) = tries(acme)
    assert tried.status is None
    assert tried.error.startswith("No answer: Cannot connect")


def test_one_that_does_not_answer_in_time_is_given_up_on(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.hold = threading.Event()
    ended(acme, webhook=receiver.url)
    deliver(post_s=0.3)
    assert settled(acme).state == "pending"
    assert tries(acme)[0].error == "No answer within 0 s (5 s to connect)."


@pytest.fixture
def raw() -> Iterator[tuple[str, list[bytes]]]:
    """A receiver that answers each request with the bytes that are put into the list, and leaves the socket open."""
    server, answers, open_sockets = socket.create_server(("127.0.0.1", 0)), list[bytes](), list[socket.socket]()

    def serve() -> None:
        while True:
            try:
                taken = server.accept()[0]
            except OSError:
                return
            open_sockets.append(taken)
            taken.recv(65536)
            try:
                for part in answers:
                    taken.sendall(part)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/", answers
    server.close()
    for taken in open_sockets:
        taken.close()


def test_an_endless_answer_is_not_read(acme: Client, raw: Any, deliver: Deliver) -> None:
    url, answers = raw
    answers += [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"A" * 10_000_000]
    ended(acme, webhook=url)
    deliver()
    assert settled(acme).state == "delivered"
    assert tries(acme)[0].answer == "A" * 500


def test_a_body_that_never_comes_does_not_undo_a_success(acme: Client, raw: Any, deliver: Deliver) -> None:
    url, answers = raw
    answers += [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"]
    ended(acme, webhook=url)
    deliver(post_s=1.0)
    assert settled(acme).state == "delivered"


NO_HTTP = [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"A" * 100_000, b"HTTP/1.1 9999 X\r\n\r\n", b"\0" * 50]


@pytest.mark.parametrize("answer", NO_HTTP)
def test_what_is_no_http_is_a_failed_try(acme: Client, raw: Any, deliver: Deliver, answer: bytes) -> None:
    url, answers = raw
    answers.append(answer)
    ended(acme, webhook=url)
    deliver(post_s=1.0)
    assert settled(acme).state == "pending"
    assert tries(acme)[0].error


def test_bytes_that_are_no_text_are_kept_as_far_as_they_are(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.body = b"\x00\xff\xfeok" + b"z" * 5000
    ended(acme, webhook=receiver.url)
    deliver()
    settled(acme)
    assert tries(acme)[0].answer == "�" * 3 + "ok" + "z" * 495


def test_compressed_answers_stay_as_they_are(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.headers, receiver.body = {"Content-Encoding": "gzip"}, b"no gzip at all"
    ended(acme, webhook=receiver.url)
    deliver()
    assert settled(acme).state == "delivered"


@pytest.mark.parametrize("url", ["https://10.0.0.1/hook", "https://[fd00::1]/", "http://example.com/"])
def test_a_url_that_the_network_forbids_by_now_is_not_posted_to(acme: Client, deliver: Deliver, url: str) -> None:
    """It was allowed when it was given, or was put into the table by hand."""
    webhook = register(acme.tenant, "https://example.com/", ["completed"]).webhook
    Webhook.all_tenants.filter(pk=webhook.pk).update(url=url)
    ended(acme)
    deliver()
    settled(acme)
    assert tries(acme)[0].error in (
        "Its host leads to an address that is not public.",
        "The URL is refused: only https is allowed.",
    )


def test_https_needs_a_certificate_that_holds(acme: Client, deliver: Deliver, raw: Any) -> None:
    url, answers = raw
    answers.append(b"HTTP/1.1 200 OK\r\n\r\n")
    ended(acme, webhook=url.replace("http:", "https:"))
    deliver(post_s=1.0)
    assert settled(acme).state == "pending"


def test_tries_that_fail_are_counted_against_the_webhook_and_a_success_clears_it(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    receiver.status = 500
    ended(acme)
    deliver()
    settled(acme)
    assert Webhook.objects.of(acme.tenant).get().failing_since
    receiver.status = 200
    make_due(acme)
    until(lambda: states(acme) == ["delivered"])
    assert Webhook.objects.of(acme.tenant).get(pk=webhook.pk).failing_since is None


def test_a_webhook_that_has_failed_for_days_is_disabled(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    since = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
    Webhook.all_tenants.filter(pk=webhook.pk).update(failing_since=since)
    receiver.status = 500
    ended(acme)
    deliver()
    until(lambda: states(acme) == ["failed"])
    found = Webhook.objects.of(acme.tenant).get()
    assert not found.enabled
    assert found.disabled_why == "Every try since 2026-11-01 12:00 (UTC) has failed. The last: It answered 500."


def test_a_day_of_failed_tries_is_the_end_of_a_delivery(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    receiver.status = 500
    ended(acme, webhook=receiver.url)
    Delivery.objects.of(acme.tenant).update(began_at=F("began_at") - timedelta(hours=24), tries=14)
    deliver()
    assert settled(acme).state == "failed"


def test_a_job_that_was_retried_meanwhile_is_not_told_as_failed(
    acme: Client, receiver: Receiver, deliver: Deliver
) -> None:
    job = ended(acme, State.FAILED, webhook=receiver.url)
    acme.retry(job)
    deliver()
    until(lambda: states(acme) == ["outdated"])
    assert receiver.got == []


def test_a_test_is_tried_once_and_counts_for_nothing(acme: Client, receiver: Receiver, deliver: Deliver) -> None:
    webhook = register(acme.tenant, receiver.url, ["completed"]).webhook
    Webhook.all_tenants.filter(pk=webhook.pk).update(enabled=False)
    receiver.status = 410
    send_test(acme.tenant, webhook.pk)
    deliver()
    until(lambda: states(acme) == ["failed"])
    found = Webhook.objects.of(acme.tenant).get()
    assert (found.failing_since, found.disabled_why) == (None, "")
    assert receiver.got[0].headers["hearth-event"] == "test"


def test_a_delivery_that_cannot_be_made_is_a_failed_try(
    acme: Client, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accounts.sealed import SealBroken

    def broken(delivery: int) -> None:
        raise SealBroken("a stored secret opens with none of HEARTH_SEAL_KEYS")

    ended(acme, webhook=receiver.url)
    monkeypatch.setattr("jobs.webhooks.deliver.make", broken)
    deliver()
    assert settled(acme).state == "pending"
    assert "HEARTH_SEAL_KEYS" in tries(acme)[0].error
    assert receiver.got == []
