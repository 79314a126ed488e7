"""Verifying a bucket: on the real S3, and on small servers that refuse as the providers' own answers have it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts.models import Tenant
from accounts.sealed import Sealed
from storage import verify as verifying
from storage.faults import CODES, KINDS
from storage.management.commands import create_bucket
from storage.models import Bucket
from storage.places import Place, client, operators_place
from storage.verify import check, verify
from tests.cast import unique
from tests.storage.fault_server import Asked, Names, Reply, Server, serving

KEY_ID, SECRET = "AKIAVERIFY", "v3rify-secret"
ALL_STEPS = [
    "write an object",
    "read it back",
    "write one by a signed URL, as workers do",
    "read it by a URL, as clients do",
    "begin an upload in parts, and drop it",
    "delete them",
]


def error(status: int, code: str, message: str = "", more: str = "", **headers: str) -> Reply:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    )
    return Reply(status, body.encode(), {"Content-Type": "application/xml", **headers})


BEGUN = b"<InitiateMultipartUploadResult><UploadId>parts-1</UploadId></InitiateMultipartUploadResult>"


class S3:
    """Takes, gives and deletes objects, but for what `refuse` answers: by "PUT", "GET", "HEAD", "DELETE", with "url"
    behind it for requests by signed URL; by "POST" and "ABORT" for uploads in parts."""

    def __init__(self, **refuse: Reply) -> None:
        self.refuse, self.objects = refuse, {}  # type: ignore[var-annotated]

    def __call__(self, asked: Asked) -> Reply:
        path, _, query = asked.path.partition("?")
        how = "ABORT" if "uploadId" in query else asked.method + ("url" if "X-Amz-Signature" in query else "")
        if how in self.refuse:
            return self.refuse[how]
        if asked.method == "PUT":
            self.objects[path] = asked.body
            return Reply(200, headers={"ETag": '"x"'})
        if asked.method == "DELETE":
            self.objects.pop(path, None)
            return Reply(204)
        if asked.method == "POST":
            return Reply(200, BEGUN, {"Content-Type": "application/xml"})
        return Reply(200, self.objects[path]) if path in self.objects else error(404, "NoSuchKey")


class Switched:
    """One server for all of them, as a boto3 client costs 0.1 s for each address."""

    s3: S3
    server: Server

    def __call__(self, asked: Asked) -> Reply:
        return self.s3(asked)


SWITCHED = Switched()


@pytest.fixture(scope="module", autouse=True)
def _switched() -> Iterator[None]:
    with serving(SWITCHED) as SWITCHED.server:
        yield


def place(url: str, **fields: Any) -> Place:
    known: dict[str, Any] = {"region": "us-east-1", "s3_bucket": "renders", "prefix": "out", "addressing": "path"}
    return Place(endpoint_url=url, access_key_id=KEY_ID, secret_access_key=SECRET, **known | fields)


def fault_of(s3: S3, **fields: Any) -> str:
    SWITCHED.s3 = s3
    told = check(place(SWITCHED.server.url, **fields), "acme").fault
    assert not [secret for secret in (KEY_ID, SECRET, "X-Amz-", "StringToSign") if secret in told]
    return told


@pytest.fixture
def real() -> Place:
    return replace(operators_place(public=False), prefix=unique("verify"), trusted=False)


def left_in(place: Place) -> int:
    admin = operators_place(public=False)
    return int(client(admin).list_objects_v2(Bucket=admin.s3_bucket, Prefix=place.prefix)["KeyCount"])


def test_a_bucket_that_works_says_so_and_is_left_as_it_was(real: Place) -> None:
    done = check(real, "acme")
    assert (done.fault, [step.what for step in done.steps]) == ("", ALL_STEPS)
    assert left_in(real) == 0


def test_all_it_writes_is_below_the_prefix_and_the_tenant() -> None:
    with serving(S3()) as server:
        assert check(place(server.url), "acme").fault == ""
    assert {asked.method for asked in server.asked} == {"PUT", "GET", "HEAD", "POST", "DELETE"}
    assert all(asked.path.startswith("/renders/out/acme/check-") for asked in server.asked)
    assert sum("X-Amz-Signature" in asked.path for asked in server.asked) == 2


def test_nothing_that_is_asked_has_the_newer_checksums_which_some_s3s_refuse() -> None:
    """R2, Google and older MinIOs answer 400 or 501 to what boto3 sends by default."""
    with serving(S3()) as server:
        assert check(place(server.url), "acme").fault == ""
    said = [f"{name}: {value}".lower() for asked in server.asked for name, value in asked.headers.items()]
    said += [asked.path.lower() for asked in server.asked]
    assert len(said) > 20
    assert not [text for text in said if "checksum" in text or "x-amz-trailer" in text or "aws-chunked" in text]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret_access_key": "wrong"}, "The secret access key is not the one of this access key: enter it anew."),
        ({"access_key_id": "nobody"}, "does not know the access key (403 InvalidAccessKeyId"),
    ],
    ids=["secret", "key"],
)
def test_the_real_s3_is_told_apart(real: Place, wrong: dict[str, str], said: str) -> None:
    """But for a missing S3 bucket: SeaweedFS makes it, for a key that may."""
    assert said in check(replace(real, **wrong), "acme").fault  # type: ignore[arg-type]


def test_a_clock_that_is_wrong_is_told_by_how_much(real: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth

    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: datetime.now(UTC) - timedelta(hours=5)
    )
    told = check(real, "acme").fault
    assert "refused the time of the request" in told
    assert "Set this machine's clock right, by NTP." in told


def wrong_region(code: str, message: str = "the region 'us-east-1' is wrong; expecting 'eu-central-1'") -> Reply:
    return error(400, code, message, "<Region>eu-central-1</Region>")


ENDPOINT = "<Endpoint>renders.s3.eu-central-1.amazonaws.com</Endpoint>"
DENIED = "<Details>svc@x.iam does not have storage.objects.create access</Details>"
SIGNED = f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256</StringToSign>"
SKEWED = "The difference between the request time and the current time is too large."
NEEDS = "arn:aws:s3:::renders/out/*"
IN_FRANKFURT = "The S3 bucket 'renders' is in region 'eu-central-1', not 'us-east-1': set the region 'eu-central-1'"
ANSWERS: list[tuple[str, Reply, str]] = [
    # Amazon
    ("PUT", wrong_region("AuthorizationHeaderMalformed"), IN_FRANKFURT),
    ("PUTurl", wrong_region("AuthorizationQueryParametersError"), IN_FRANKFURT),
    ("PUTurl", wrong_region("InvalidArgument"), IN_FRANKFURT),
    ("PUT", error(301, "PermanentRedirect", "addressed by the endpoint", ENDPOINT), "It says: renders.s3.eu-central-1"),
    ("HEAD", Reply(301, headers={"x-amz-bucket-region": "eu-central-1"}), IN_FRANKFURT),
    (
        "PUT",
        error(404, "NoSuchBucket", "The specified bucket does not exist"),
        "There is no S3 bucket 'renders' at http",
    ),
    ("PUT", error(403, "InvalidAccessKeyId", "does not exist in our records"), "correct the access key ID"),
    ("PUT", error(403, "SignatureDoesNotMatch", "does not match", SIGNED), "The secret access key is not the one of"),
    ("PUT", error(403, "AccessDenied", "Access Denied"), "may not write in S3 bucket 'renders' below 'out'"),
    ("PUT", error(403, "AccessDenied", "Access Denied"), f"allow s3:PutObject on {NEEDS}"),
    ("PUTurl", error(403, "AccessDenied", "Access Denied"), f"allow s3:PutObject on {NEEDS}"),
    ("GET", error(403, "AccessDenied", "Access Denied"), f"allow s3:GetObject on {NEEDS}"),
    ("GETurl", error(403, "AccessDenied", "Access Denied"), f"allow s3:GetObject on {NEEDS}"),
    ("HEAD", Reply(403), f"allow s3:GetObject on {NEEDS}"),
    (
        "DELETE",
        error(403, "AccessDenied", "Access Denied"),
        f"allow s3:DeleteObject on {NEEDS} These stay there: out/acme/",
    ),
    ("POST", error(403, "AccessDenied", "Access Denied"), f"allow s3:PutObject on {NEEDS}"),
    ("ABORT", error(403, "AccessDenied", "Access Denied"), f"allow s3:AbortMultipartUpload on {NEEDS}"),
    ("PUTurl", error(403, "AccessDenied", "Request has expired"), "refused the time of the request"),
    ("PUT", error(503, "SlowDown", "Please reduce your request rate."), "is unwell or overloaded (503 SlowDown"),
    # Cloudflare R2
    ("PUT", error(401, "Unauthorized", "Unauthorized"), "does not know the access key (401 Unauthorized"),
    (
        "PUT",
        error(400, "InvalidRegionName", "The region name 'us-east-1' is not valid."),
        "The region 'us-east-1' or the",
    ),
    ("PUTurl", error(400, "ExpiredRequest", "Request has expired"), "refused the time of the request"),
    # Backblaze B2
    ("PUT", error(403, "InvalidAccessKeyId", "Malformed Access Key Id"), "Malformed Access Key Id"),
    ("PUT", error(403, "AccessDenied", "not entitled"), "(403 AccessDenied not entitled)"),
    # Google
    ("PUT", error(403, "AccessDenied", "Access denied.", DENIED), f"allow s3:PutObject on {NEEDS}"),
    # MinIO
    (
        "PUT",
        wrong_region("AuthorizationHeaderMalformed", "the region is wrong; expecting 'eu-central-1'."),
        IN_FRANKFURT,
    ),
    ("PUT", error(507, "XMinioStorageFull", "Storage backend has reached its minimum free"), "has no room left"),
    # what is no S3 at all
    ("PUT", Reply(404, b"<html>Not Found</html>", {"Content-Type": "text/html"}), "or no S3, at http"),
    ("PUT", Reply(405, b"<html>no</html>", {"Content-Type": "text/html"}), "That is not how S3 answers"),
    ("GET", Reply(200, b"<html>Welcome</html>"), "is not what was written: see what stands before this S3."),
]


@pytest.mark.parametrize(("how", "answer", "said"), ANSWERS, ids=[f"{a}-{b.status}-{c[:30]}" for a, b, c in ANSWERS])
def test_each_refusal_names_what_is_wrong(how: str, answer: Reply, said: str) -> None:
    assert said in fault_of(S3(**{how: answer}))


def test_each_kind_of_fault_is_one_that_is_told() -> None:
    assert set(CODES) | {"unreachable", "slow", "address", "tls", "other"} == set(KINDS)


@pytest.mark.parametrize(("ahead_s", "said"), [(1200, "behind its clock"), (-1200, "ahead of its clock")])
def test_how_far_the_clocks_are_apart_is_told_by_the_answers_date(ahead_s: int, said: str) -> None:
    there = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    told = fault_of(S3(PUT=error(403, "RequestTimeTooSkewed", SKEWED, Date=there)))
    assert said in told
    assert "the clock here is 1" in told


def test_what_was_written_is_deleted_though_a_later_step_fails() -> None:
    s3 = S3(GET=error(403, "AccessDenied"))
    with serving(s3) as server:
        steps = check(place(server.url), "acme").steps
    assert [(step.what, bool(step.fault)) for step in steps] == [
        ("write an object", False),
        ("read it back", True),
        ("delete them", False),
    ]
    assert s3.objects == {}


def test_a_server_that_is_not_there_or_hangs_up_is_told() -> None:
    with serving(S3()) as server:
        pass
    assert "No connection to 127.0.0.1:" in check(place(server.url), "acme").fault


def test_http_where_https_is_spoken_is_told() -> None:
    with serving(S3()) as server:
        told = check(place(server.url.replace("http:", "https:")), "acme").fault
    assert "shows no certificate that is good for it" in told


def test_a_name_without_an_address_is_told_and_what_virtual_hosts_have_to_do_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch).answers["renders.s3.example.com"] = [[]]
    told = check(place("https://s3.example.com", addressing="virtual"), "acme").fault
    assert (
        told == "The name renders.s3.example.com has no address: correct the endpoint, or choose the addressing path."
    )


def test_an_address_inside_is_told_and_not_reached() -> None:
    assert "address 10.0.0.1 is not public" in check(place("https://10.0.0.1"), "acme").fault


@pytest.fixture
def cdn() -> Iterator[tuple[S3, Server]]:
    """A domain that serves what is in `objects`, without asking for signatures."""
    s3 = S3()
    with serving(lambda asked: s3(replace(asked, path=f"/renders{asked.path}"))) as server:
        yield s3, server


def test_a_public_url_is_read_as_clients_do(cdn: tuple[S3, Server]) -> None:
    s3, domain = cdn
    with serving(s3) as server:
        done = check(place(server.url, public_url=domain.url, signed_urls=False), "acme")
    assert done.fault == ""
    assert [(asked.method, "?" in asked.path) for asked in domain.asked] == [("GET", False)]


@pytest.mark.parametrize(
    ("signed", "answer", "hint"),
    [
        (True, Reply(400, b"<Error><Code>InvalidArgument</Code></Error>"), "untick signed URLs"),
        (False, Reply(403, b"private"), "let everybody read there"),
        (
            False,
            Reply(200, b"<html>shop</html>", {"Content-Type": "text/html"}),
            "17 bytes of text/html that nobody wrote",
        ),
    ],
)
def test_a_public_url_that_does_not_give_the_file_is_told(signed: bool, answer: Reply, hint: str) -> None:
    with serving(lambda asked: answer) as domain:
        told = fault_of(S3(), public_url=domain.url, signed_urls=signed)
    assert told.startswith(f"The public URL {domain.url} does not give the file.")
    assert hint in told


def new_bucket(real: Place, **fields: Any) -> Bucket:
    made: Bucket = Bucket.all_tenants.create(
        tenant=Tenant.objects.create(name=unique("acme")),
        name="main",
        endpoint_url=real.endpoint_url,
        s3_bucket=real.s3_bucket,
        prefix=real.prefix,
        access_key_id=real.access_key_id,
        secret_access_key=Sealed.seal(fields.pop("secret", real.secret_access_key)),
        **fields,
    )
    return made


def test_the_last_result_and_its_time_are_kept(real: Place) -> None:
    bucket = new_bucket(real, secret="wrong")
    assert verify(bucket).fault
    bucket.refresh_from_db()
    assert bucket.verify_fault.startswith("The secret access key is not the one")
    failed_at = bucket.verified_at
    bucket.secret_access_key = Sealed.seal(real.secret_access_key)
    bucket.save()
    assert verify(bucket).fault == ""
    bucket.refresh_from_db()
    assert (bucket.verify_fault, bucket.verified_at > failed_at) == ("", True)


def test_a_result_of_settings_that_were_changed_meanwhile_is_not_kept(
    real: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(real)

    def slow(*given: Any) -> verifying.Verification:
        Bucket.all_tenants.filter(pk=bucket.pk).update(s3_bucket="another")
        return verifying.Verification(())

    monkeypatch.setattr(verifying, "check", slow)
    verify(bucket)
    bucket.refresh_from_db()
    assert bucket.verified_at is None


def test_a_secret_that_is_lost_is_told(real: Place) -> None:
    bucket = new_bucket(real)
    bucket.secret_access_key = Sealed(b"x")
    bucket.save()
    assert "cannot be used: a stored secret opens with none of HEARTH_SEAL_KEYS" in verify(bucket).fault
    bucket.delete()  # for whoever looks at all secrets after this


def command(*arguments: str) -> str:
    said = StringIO()
    call_command("verify_bucket", *arguments, stdout=said)
    return said.getvalue()


def test_the_command_tells_each_step(real: Place) -> None:
    bucket = new_bucket(real)
    said = command(str(bucket)).splitlines()
    assert said == [*(f"ok      {step}" for step in ALL_STEPS), f"{bucket} works."]
    bucket.secret_access_key = Sealed.seal("wrong")
    bucket.save()
    with pytest.raises(CommandError, match="enter it anew"):
        command(str(bucket))


def test_the_command_verifies_the_operators_own_s3_and_knows_no_other_bucket(real: Place) -> None:
    assert command().endswith("The S3 of the operator works.\n")
    with pytest.raises(CommandError, match="There is no bucket 'nobody/main'"):
        command("nobody/main")


def test_what_keeps_the_operators_s3_bucket_from_being_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    SWITCHED.s3 = S3(PUT=error(403, "InvalidAccessKeyId", "does not exist in our records"))
    monkeypatch.setattr(settings, "S3_ENDPOINT_URL", SWITCHED.server.url)
    assert "correct the access key ID" in create_bucket.made()
    SWITCHED.s3 = S3(PUT=error(409, "BucketAlreadyOwnedByYou"))
    assert create_bucket.made() == ""
