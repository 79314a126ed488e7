"""A tenant's S3 is reached only where the guard lets it, whatever its name resolves to and whatever it answers."""

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, HTTPClientError, SSLError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from django.conf import settings

from storage import guarded
from storage.places import Place, client, delete_objects, operators_place
from tests.cast import unique
from tests.storage.fault_server import Asked, Names, Reply, Server, serving
from worker.wire import UrlRefused, networks

PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(autouse=True)
def only_one_address_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "URL_ALLOW", networks([f"{PUBLIC}/32"]))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def theirs() -> Iterator[Server]:
    """The tenant's S3."""
    with serving(lambda asked: Reply(204)) as server:
        yield server


@pytest.fixture
def inside(theirs: Server) -> Iterator[Server]:
    """What must not be reached, on the same port of a private address."""
    with serving(lambda asked: Reply(204), PRIVATE, theirs.port) as server:
        yield server


def place(endpoint_url: str, **fields: object) -> Place:
    known = {"region": "us-east-1", "s3_bucket": "b", "prefix": "", "addressing": "path", "access_key_id": unique("A")}
    return Place(endpoint_url=endpoint_url, secret_access_key="secret", **(known | fields))  # type: ignore[arg-type]


def refusal(error: BaseException) -> UrlRefused:
    found = getattr(error, "kwargs", {}).get("error")
    assert isinstance(found, UrlRefused), error
    return found


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    names: Names, theirs: Server, inside: Server
) -> None:
    """DNS rebinding: the answer changes right after it was looked at."""
    names.answers["rebind.example.com"] = [[PUBLIC], [PRIVATE]]
    delete_objects(place(f"http://rebind.example.com:{theirs.port}"), ["key"])
    assert [asked.method for asked in theirs.asked] == ["DELETE"]
    assert theirs.asked[0].headers["Host"] == f"rebind.example.com:{theirs.port}"
    assert names.lookups == ["rebind.example.com"]
    assert inside.connections == 0


def test_a_name_that_has_turned_private_is_refused_before_it_is_connected_to(
    names: Names, theirs: Server, inside: Server
) -> None:
    names.answers["rebind.example.com"] = [[PUBLIC], [PRIVATE]]
    where = place(f"http://rebind.example.com:{theirs.port}")
    delete_objects(where, ["key"])
    guarded.session(trusted=False).close()  # a later connection
    with pytest.raises(HTTPClientError) as failed:
        delete_objects(where, ["key"])
    assert str(refusal(failed.value)) == f"address {PRIVATE} is not public"
    assert inside.connections == 0


@pytest.mark.parametrize("answer", [[PUBLIC, PRIVATE], [PRIVATE, PUBLIC]], ids=["second", "first"])
def test_one_private_address_among_others_is_enough(
    names: Names, theirs: Server, inside: Server, answer: list[str]
) -> None:
    names.answers["mixed.example.com"] = [answer]
    with pytest.raises(HTTPClientError):
        client(place(f"http://mixed.example.com:{theirs.port}")).head_object(Bucket="b", Key="k")
    assert theirs.connections == inside.connections == 0


def test_a_plain_private_address_is_refused(inside: Server) -> None:
    with pytest.raises(HTTPClientError) as failed:
        client(place(inside.url)).get_object(Bucket="b", Key="k")
    refusal(failed.value)
    with pytest.raises(HTTPClientError):
        guarded.send("GET", f"{inside.url}/b/k", {}, b"", trusted=False)
    assert inside.connections == 0


def test_the_operators_own_s3_may_be_private(inside: Server) -> None:
    delete_objects(place(inside.url, trusted=True), ["key"])
    assert [asked.method for asked in inside.asked] == ["DELETE"]


def test_another_address_is_tried_when_the_first_does_not_answer(names: Names, theirs: Server) -> None:
    settings.URL_ALLOW = networks(["127.0.0.0/8"])
    names.answers["two.example.com"] = [["127.0.0.9", PUBLIC]]
    delete_objects(place(f"http://two.example.com:{theirs.port}"), ["key"])
    assert len(theirs.asked) == 1


