"""What S3 does wrong, and what the job then says: a code of its own for each, tried again only where that helps."""

import asyncio
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.worker.fakes import LOCAL, FakeHearth, Server
from worker.errors import JobError
from worker.files import OutputFile, Stored
from worker.hearth import Hearth
from worker.put import TRIES, Putter
from worker.s3 import KINDS
from worker.upload import through_hearth

Answer = tuple[int, str, dict[str, str]]


def said(status: int, code: str = "", message: str = "", more: str = "", **headers: str) -> Answer:
    """As AWS answers."""
    if not code:
        return status, "", headers
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    )
    return status, body, headers


class FaultyS3(Server):
    """Answers each PUT with the next of `answers`, and then with 200."""

    def __init__(self, *answers: Answer | None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.puts = 0
        self.app.router.add_put("/{key:.*}", self._put)

    async def _put(self, request: web.Request) -> web.Response:
        await request.read()
        self.puts += 1
        answer = self.answers.pop(0) if self.answers else said(200)
        if answer is None:
            assert request.transport
            request.transport.abort()
            return web.Response()
        status, body, headers = answer
        return web.Response(status=status, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.put.PAUSE_S", 0.001)


async def stored(url: str, *, trusted: bool = True, patience_s: float = 0.0, putter: Putter | None = None) -> Any:
    """What becomes of one file whose slots are at this URL, and how many slots were asked for."""
    file = OutputFile(node="9", name="a.png")
    file.write(b"abc")
    async with FakeHearth(trusted=trusted, slot_url=f"{url}/s3/a.png?X-Amz-Signature=secret") as hearth:
        own = putter or Putter(LOCAL, patience_s)
        line = Hearth(hearth.url, "tok-secret", own._trusted, 1.0)
        [result] = await through_hearth([file], line, own)
        if putter is None:
            await own.close()
        return result, hearth.verbs().count("uploads")


REGION = "<Region>eu-west-1</Region>"
OTHER_ENDPOINT = "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"
SKEWED = "The difference between the request time and the current time is too large."
ENDS: list[tuple[Answer, str, int, str]] = [
    (said(403, "AccessDenied", "Access Denied"), "upload_refused", 2, "S3 answered 403 AccessDenied"),
    (said(403, "InvalidAccessKeyId"), "upload_refused", 2, "see its id, its secret and its rights"),
    (said(403, "SignatureDoesNotMatch"), "upload_refused", 2, "SignatureDoesNotMatch"),
    (said(403), "upload_refused", 2, "S3 answered 403"),
    (said(403, "AccessDenied", "Request has expired"), "upload_clock", 2, "set them by NTP"),
    (said(403, "RequestTimeTooSkewed", SKEWED), "upload_clock", 1, "RequestTimeTooSkewed"),
    (said(404, "NoSuchBucket", "The specified bucket does not exist"), "upload_no_bucket", 1, "no such S3 bucket"),
    (said(301, "PermanentRedirect", "", OTHER_ENDPOINT), "upload_region", 1, "it is at b.s3.eu-west-1.amazonaws.com"),
    (said(301, x_amz_bucket_region="eu-west-1"), "upload_region", 1, "it is at eu-west-1"),
    (said(307, "TemporaryRedirect"), "upload_region", 1, "in another region"),
    (said(400, "AuthorizationHeaderMalformed", "", REGION), "upload_region", 1, "it is at eu-west-1"),
    (said(507, "XMinioStorageFull", "Storage backend has reached"), "upload_full", TRIES, "no room left"),
    (said(403, "QuotaExceeded"), "upload_full", TRIES, "raise the quota"),
    (said(507), "upload_full", TRIES, "507"),
    (said(503, "SlowDown"), "upload_unreachable", TRIES, "503 SlowDown"),
    (said(500, "InternalError"), "upload_unreachable", TRIES, "away or unwell"),
    (said(502), "upload_unreachable", TRIES, "502 Bad Gateway"),
    (said(400, "RequestTimeout"), "upload_slow", TRIES, "too slow"),
    (said(400, "EntityTooLarge"), "upload_failed", 1, "400 EntityTooLarge"),
]


@pytest.mark.parametrize(("answer", "code", "puts", "words"), ENDS, ids=lambda value: str(value)[:40])
async def test_what_s3_answers_for_good_is_told_by_code_and_words(
    answer: Answer, code: str, puts: int, words: str
) -> None:
    async with FaultyS3(*[answer] * 20) as s3:
        result, _ = await stored(s3.url)
    assert isinstance(result, JobError)
    assert (result.code, s3.puts) == (code, puts)
    assert words in str(result)
    assert str(result).startswith("a.png of node 9 could not be uploaded: ")
    assert "secret" not in str(result).replace("its secret and its rights", "")


def test_each_code_is_one_that_the_worker_knows_and_is_tested() -> None:
    from worker.errors import CODES

    assert set(KINDS) <= set(CODES)
    assert not any(CODES[code].elsewhere for code in KINDS)
    elsewhere = {"upload_dns", "upload_tls", "upload_address"}
    assert {code for _, code, _, _ in ENDS} | elsewhere == set(KINDS)


@pytest.mark.parametrize(
    "answer",
    [said(503, "SlowDown"), said(500), said(507, "XMinioStorageFull"), said(400, "RequestTimeout"), None],
    ids=str,
)
async def test_what_passes_is_waited_for(answer: Answer | None) -> None:
    async with FaultyS3(*[answer] * 6) as s3:
        result, slots = await stored(s3.url, patience_s=20)
    assert isinstance(result, Stored), result
    assert (s3.puts, slots) == (7, 1)


@pytest.mark.parametrize("message", ["Request has expired", "Access Denied"])
async def test_a_url_that_expired_or_was_signed_by_an_old_key_is_replaced_once(message: str) -> None:
    async with FaultyS3(said(403, "AccessDenied", message)) as s3:
        result, slots = await stored(s3.url)
    assert isinstance(result, Stored), result
    assert (s3.puts, slots) == (2, 2)


async def test_a_connection_that_breaks_is_s3_that_is_away() -> None:
    async with FaultyS3(*[None] * 20) as s3:
        result, _ = await stored(s3.url)
    assert (result.code, s3.puts) == ("upload_unreachable", TRIES)
    assert "the connection broke" in str(result)


async def test_nobody_at_the_port_is_s3_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    result, _ = await stored(f"http://127.0.0.1:{port}")
    assert result.code == "upload_unreachable"
    assert "Connection refused" in str(result)


async def test_an_s3_that_does_not_answer_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.put.LONGEST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        result, _ = await stored(f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert result.code == "upload_slow"


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_name_that_nobody_knows_is_dns(monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    real = asyncio.get_running_loop().getaddrinfo

    async def unknown(host: Any, *rest: Any, **more: Any) -> Any:
        if "nowhere" in str(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await real(host, *rest, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    result, _ = await stored("https://s3.nowhere.example", trusted=trusted)
    assert result.code == "upload_dns"
    assert "no address for s3.nowhere.example" in str(result)


def certificate(folder: Path) -> ssl.SSLContext:
    """Of somebody whom nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=localhost")
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_a_certificate_that_nobody_signed_is_tls_and_not_tried_again(tmp_path: Path) -> None:
    async def meet(reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=certificate(tmp_path))
    async with server:
        port = server.sockets[0].getsockname()[1]
        result, _ = await stored(f"https://localhost:{port}")
    assert result.code == "upload_tls", result
    assert "certificate" in str(result)


async def test_https_to_what_speaks_none_is_tls() -> None:
    async with FaultyS3() as s3:
        result, _ = await stored(s3.url.replace("http:", "https:"))
    assert (result.code, s3.puts) == ("upload_tls", 0)


async def test_files_for_a_tenants_s3_that_stays_away_do_not_each_wait_anew() -> None:
    putter = Putter(LOCAL, 0.3)
    async with FaultyS3(*[said(503)] * 10_000) as s3:
        first, _ = await stored(s3.url, trusted=False, putter=putter)
        waited, s3.puts = s3.puts, 0
        second, _ = await stored(s3.url, trusted=False, putter=putter)
        assert (first.code, second.code) == ("upload_unreachable", "upload_unreachable")
        assert TRIES <= s3.puts < waited
        s3.answers.clear()
        third, _ = await stored(s3.url, trusted=False, putter=putter)
        assert isinstance(third, Stored)
        s3.answers += [said(503)] * 6
        fourth, _ = await stored(s3.url, trusted=False, putter=putter)
        assert isinstance(fourth, Stored), "once it was well, it is waited for again"
    await putter.close()


async def test_one_tenants_s3_takes_no_patience_from_anothers() -> None:
    putter = Putter(LOCAL, 0.3)
    async with FaultyS3(*[said(503)] * 10_000) as s3, FaultyS3(*[said(503)] * 6) as other:
        await stored(s3.url, trusted=False, putter=putter)
        result, _ = await stored(other.url.replace("127.0.0.1", "localhost"), trusted=False, putter=putter)
        assert isinstance(result, Stored), result
    await putter.close()