def test_a_name_without_an_address_is_no_connection(names: Names) -> None:
    names.answers["gone.example.com"] = [[]]
    with pytest.raises(EndpointConnectionError):
        delete_objects(place("http://gone.example.com"), ["key"])


def test_a_redirect_is_not_followed(inside: Server) -> None:
    def elsewhere(asked: Asked) -> Reply:
        return Reply(307, headers={"Location": f"{inside.url}/b/k"})

    with serving(elsewhere) as server:
        with pytest.raises(ClientError):
            client(place(server.url)).head_object(Bucket="b", Key="k")
        answer = guarded.send("GET", f"{server.url}/b/k", {}, b"", trusted=False)
    assert (answer.status_code, inside.connections) == (307, 0)


def test_a_proxy_of_the_environment_does_not_get_around_the_guard(
    monkeypatch: pytest.MonkeyPatch, theirs: Server, inside: Server
) -> None:
    monkeypatch.setenv("HTTP_PROXY", inside.url)
    monkeypatch.setenv("http_proxy", inside.url)
    delete_objects(place(theirs.url), ["key"])
    assert (len(theirs.asked), inside.connections) == (1, 0)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_endless_answer_is_cut_off(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "MOST_BYTES", 10_000)
    with (
        serving(lambda asked: Reply(status, b"x" * 20_000)) as server,
        pytest.raises(BotoCoreError, match="10000 bytes"),
    ):
        client(place(server.url)).delete_object(Bucket="b", Key="k")


def test_an_object_that_is_asked_for_as_a_stream_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "MOST_BYTES", 10_000)
    with serving(lambda asked: Reply(200, b"x" * 20_000)) as server:
        assert len(client(place(server.url)).get_object(Bucket="b", Key="k")["Body"].read()) == 20_000


def test_a_server_that_does_not_come_to_the_end_of_its_head_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "HEAD_S", 0.2)
    end = threading.Event()

    def slow(asked: Asked) -> Reply:
        end.wait(20)
        return Reply()

    with serving(slow) as server:
        with pytest.raises(BotoCoreError):
            guarded.send("GET", server.url, {}, b"", trusted=False)
        end.set()


def test_what_the_guard_carries_is_what_s3_takes() -> None:
    """The whole way on the real S3, by a connection that is guarded."""
    real = operators_place(public=False)
    s3, key = client(replace(real, trusted=False)), unique("guarded")
    s3.put_object(Bucket=real.s3_bucket, Key=key, Body=b"content", ContentType="text/plain")
    assert s3.get_object(Bucket=real.s3_bucket, Key=key)["Body"].read() == b"content"
    assert s3.head_object(Bucket=real.s3_bucket, Key=key)["ContentLength"] == 7
    assert key in str(s3.list_objects_v2(Bucket=real.s3_bucket, Prefix=key))
    s3.delete_object(Bucket=real.s3_bucket, Key=key)
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=real.s3_bucket, Key=key)


def test_the_certificate_must_be_the_names_though_the_connection_goes_to_an_address(
    names: Names, tmp_path: Path
) -> None:
    names.answers |= {"tls.example.com": [[PUBLIC]], "other.example.com": [[PUBLIC]]}
    file = tmp_path / "both.pem"
    file.write_bytes(self_signed("tls.example.com"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    session = guarded.Guarded(verify=str(file))
    with serving(lambda asked: Reply(200, b"well")) as server:
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        asked = AWSRequest("GET", f"https://tls.example.com:{server.port}/").prepare()
        assert session.send(asked).content == b"well"
        with pytest.raises(SSLError):
            session.send(AWSRequest("GET", f"https://other.example.com:{server.port}/").prepare())


def self_signed(name: str) -> bytes:
    """A key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    who, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.private_bytes(*form) + made.sign(key, SHA256()).public_bytes(Encoding.PEM)
